"""Faults in the simulator, one by one, from the log: what an outsider sees of each."""

from typing import Any

import numpy as np
import pytest
from sim_rig import NS, PATHS, Line, Tables, check_figures, check_log, logged, scenario

from infcore.sim import load, policies, simulate

AT_S, UNTIL_S = 1.0, 2.0
SERVICE_S = 0.01


def world(*faults: dict[str, Any], nodes: int = 2, far: bool = False, run: Any = None, model: Any = None) -> Tables:
    """Evenly spaced requests that keep each node busy for three quarters of the time, for 4 s. far: one in a zone b."""
    groups = [("n", nodes, "a"), ("far", 1, "b")][: 1 + far]
    return {
        "run": {"seconds": 4.0, "probe_s": 0.05, **(run or {})},
        "node": [{"name": name, "count": count, "zone": zone} for name, count, zone in groups],
        "model": [{"name": "m", "max_batch_size": 1, **(model or {})}],
        "latency": [{"model": "m", "node": name, "base_s": SERVICE_S} for name, _, _ in groups],
        "workload": [{"model": "m", "rate_rps": 75.0 * (nodes + far), "arrivals": "regular"}],
        "fault": [{"at_s": AT_S, "for_s": UNTIL_S - AT_S, **fault} for fault in faults],
    }


def run(tables: Tables, policy: str = "fastest_finish", seed: int = 0) -> tuple[dict[str, Any], list[Line]]:
    """The figures and the log, after what holds of all of them."""
    row, lines = logged(tables, policy, seed=seed)
    check_log(scenario(tables), lines, policy=policy)
    check_figures(scenario(tables), row, lines)
    assert (row["lost"], row["duplicated"], row["violations"]) == (0, 0, 0), row["first_violation"]
    return row, lines


def on(lines: list[Line], node: str) -> list[Line]:
    return [line for line in lines if line["node"] == node and line["start_s"] is not None]


def all_ok(lines: list[Line]) -> None:
    assert {line["outcome"] for line in lines} == {"ok"}


def test_without_faults_nothing_is_retried() -> None:
    row, lines = run(world())
    all_ok(lines)
    assert {line["attempts"] for line in lines} == {1}
    assert row["faults"] == {"count": 0, "events": []}
    assert row["availability"] == 1.0


@pytest.mark.parametrize("policy", PATHS)
@pytest.mark.parametrize("load_s", [0.0, 0.5])
def test_crash(policy: str, load_s: float) -> None:
    """Nothing runs there meanwhile, nor before its model is loaded again; what ran is run elsewhere."""
    row, lines = run(world({"kind": "crash", "node": "n-0"}, model={"load_s": load_s}), policy)
    all_ok(lines)
    there = on(lines, "n-0")
    assert not [line for line in there if line["end_s"] > AT_S + NS and line["start_s"] < UNTIL_S + load_s - NS]
    assert [line for line in there if line["end_s"] <= AT_S]
    assert [line for line in there if line["start_s"] >= UNTIL_S + load_s]
    # Back at the next probe at the latest, and used again soon.
    assert min(line["start_s"] for line in there if line["start_s"] >= UNTIL_S) < UNTIL_S + load_s + 0.1
    interrupted = [line for line in lines if line["attempts"] > 1]
    assert interrupted and all(line["node"] == "n-1" and line["arrival_s"] <= AT_S for line in interrupted)
    events = [(event["at_s"], event["node"], event["kind"], event["begins"]) for event in row["faults"]["events"]]
    assert events == [(AT_S, "n-0", "crash", True), (UNTIL_S, "n-0", "crash", False)]
    assert row["faults"]["count"] == 1
    assert {node["name"]: node["faults"] for node in row["nodes"]} == {"n-0": 1, "n-1": 0}


def test_crash_of_the_only_node_is_waited_out() -> None:
    _, lines = run(world({"kind": "crash", "node": "n"}, nodes=1, model={"load_s": 0.25}))
    meanwhile = [line for line in lines if AT_S < line["arrival_s"] < UNTIL_S + 0.25]
    assert len(meanwhile) == pytest.approx(75 * 1.25, abs=2)
    all_ok(lines)
    assert all(line["start_s"] >= UNTIL_S + 0.25 - NS for line in meanwhile)


def test_crash_to_the_end_ends_every_request() -> None:
    """for_s 0: to the end. What is accepted and can never be served ends all the same, and not as served."""
    row, lines = run(world({"kind": "crash", "node": "n", "for_s": 0.0}, nodes=1))
    assert len(lines) == pytest.approx(300, abs=1)
    for line in lines:
        assert (line["outcome"] == "ok") == (line["arrival_s"] < AT_S - SERVICE_S), line
    assert row["availability"] == pytest.approx(0.25, abs=0.01)


def test_crash_of_a_group_is_one_of_each_node() -> None:
    row, lines = run(world({"kind": "crash", "node": "n"}))
    assert row["faults"]["count"] == 2
    assert not [line for line in lines if line["start_s"] < UNTIL_S and line["end_s"] > AT_S + NS]


@pytest.mark.parametrize("policy", PATHS)
def test_slow(policy: str) -> None:
    """What begins meanwhile takes so many times as long, there alone."""
    _, lines = run(world({"kind": "slow", "node": "n-0", "factor": 3.0}), policy)
    all_ok(lines)
    slow = [line for line in on(lines, "n-0") if AT_S <= line["start_s"] < UNTIL_S]
    assert slow
    for line in lines:
        factor = 3.0 if line in slow else 1.0
        assert line["end_s"] - line["start_s"] == pytest.approx(factor * SERVICE_S, abs=NS), line


def test_two_slow_downs_multiply() -> None:
    _, lines = run(world(*({"kind": "slow", "node": "n-0", "factor": f} for f in (3.0, 2.0))))
    took_s = {round((line["end_s"] - line["start_s"]) / SERVICE_S, 3) for line in on(lines, "n-0")}
    assert took_s == {1.0, 6.0}


@pytest.mark.parametrize("policy", PATHS)
def test_hang_without_a_limit_is_waited_out(policy: str) -> None:
    """No answer comes meanwhile; what it had in hand goes on where it stood."""
    _, lines = run(world({"kind": "hang", "node": "n-0"}, run={"run_limit_s": 10.0}), policy)
    all_ok(lines)
    assert not [line for line in on(lines, "n-0") if AT_S + NS < line["end_s"] < UNTIL_S - NS]
    held = [line for line in on(lines, "n-0") if line["start_s"] < UNTIL_S - NS and line["end_s"] >= UNTIL_S - NS]
    assert len(held) == 1 and held[0]["attempts"] == 1
    left_s = held[0]["start_s"] + SERVICE_S - max(AT_S, held[0]["start_s"])
    assert held[0]["end_s"] == pytest.approx(UNTIL_S + left_s, abs=2 * NS)


def test_hang_beyond_the_limit_is_taken_for_lost() -> None:
    """run_limit_s after its begin the run is given up, and its request runs elsewhere."""
    _, lines = run(world({"kind": "hang", "node": "n-0"}, run={"run_limit_s": 0.2}))
    all_ok(lines)
    retried = [line for line in lines if line["attempts"] > 1]
    assert retried and all(line["node"] == "n-1" for line in retried)
    # Begun just before the hang or in it: given up 0.2 s after.
    assert all(AT_S - SERVICE_S + 0.2 <= line["start_s"] <= UNTIL_S + 0.2 for line in retried)
    assert [line for line in on(lines, "n-0") if line["start_s"] >= UNTIL_S]


@pytest.mark.parametrize("policy", PATHS)
@pytest.mark.parametrize("idempotent", [True, False])
def test_errors_of_all_runs(policy: str, idempotent: bool) -> None:
    """A run that raises fails its request, or it is run again where that does no harm: never more than allowed."""
    tables = world({"kind": "errors", "node": "n", "rate": 1.0}, model={"idempotent": idempotent})
    row, lines = run(tables, policy)
    # Where each is run twice, they are more than the nodes can do: who comes later waits until the fault is over.
    inside = [line for line in lines if AT_S <= line["arrival_s"] < (AT_S + 0.3 if idempotent else UNTIL_S - 0.1)]
    assert inside and {line["outcome"] for line in inside} == {"failed"}
    assert all(line["attempts"] <= (3 if idempotent else 1) for line in lines)
    assert {line["outcome"] for line in lines if not AT_S - 0.1 <= line["arrival_s"] < UNTIL_S + 0.1} == {"ok"}
    assert row["availability"] >= 0.73
    assert idempotent or row["availability"] <= 0.77


def batched(*faults: dict[str, Any], **more: Any) -> Tables:
    """As world(), in batches: requests come faster than they could be served alone."""
    tables = world(*faults, **more)
    return {**tables, "workload": [{"model": "m", "rate_rps": 1000.0, "arrivals": "regular"}]}


@pytest.mark.parametrize("idempotent", [True, False])
def test_errors_of_some_batches(idempotent: bool) -> None:
    """Members of a batch that raised are run again where that does no harm; else they fail at once."""
    fault = {"kind": "errors", "node": "n-0", "rate": 0.3}
    _, lines = run(batched(fault, model={"idempotent": idempotent, "max_batch_size": 16}))
    retried = [line for line in lines if line["attempts"] > 1]
    failed = [line for line in lines if line["outcome"] == "failed"]
    assert all(AT_S - 0.1 <= line["arrival_s"] < UNTIL_S + 0.1 for line in retried + failed)
    if idempotent:
        assert len([line for line in retried if line["outcome"] == "ok"]) > 10
    else:
        assert not retried
        assert len(failed) > 10
        assert all(line["node"] == "n-0" and line["start_s"] >= AT_S for line in failed)


def test_share_of_errors() -> None:
    """rate is the share of the runs that raise."""
    tables = world({"kind": "errors", "node": "n", "rate": 0.2, "at_s": 0.0, "for_s": 0.0}, run={"seconds": 60.0})
    _, lines = run({**tables, "model": [{"name": "m", "max_batch_size": 1, "idempotent": False}]})
    failed = np.mean([line["outcome"] == "failed" for line in lines])
    assert failed == pytest.approx(0.2, abs=4.0 * np.sqrt(0.2 * 0.8 / len(lines)))


@pytest.mark.parametrize("policy", PATHS)
def test_lost_completions(policy: str) -> None:
    """The run was made, nobody hears of it: given up at the limit, run again elsewhere, answered once. The node, lost a
    second time as soon as it is back, is left out for 5 s, and used again then."""
    fault = {"kind": "lost_completions", "node": "n-0", "rate": 1.0}
    row, lines = run(world(fault, run={"run_limit_s": 0.2, "seconds": 8.0}), policy)
    all_ok(lines)
    assert not [line for line in on(lines, "n-0") if AT_S <= line["start_s"] < UNTIL_S - NS]
    retried = [line for line in lines if line["attempts"] > 1]
    assert retried and min(line["start_s"] for line in retried) >= AT_S - SERVICE_S + 0.2
    back_s = min(line["start_s"] for line in on(lines, "n-0") if line["start_s"] >= UNTIL_S)
    assert AT_S + 2 * 0.2 + 5.0 < back_s < AT_S + 2 * (0.2 + 0.05) + 5.0 + 0.1
    # It computed for nothing: the node was busy for longer than what it answered.
    answered_s = SERVICE_S * len(on(lines, "n-0"))
    assert row["nodes"][0]["busy_s"] > answered_s + SERVICE_S / 2


def test_lost_completions_end_without_a_limit_of_the_scenarios() -> None:
    """run_limit_s left out: the simulator chooses one."""
    _, lines = run(world({"kind": "lost_completions", "node": "n-0", "rate": 0.5}))
    all_ok(lines)
    assert [line for line in lines if line["attempts"] > 1]


@pytest.mark.parametrize("policy", PATHS)
def test_partition_of_a_zone(policy: str) -> None:
    """No answer gets through; detect_s later its nodes are lost, and what they had runs elsewhere, once."""
    fault = {"kind": "partition", "zone": "b"}
    row, lines = run(world(fault, nodes=1, far=True, run={"detect_s": 0.3, "run_limit_s": 10.0}), policy)
    all_ok(lines)
    assert [event["node"] for event in row["faults"]["events"]] == ["far", "far"]
    there = on(lines, "far")
    assert not [line for line in there if AT_S + NS < line["end_s"] < UNTIL_S - NS]
    assert [line for line in there if line["end_s"] <= AT_S]
    assert [line for line in there if line["start_s"] >= UNTIL_S]
    retried = [line for line in lines if line["attempts"] > 1]
    assert retried and all(line["node"] != "far" for line in retried)
    assert min(line["start_s"] for line in retried) >= AT_S + 0.3 - NS


def test_partition_shorter_than_its_detection_loses_nobody() -> None:
    fault = {"kind": "partition", "zone": "b", "for_s": 0.2}
    _, lines = run(world(fault, nodes=1, far=True, run={"detect_s": 0.3, "run_limit_s": 10.0}))
    all_ok(lines)
    assert {line["attempts"] for line in lines} == {1}
    assert [line for line in on(lines, "far") if line["start_s"] < AT_S + 0.2 and line["end_s"] >= AT_S + 0.2 - NS]


def test_freeze_of_signals() -> None:
    """Answers still come: nothing is retried. Where no signals are sent it changes nothing at all."""
    fault = {"kind": "freeze_signals", "node": "n-0"}
    row, lines = run(world(fault, run={"signal_period_s": 0.05}))
    all_ok(lines)
    assert row["faults"]["count"] == 1
    assert {line["attempts"] for line in lines} == {1}
    assert run(world(fault))[1] == run(world())[1]


@pytest.mark.parametrize("kind", ["crash", "hang", "slow", "errors", "lost_completions", "partition", "freeze_signals"])
def test_faults_at_random(kind: str) -> None:
    """As many as the rate says, each of its length, begun and ended in turn on each node; every seed its own."""
    tables: Any = {
        **world(nodes=5, run={"seconds": 100.0, "run_limit_s": 0.5}),
        "random_fault": [{"kind": kind, "rate_per_node_hour": 360.0, "for_s": 1.0}],
    }
    if kind == "slow":
        tables["random_fault"][0]["factor"] = 3.0
    if kind in ("errors", "lost_completions"):
        tables["random_fault"][0]["rate"] = 0.5
    tables["workload"] = [{"model": "m", "rate_rps": 100.0, "arrivals": "regular"}]
    row, lines = run(tables)
    assert {line["outcome"] for line in lines} <= {"ok", "failed"}
    events = row["faults"]["events"]
    begun = [event for event in events if event["begins"]]
    assert row["faults"]["count"] == len(begun)
    # One in 10 s after the last one's end, 1 s long: about 45 on five nodes in 100 s.
    assert 25 < len(begun) < 70
    lengths_s = []
    for node in {event["node"] for event in events}:
        own = [event for event in events if event["node"] == node]
        assert [event["begins"] for event in own] == [i % 2 == 0 for i in range(len(own))]
        lengths_s += [end["at_s"] - begin["at_s"] for begin, end in zip(own[::2], own[1::2], strict=False)]
    assert np.mean(lengths_s) == pytest.approx(1.0, abs=4.0 / np.sqrt(len(lengths_s)))
    other, _ = run(tables, seed=1)
    assert other["faults"]["events"] != events


@pytest.mark.parametrize("policy", PATHS)
def test_a_node_lost_after_the_last_arrival_comes_back(policy: str) -> None:
    """A lost answer is found out by the run's limit alone; by then nothing arrives and no fault is to come."""
    fault = {"kind": "lost_completions", "node": "n", "at_s": 0.5, "for_s": 3.5, "rate": 1.0}
    row, lines = run(world(fault, nodes=1, run={"run_limit_s": 1.0, "attempts_max": 9}), policy)
    all_ok(lines)
    assert max(line["attempts"] for line in lines) > 1
    assert row["simulated_s"] > 4.0


def test_runs_that_fail_late_are_use_of_a_node_within_its_time() -> None:
    fault = {"kind": "errors", "node": "n", "rate": 1.0, "at_s": 0.0, "for_s": 0.0}
    tables = world(fault, nodes=1) | {"latency": [{"model": "m", "node": "n", "base_s": 50.0}]}
    row, _ = run(tables | {"workload": [{"model": "m", "rate_rps": 1.0, "arrivals": "regular"}]})
    assert row["outcomes"]["failed"] == row["requests"] > 0
    assert 0.9 < row["nodes"][0]["utilization"] <= 1.0


def test_figures_of_nodes_leave_out_the_warm_up() -> None:
    """Evenly spaced requests, each a batch of its own: half of them before the warm-up's end."""
    row, lines = run(world(nodes=1, run={"warmup_s": 2.0}))
    later = [line for line in lines if line["end_s"] > 2.0]
    assert row["nodes"][0]["batches"] == len(later) < 0.6 * len(lines)


def test_what_no_node_ever_holds_the_model_of_is_never_answered() -> None:
    tables = world(nodes=1) | {
        "node": [{"name": "n", "memory_bytes": 100, "resident": ["m"]}],
        "model": [{"name": "m", "weights_bytes": 80}, {"name": "other", "weights_bytes": 80}],
        "latency": [{"model": name, "node": "n", "base_s": SERVICE_S} for name in ("m", "other")],
        "workload": [{"model": "other", "rate_rps": 5.0, **more} for more in ({}, {"deadline_s": 0.5})],
    }
    outcomes = {}
    for policy in policies():
        row, lines = logged(tables, policy)
        check_figures(scenario(tables), row, lines)
        outcomes[policy] = {name for name, n in row["outcomes"].items() if n}
        assert row["cost_usd"] == 0.0
    assert set(map(frozenset, outcomes.values())) == {frozenset({"cancelled", "expired"})}


def test_many_antagonists_on_many_nodes() -> None:
    """Two on each node; what one does is no matter for the others."""
    tables = world(nodes=4) | {
        "antagonist": [{"node": "n", "factor": 2.0, "on_s": 1e8, "off_s": 1e-6} for _ in range(2)],
    }
    _, lines = run(tables | {"workload": [{"model": "m", "rate_rps": 10.0, "arrivals": "regular"}]})
    served_s = np.array([line["end_s"] - line["start_s"] for line in lines])
    assert np.all(np.abs(served_s - 4.0 * SERVICE_S) < NS)


def test_latencies_of_hours_are_told_apart() -> None:
    tables = world(nodes=1, run={"seconds": 1e5}) | {
        "latency": [{"model": "m", "node": "n", "base_s": 9000.0}],
        "workload": [{"model": "m", "rate_rps": 1e-4}],
    }
    row, _ = run(tables)
    assert row["latency_s"]["p50"] > 8000.0


def test_random_faults_cost_what_may_run_twice_next_to_nothing() -> None:
    """Faults of all kinds at once, one node in four at any time: what hangs or fails is answered by another node."""
    n = {"quick": [0, 0], "heavy": [0, 0], "once": [0, 0]}
    for seed in range(2000, 2024):
        row = simulate(load("swarm"), policy="slo_cost", seed=seed)
        assert (row["lost"], row["duplicated"], row["violations"]) == (0, 0, 0), row["first_violation"]
        for model in row["models"]:
            n[model["name"]][0] += model["outcomes"]["ok"]
            n[model["name"]][1] += model["requests"]
    twice_ok, twice = (n["quick"][i] + n["heavy"][i] for i in range(2))
    assert twice > 30_000
    assert twice_ok / twice >= 0.999
    assert n["once"][0] / n["once"][1] >= 0.98, "a failed run is never done again: what met a fault first is lost"
