"""bench/gpu/run.py where there is no GPU: what it prints, its JSON and exit status; and that its checks find faults."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import checking
import numpy as np
import operations
import pytest
import run
from gpu import interpreter
from gpu.ahead_of_time import CAPABILITIES
from places import GUARD_BYTES, CupyDevice, TorchDevice, item_bytes, numpy_item

from infcore.kernels import dtypes

SCRIPT = Path(run.__file__)
SECONDS_MAX = 300


def finished(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    # Whether this machine has a GPU or not, here there is none.
    environment |= {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


def of_kind(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [row for row in document["rows"] if row["kind"] == kind]


def test_without_a_gpu_it_says_so_and_shows_what_can_be_shown(tmp_path: Path) -> None:
    interpreter.require()
    pytest.importorskip("cupy", reason="CuPy is not installed: no NVRTC")
    file = tmp_path / "gpu.json"
    done = finished("--smoke", "--seed", "7", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none: nothing below was run on a GPU" in done.stdout
    assert done.stdout.endswith("no wrong answer\n")

    document = json.loads(file.read_text())
    assert document["schema_version"] == run.SCHEMA_VERSION
    assert document["seed"] == 7
    assert document["env"]["gpu"] is None
    for backend, library in (("triton", "PyTorch"), ("cupy", "GPU|driver")):
        assert any(word in document["env"]["backends"][backend] for word in library.split("|"))

    answers = of_kind(document, "correctness")
    assert {(row["op"], row["where"]) for row in answers} == {
        (op, where) for op in operations.OPERATIONS for where in ("interpreter", "host shim")
    }
    assert all(row["n_wrong"] == 0 and row["n_cases"] >= 6 for row in answers)

    packages = {operation.package for operation in operations.OPERATIONS.values()}
    codes = of_kind(document, "compile_time")
    assert {(row["op"], row["backend"], row["capability"]) for row in codes} == {
        (package, backend, f"sm_{capability}")
        for package in packages
        for backend in run.BACKENDS
        for capability in CAPABILITIES
    }
    for row in codes:
        assert row["registers"] > 0
        assert (row["stack_bytes"], row["local_bytes"]) == (0, 0)
        assert row["case"] == "narrow" or (row["load_bits"], row["store_bits"]) == (128, 128)

    counted = of_kind(document, "bytes")
    assert {(row["op"], row["backend"]) for row in counted} == {
        (op, backend) for op in operations.OPERATIONS for backend in run.BACKENDS
    }
    for row in counted:
        assert row["written_bytes"] <= row["floor_bytes"] <= row["read_bytes"] + row["written_bytes"]
    # Nothing that only a GPU can say.
    assert not of_kind(document, "bandwidth")
    host_times = of_kind(document, "overhead")
    assert [row["op"] for row in host_times] == list(operations.OPERATIONS)
    for row in host_times:
        assert row["where"] == "cpu, nothing launched" and "target_met" not in row
        assert 0 < row["own_us"]["p50"] < row["host_us"]["p50"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["--op", "sort"], "sort"), (["--size", "64"], "'64'"), (["--backend", "rocm"], "rocm"), (["--seed", "-1"], "-1")],
)
def test_arguments_that_are_not_allowed(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(arguments)
    assert ended.value.code == 2
    assert word in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--json", str(tmp_path / "no folder" / "gpu.json")]) == 2
    said = capsys.readouterr()
    assert "--json" in said.err and "no folder" in said.err and not said.out


def test_cupy_s_memory_is_laid_out_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views of CuPy's, on host memory as there is no GPU."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    memory = np.zeros(4096, np.uint8)

    def block(self: CupyDevice, n_bytes: int) -> Any:
        unowned = cupy.cuda.UnownedMemory(memory.ctypes.data, n_bytes, memory, 0)
        return cupy.ndarray((n_bytes,), np.uint8, cupy.cuda.MemoryPointer(unowned, 0))

    monkeypatch.setattr(CupyDevice, "block", block)
    for dtype in [*checking.known_dtypes(), "bool"]:
        for shape in ((3, 4), (0, 3), (5, 0, 2), (0,)):
            off = item_bytes(dtype)
            array = CupyDevice().poisoned(shape, dtype, off)
            assert (array.shape, array.dtype, array.flags.c_contiguous) == (shape, numpy_item(dtype), True)
            assert array.data.ptr == memory.ctypes.data + GUARD_BYTES + off


def test_sizes() -> None:
    assert [run.size_of(size) for size in ("3KiB", "64MiB", "1GiB")] == [3072, 64 << 20, 1 << 30]


NOT_INSTALLED = """
import sys
import run
run.find_kernels()
import infcore.kernels.pack.launch
print(infcore.kernels.__path__[0], "infcore._core" in sys.modules)
"""


def test_a_checkout_that_is_not_installed_will_do(tmp_path: Path) -> None:
    """As on a GPU machine that has NumPy and the back-ends, and nothing of ours."""
    for package in Path(np.__file__).parents[1].glob("numpy*"):
        (tmp_path / package.name).symlink_to(package)
    done = subprocess.run(
        [sys.executable, "-S", "-c", NOT_INSTALLED],
        env={"PYTHONPATH": f"{SCRIPT.parent}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [str(run.ROOT / "kernels"), "False"], done.stderr


def wrong_in(op: str) -> list[str]:
    """What the checks say of an operation, interpreted."""
    interpreter.require()
    cases = operations.OPERATIONS[op].cases(np.random.default_rng(5), smoke=True)
    return checking.run(op, cases, TorchDevice("cpu")).wrong


def test_padding_of_another_value_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    value_bits = dtypes.value_bits
    monkeypatch.setattr(dtypes, "value_bits", lambda value, *more, **named: value_bits(value + 1, *more, **named))
    wrong = wrong_in("pack")
    assert wrong and all("padded" in what and "data:" in what for what in wrong)


def test_what_is_not_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter.require()
    from infcore.kernels.pack import triton_kernel

    monkeypatch.setattr(triton_kernel, "launch", lambda *arguments: None)
    wrong = wrong_in("unpack")
    assert len(wrong) >= 10


def test_bytes_beside_the_output_are_watched() -> None:
    torch = interpreter.require()

    def writes_beside(place: checking.Place) -> list[checking.Output]:
        out = place.poisoned((10,), "float32")
        torch.as_strided(out, (11,), (1,)).fill_(0.0)
        return [checking.Output("out", place.numpy(out, "float32"), np.zeros(10, np.float32))]

    result = checking.run("pack", [checking.Case("pack", "eleven of ten", writes_beside)], TorchDevice("cpu"))
    assert result.wrong == ["eleven of ten: bytes beside an array of 40 bytes were written"]
    assert result.row()["n_wrong"] == 1


def test_a_case_that_raises_is_wrong() -> None:
    def raises(place: checking.Place) -> list[checking.Output]:
        raise ValueError("no")

    result = checking.run("pack", [checking.Case("pack", "case", raises)], TorchDevice("cpu"))
    assert result.wrong == ["case: ValueError: no"]


def test_wrong_answers_are_exit_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"kind": "correctness", "n_wrong": 0}
    way = {"name": "cat", "same": True}
    for rows, status in (
        ([answers], 0),
        ([answers | {"n_wrong": 2}], 1),
        ([answers, {"kind": "bandwidth", "ways": [way]}], 0),
        ([answers, {"kind": "bandwidth", "ways": [way, way | {"same": False}]}], 1),
        ([], 2),
    ):
        monkeypatch.setattr(run, "gather", lambda options, document, rows=rows: document["rows"].extend(rows))
        assert run.main([]) == status
    capsys.readouterr()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_distance_in_representable_numbers(dtype: str) -> None:
    if dtype not in checking.known_dtypes():
        pytest.skip("ml_dtypes is not installed: NumPy has no bfloat16")
    item = dtypes.numpy_dtype(dtype)
    bits = np.arange(5, dtype=f"u{item.itemsize}")  # zero and the four smallest numbers
    up = bits.view(item)
    assert checking.ulps_apart(up, up[[0, 0, 0, 3, 3]]).tolist() == [0, 1, 2, 0, 1]
    assert checking.ulps_apart(-up, up).tolist() == [0, 2, 4, 6, 8]
    odd = np.array([np.nan, np.nan, np.inf, 1.0], item)
    apart = checking.ulps_apart(odd, odd[[0, 3, 2, 0]])
    assert apart[0] == apart[2] == 0 and apart[1] > 1 << 15 and apart[3] > 1 << 15
