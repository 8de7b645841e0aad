"""What a simulated request costs, all in: arrivals drawn, decided by the engine's state machine, run, counted.

Unlike nodes (four speeds), four models of unlike work, at 70 % of what full batches would carry. The column is seconds
of CPU time a run of N_SMOKE requests; no row asserts a time; each checks that every request ended once.
"""

import time
from dataclasses import replace

import pytest

from infcore import sim
from infcore.sim.bound import capacity_bound

N_SMOKE = 30_000
SPEEDS = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 6.0}
MODELS = {
    "image": (2e-3, 2e-4, 0.0),
    "text": (3e-3, 1e-4, 2e-5),
    "speech": (5e-3, 1e-3, 1e-4),
    "rank": (1e-3, 2e-5, 0.0),
}


def scenario(n_nodes: int, n_requests: int) -> sim.Scenario:
    """Rates that together are 70 % of the bound, so many requests long."""
    nodes = tuple(
        sim.Node(name=f"{group}-{i}", group=group, price_per_hour=1.0, initial_models=tuple(MODELS))
        for i in range(n_nodes // len(SPEEDS))
        for group in SPEEDS
    )
    latencies = tuple(
        sim.Latency(model, group, base_s=base * slow, per_request_s=each * slow, per_work_s=work * slow, cv=0.05)
        for group, slow in SPEEDS.items()
        for model, (base, each, work) in MODELS.items()
    )
    work = sim.WorkDist("lognormal", mean=20.0, cv=1.0)
    whole = sim.Scenario(
        name="speed",
        description="",
        run=sim.Run(seconds=1.0),
        nodes=nodes,
        models=tuple(sim.Model(name, slo_s=0.2, max_batch_size=32) for name in MODELS),
        latencies=latencies,
        workloads=tuple(sim.Workload(name, 1000.0, deadline_s=1.0, work=work) for name in MODELS),
    )
    loaded = sim.scaled(whole, 0.7 * capacity_bound(whole, served=1.0))
    rate_rps = sum(workload.rate_rps for workload in loaded.workloads)
    return replace(loaded, run=sim.Run(seconds=n_requests / rate_rps))


@pytest.mark.benchmark(group="simulator: one request", timer=time.process_time)
@pytest.mark.parametrize("n_nodes", [64, 1024, 8192])
@pytest.mark.parametrize("policy", ["round_robin", "fastest_finish", "clairvoyant"])
def test_request(benchmark, policy, n_nodes):
    world = scenario(n_nodes, N_SMOKE)
    rows = []

    def run():
        rows.append(sim.simulate(world, policy=policy, seed=1))

    benchmark.pedantic(run, rounds=3)
    assert rows[0]["lost"] == rows[0]["duplicated"] == rows[0]["violations"] == 0
    assert sum(rows[0]["outcomes"].values()) == rows[0]["requests_total"]
    assert len({row["digest"] for row in rows}) == 1
    benchmark.extra_info |= {"requests": rows[0]["requests_total"], "digest": rows[0]["digest"]}
    benchmark.extra_info["batch_mean"] = rows[0]["requests_total"] / max(1, sum(n["batches"] for n in rows[0]["nodes"]))
