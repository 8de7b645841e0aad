"""What a request costs the engine's state machine: arrive, dispatch, claim, start, complete, under a virtual clock.

bench/micro/machine_bench.cpp times itself, in CPU time, over the library that the package runs; the column is
nanoseconds a request, the median over rounds. Beside it, in_turn: the same event loop with no machine in it, each
request to the next node. No row asserts a time; each checks that every request ended once and that every round decided
the same.
"""

import json
import subprocess
from pathlib import Path

import pytest
from programs import SaidTimer, compiled

import infcore
import infcore._core.machine
import infcore.sim
from infcore import Router

LIBRARY = Path(infcore._core.machine.__file__).parent
N_SMOKE = 20_000
ROUNDS = 5


timer = SaidTimer()


@pytest.fixture(scope="session")
def program():
    return compiled("machine_bench", f"-L{LIBRARY}", "-linfcore", f"-Wl,-rpath,{LIBRARY}")


@pytest.mark.benchmark(group="state machine: one request, nodes at 70 % of what they can do", timer=timer.read_s)
@pytest.mark.parametrize("n_nodes", [6, 64, 1024])
@pytest.mark.parametrize("policy", ["in_turn", *Router.policies()])
def test_request(benchmark, program, policy, n_nodes):
    said = []

    def run():
        command = [program, policy, str(n_nodes), str(N_SMOKE), "0.7"]
        said.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        timer.pass_s(said[-1]["ns_per_request"] * 1e-9)

    benchmark.pedantic(run, rounds=ROUNDS)
    assert {s["ended"] for s in said} == {N_SMOKE}
    assert len({s["digest"] for s in said}) == 1
    if policy in ("least_outstanding", "fastest_finish"):
        assert said[0]["ok"] == N_SMOKE  # 70 % and 200 ms leave no reason to be late
    benchmark.extra_info |= {key: said[0][key] for key in ("mean_ms", "p99_ms", "batches", "steps", "digest")}


@pytest.mark.benchmark(group="state machine: one request, with policies at the door, 64 nodes", timer=timer.read_s)
@pytest.mark.parametrize("load", ["0.7", "1.5"])
@pytest.mark.parametrize(
    "admission", [[], ["infeasible"], infcore.admission_policies()], ids=["none", "default", "all"]
)
def test_request_admission(benchmark, program, admission, load):
    """At 0.7 nobody is refused but by the limit; at 1.5 what is refused at the door costs least."""
    said = []

    def run():
        command = [program, "fastest_finish", "64", str(N_SMOKE), load, "-", *admission]
        said.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        timer.pass_s(said[-1]["ns_per_request"] * 1e-9)

    benchmark.pedantic(run, rounds=ROUNDS)
    assert {s["ended"] for s in said} == {N_SMOKE} and len({s["digest"] for s in said}) == 1
    benchmark.extra_info |= {key: said[0][key] for key in ("ok", "mean_ms", "p99_ms", "batches")}


@pytest.mark.benchmark(group="state machine: one request, with every event and decision logged", timer=timer.read_s)
@pytest.mark.parametrize("logged", [False, True], ids=["no_log", "log"])
def test_request_logged(benchmark, program, tmp_path, logged):
    """What infcore.Engine(log=) adds; log_bytes is a request's share of the file, which replays."""
    path, said = tmp_path / "machine.log", []

    def run():
        command = [program, "fastest_finish", "6", str(N_SMOKE), "0.7", *([str(path)] if logged else [])]
        said.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        timer.pass_s(said[-1]["ns_per_request"] * 1e-9)

    benchmark.pedantic(run, rounds=ROUNDS)
    assert len({s["digest"] for s in said}) == 1
    benchmark.extra_info["log_bytes"] = said[0]["log_bytes"] / N_SMOKE
    if logged:
        found = infcore.sim.replay(path)
        assert found.equal and found.n_requests == N_SMOKE
        assert said[0]["log_bytes"] == path.stat().st_size < 40 * N_SMOKE
