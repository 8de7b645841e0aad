"""Models that are loaded as they are asked for, in the simulator: more of them than fit."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from sim_rig import PATHS, logged, scenario

from infcore import sim
from infcore.errors import InvalidArgument
from infcore.sim import simulate

MB = 10**6


def tables(**run: Any) -> dict[str, Any]:
    """Forty models on three nodes that hold eight each, small ones and ones of thrice their size."""
    return {
        "run": {"seconds": 12.0, "warmup_s": 4.0, "residency": "infcore", "curves_known": True, **run},
        "node": [{"name": "gpu", "count": 3, "memory_bytes": 800 * MB, "resident": False}],
        "model": [
            {"name": "small", "count": 30, "slo_s": 0.1, "weights_bytes": 100 * MB, "load_s": 0.008},
            {"name": "large", "count": 10, "slo_s": 0.3, "weights_bytes": 300 * MB, "load_s": 0.03},
        ],
        "latency": [
            {"model": "small", "node": "gpu", "base_s": 0.002, "per_request_s": 0.001, "cv": 0.05},
            {"model": "large", "node": "gpu", "base_s": 0.005, "per_request_s": 0.002, "cv": 0.05},
        ],
        "workload": [
            {"model": "small", "rate_rps": 250.0, "zipf": 0.9, "deadline_s": 0.1},
            {"model": "large", "rate_rps": 15.0, "zipf": 0.9, "deadline_s": 0.3, "tier": 1},
        ],
    }


def n_loads(row: dict[str, Any]) -> int:
    return sum(node["loads"] for node in row["nodes"])


@pytest.mark.parametrize("policy", PATHS)
def test_every_request_ends_once_and_memory_is_kept(policy: str) -> None:
    row, lines = logged(tables(), policy)
    assert (row["lost"], row["duplicated"], row["violations"]) == (0, 0, 0)  # memory is an invariant of the simulator's
    assert n_loads(row) > 30
    assert {line["model"].split("-")[0] for line in lines} == {"small", "large"}
    assert [model["name"] for model in row["models"]] == ["small", "large"]
    assert sum(model["requests"] for model in row["models"]) == row["requests"]
    for line in lines:
        if line["outcome"] == "ok":
            assert line["end_s"] - line["arrival_s"] <= line["deadline_s"] + 1e-9


def test_joint_choice_keeps_the_goal_where_round_robin_does_not() -> None:
    """The scenario's claim, at a third of its length and four seeds."""
    short = sim.load("thousand-models")
    short = replace(short, run=replace(short.run, seconds=20.0, warmup_s=10.0))
    rows = {policy: simulate(short, policy=policy, seed=3) for policy in ("round_robin", "slo_cost")}
    assert rows["round_robin"]["within_slo"] < 0.93  # its memories are not full of the wrong models yet
    assert rows["slo_cost"]["within_slo"] >= 0.9999
    assert n_loads(rows["slo_cost"]) < n_loads(rows["round_robin"])


def test_overload_is_refused_at_the_door() -> None:
    """At twice what the devices can do, most of what cannot make it is refused at once."""
    world = tables()
    world["workload"][1]["tier"] = 0  # else the small ones that are still to come take all, and nobody knows of them
    row = simulate(scenario(world), policy="slo_cost", load=12.0)
    ends = Counter(row["outcomes"])
    assert ends["rejected"] == row["reasons"]["infeasible"] > 5000
    assert ends["expired"] + ends["shed"] < 0.2 * ends["rejected"]
    assert row["within_slo"] * row["requests"] == pytest.approx(ends["ok"], rel=0.002)


@pytest.mark.parametrize("policy", ["round_robin", "slo_cost"])
@pytest.mark.parametrize("residency", ["lru", "gdsf", "s3_fifo", "infcore"])
def test_faults(policy: str, residency: str) -> None:
    """Memory is lost in crashes, loads are cut off, nodes hang and come back: nobody is lost."""
    world = tables(residency=residency, run_limit_s=1.0, detect_s=0.2, probe_s=0.2, hedge_quantile=0.99)
    kinds = [("crash", {}), ("hang", {}), ("partition", {}), ("slow", {"factor": 4.0}), ("errors", {"rate": 0.2})]
    world["random_fault"] = [
        {"kind": kind, "rate_per_node_hour": 300.0, "for_s": 0.7, **strength} for kind, strength in kinds
    ]
    for seed in range(3):
        row = simulate(scenario(world), policy=policy, seed=seed)
        assert (row["lost"], row["duplicated"]) == (0, 0)
        assert row["violations"] == 0, row["first_violation"]
        assert row["availability"] > 0.5
        assert n_loads(row) > 30


def test_a_node_that_was_up_and_idle_fills_its_memory() -> None:
    world = tables()
    world["workload"] = [{"model": "small-29", "rate_rps": 1.0, "deadline_s": 0.1}]
    row, lines = logged(world, "slo_cost")
    assert all(line["outcome"] == "ok" for line in lines)
    assert n_loads(row) == 0  # after the warm-up nothing is left to do
    assert all(line["end_s"] - line["arrival_s"] < 0.005 for line in lines if line["arrival_s"] > 4.0)


def test_a_crash_during_a_load_is_not_taken_for_a_model_that_cannot_be_loaded() -> None:
    world = tables()
    world["node"][0]["count"], world["model"][0]["load_s"] = 1, 4.0
    world["model"], world["latency"] = world["model"][:1], world["latency"][:1]
    world["workload"] = [{"model": "small-0", "rate_rps": 10.0}]
    world["fault"] = [{"at_s": 2.0, "kind": "crash", "node": "gpu", "for_s": 1.0}]
    _, lines = logged(world, "slo_cost")
    assert {line["outcome"] for line in lines} == {"ok"}
    assert min(line["end_s"] for line in lines) < 7.1  # loaded as soon as it is back


def test_loads_beside_runs_or_in_turn_with_them() -> None:
    beside = simulate(scenario(tables()), policy="slo_cost", seed=1)
    world = tables()
    world["node"][0]["loads_beside_runs"] = False
    in_turn = simulate(scenario(world), policy="slo_cost", seed=1)
    assert (in_turn["violations"], in_turn["lost"]) == (0, 0)
    assert in_turn["latency_s"]["p50"] > beside["latency_s"]["p50"]
    assert in_turn["availability"] > 0.9


@pytest.mark.parametrize("kind", ["hang", "partition"])
def test_a_fault_that_lasts_ends_the_run_all_the_same(kind: str) -> None:
    world = tables(detect_s=0.1, run_limit_s=1.0)
    world["fault"] = [{"at_s": 1.0, "kind": kind, "node": "gpu-0"}]
    row = simulate(scenario(world), policy="slo_cost")
    assert (row["lost"], row["duplicated"], row["violations"]) == (0, 0, 0)
    assert row["nodes"][0]["loads"] == 0 < row["nodes"][1]["loads"]


def test_a_worker_that_loads_runs_nothing_meanwhile() -> None:
    world = tables()
    world["node"] = [{**world["node"][0], "count": 1, "loads_beside_runs": False, "memory_bytes": 200 * MB}]
    world["model"], world["latency"] = world["model"][:1], world["latency"][:1]
    world["model"][0]["max_batch_size"] = 4
    world["workload"] = [{"model": "small", "rate_rps": 1000.0, "deadline_s": 0.5}]
    row = simulate(scenario(world), policy="slo_cost")
    span_s = row["simulated_s"] - 4.0
    assert row["nodes"][0]["busy_s"] + 0.008 * row["nodes"][0]["loads"] <= span_s + 0.01
    assert row["nodes"][0]["busy_s"] + 0.008 * row["nodes"][0]["loads"] > 0.9 * span_s
    ends = row["outcomes"]
    assert ends["expired"] + ends["shed"] < 0.02 * ends["rejected"]  # the door knows of the loads


def test_a_costlier_load_is_made_less_often() -> None:
    """By cost and size: of two models asked for alike, the one that takes longer to load stays."""
    world = tables(residency="gdsf")
    world["model"] = [
        {"name": "quick", "count": 12, "slo_s": 0.5, "weights_bytes": 100 * MB, "load_s": 0.004},
        {"name": "slow", "count": 12, "slo_s": 0.5, "weights_bytes": 100 * MB, "load_s": 0.08},
    ]
    world["latency"] = [{"model": name, "node": "gpu", "base_s": 0.002} for name in ("quick", "slow")]
    world["workload"] = [{"model": name, "rate_rps": 40.0, "deadline_s": 0.5} for name in ("quick", "slow")]
    world["node"][0]["count"] = 2
    row, _ = logged(world, "fastest_finish")
    quick, slow = (model["wait_s"]["p90"] for model in row["models"])
    assert row["within_slo"] > 0.99
    assert slow < quick + 0.08


def test_what_a_scenario_may_say() -> None:
    with pytest.raises(InvalidArgument, match="residency must be one of"):
        scenario(tables(residency="belady"))
    world = tables()
    world["model"][0]["count"] = 0
    with pytest.raises(InvalidArgument, match="count"):
        scenario(world)
    world = tables()
    world["model"][0]["weights_bytes"] = 900 * MB
    with pytest.raises(InvalidArgument, match="memory_bytes"):
        scenario(world)
