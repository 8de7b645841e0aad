"""What a request costs the engine's state machine: arrive, dispatch, claim, start, complete, under a virtual clock.

bench/micro/machine_bench.cpp times itself over the library that the package runs; the column is nanoseconds a request,
the median over rounds. Beside it, in_turn: the same event loop with no machine in it, each request to the next node. No
row asserts a time; each checks that every request ended once and that every round decided the same.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import infcore._core.machine

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(infcore._core.machine.__file__).parent
N_SMOKE = 20_000
ROUNDS = 5


class ProgramTimer:
    """pytest-benchmark's clock for rows whose time a compiled program measures: it moves only by what that says."""

    now_s = 0.0

    @classmethod
    def read(cls):
        return cls.now_s


@pytest.fixture(scope="session")
def program():
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not on PATH, so the C++ rows cannot be built")
    built = ROOT / "build" / "bench" / "machine_bench"
    built.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-std=c++20", "-O3", "-ffp-contract=off", f"-I{ROOT / 'csrc'}"]
    link = [f"-L{LIBRARY}", "-linfcore", f"-Wl,-rpath,{LIBRARY}"]
    subprocess.run([compiler, *flags, ROOT / "bench/micro/machine_bench.cpp", *link, "-o", built], check=True)
    return built


@pytest.mark.benchmark(group="state machine: one request, nodes at 70 % of what they can do", timer=ProgramTimer.read)
@pytest.mark.parametrize("n_nodes", [6, 64])
@pytest.mark.parametrize("policy", ["in_turn", "round_robin", "least_outstanding", "fastest_finish"])
def test_request(benchmark, program, policy, n_nodes):
    said = []

    def run():
        command = [program, policy, str(n_nodes), str(N_SMOKE), "0.7"]
        said.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        ProgramTimer.now_s += said[-1]["ns_per_request"] * 1e-9

    benchmark.pedantic(run, rounds=ROUNDS)
    assert {s["ended"] for s in said} == {N_SMOKE}
    assert len({s["digest"] for s in said}) == 1
    if policy in ("least_outstanding", "fastest_finish"):
        assert said[0]["ok"] == N_SMOKE  # 70 % and 200 ms leave no reason to be late
    benchmark.extra_info |= {key: said[0][key] for key in ("batches", "steps", "digest")}
