"""Telemetry of GPUs against a scripted NVML library: the cases of fake_nvml/ in processes that load it."""

import json
import subprocess
import sys
from pathlib import Path

import nvml_rig
import pytest

CASES = Path(__file__).parent / "fake_nvml"

pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed: the extra [telemetry] brings it")


@pytest.fixture(scope="module")
def present(tmp_path_factory):
    return nvml_rig.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    return nvml_rig.build(tmp_path_factory.mktemp("older_nvml"), "-DFAKE_OLD_DRIVER")


def run_cases(environment, *names):
    files = [str(CASES / f"cases_{name}.py") for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(
        command, cwd=CASES.parents[2], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_cases_of_a_present_driver(present):
    run_cases(present, "devices", "sampler", "engine", "bench")


def test_cases_of_an_older_driver(older):
    run_cases(older, "older_driver")


def test_every_file_of_cases_is_run():
    assert {path.stem for path in CASES.glob("cases_*.py")} == {
        "cases_bench",
        "cases_devices",
        "cases_engine",
        "cases_older_driver",
        "cases_sampler",
    }


def info(environment):
    command = [sys.executable, "-m", "infcore.cli", "info", "--json", "-"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_info_shows_the_cards(present):
    machine = nvml_rig.Machine(path=present[nvml_rig.STATE])
    machine.card(1, lost=15)
    found = info(present)
    first, second = found["gpus"]
    assert (first["name"], first["uuid"], first["driver"]) == ("Made-up H100", nvml_rig.uuid_of(0), "580.42")
    assert (first["memory_total_bytes"], first["compute_capability"]) == (80 * 2**30, [9, 0])
    assert second["lost"] is True
    assert second["power_w"] is None
    assert found["no_gpu_because"] is None
    machine.card(0, ecc_corrected=None, ecc_uncorrected=7)
    command = [sys.executable, "-m", "infcore.cli", "info"]
    shown = subprocess.run(command, env=present, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Made-up H100" in shown
    assert "LOST" in shown
    assert "ECC errors 7 uncorrected\n" in shown, "what is not told is not shown as 0"


def test_a_library_that_is_none_is_no_gpu(tmp_path, present):
    (tmp_path / "libnvidia-ml.so.1").touch()
    found = info({**present, "LD_LIBRARY_PATH": str(tmp_path)})
    assert found["gpus"] == []
    assert "libnvidia-ml.so.1 was not found" in found["no_gpu_because"]
