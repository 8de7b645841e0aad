"""What the fleet's table costs without Python: credit, signals, looking for changes, adding nodes, in either memory.

bench/micro/fleet_bench.cpp times itself, in CPU time of its threads, over the library that the package runs; each row
is the median over rounds. No row asserts a time; each checks that nothing of the credit was lost. Beside them, from
Python: signal_many and add.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from programs import SaidTimer, compiled

import infcore
import infcore._core.fleet

LIBRARY = Path(infcore._core.fleet.__file__).parent
N_SMOKE = 20_000
ROUNDS = 3
FIGURES = ["reserve_release", "signal", "reserve_look", "one_thread", "two_threads"]

timer = SaidTimer()


@pytest.fixture(scope="session")
def program():
    return compiled("fleet_bench", f"-L{LIBRARY}", "-linfcore", f"-Wl,-rpath,{LIBRARY}")


@pytest.mark.benchmark(group="fleet: reserve and release", timer=timer.read_s)
@pytest.mark.parametrize("n_nodes", [64, 10_000])
@pytest.mark.parametrize("shared", ["0", "1"], ids=["private", "shared"])
def test_table(benchmark, program, n_nodes, shared):
    said = []

    def run():
        command = [program, str(n_nodes), str(N_SMOKE), shared]
        said.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        timer.pass_s(said[-1]["reserve_release"] * 1e-9)

    benchmark.pedantic(run, rounds=ROUNDS)
    for one in said:
        assert one["inflight"] == N_SMOKE, "the looks reserve one each, all else is released"
        assert one["changed"] >= N_SMOKE
    # Without timing there is one round.
    benchmark.extra_info |= {name: sorted(one[name] for one in said)[len(said) // 2] for name in ["add", *FIGURES]}


@pytest.mark.benchmark(group="fleet: 10,000 nodes from Python")
def test_signal_many(benchmark):
    n = 10_000
    fleet = infcore.Fleet(max_nodes=n)
    for i in range(n):
        fleet.add(f"n{i}")
    rows = np.zeros(n, dtype=[("node", "u4"), ("cpu", "f8"), ("inflight", "f8")])
    rows["node"], rows["cpu"] = np.arange(n), 0.5
    assert benchmark.pedantic(lambda: fleet.signal_many(rows), rounds=5) == n


@pytest.mark.benchmark(group="fleet: 10,000 nodes from Python")
def test_add(benchmark):
    def run():
        fleet = infcore.Fleet(max_nodes=10_000)
        for i in range(10_000):
            fleet.add(f"n{i}", zone="z")
        return fleet

    assert len(benchmark.pedantic(run, rounds=2)) == 10_000
