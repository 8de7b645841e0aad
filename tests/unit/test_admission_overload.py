"""Overload in the simulator: what each policy at the door does to goodput, at 1.5 times what the nodes can do.

One seed, one world: the figures are the same on every machine.
"""

from typing import Any

import pytest
from sim_rig import check_figures, check_log, logged, scenario

FULL_S = 0.005  # a batch of one
LADDER = ["infeasible", "shorter_wait", "stale", "cheaper", "off_peak", "shed_last", "refuse"]


def world(admission: list[str], *, load: float = 1.5, slots: int = 1, batch: int = 1, **more: Any) -> dict[str, Any]:
    """One node, a model and a cheaper one, load times its capacity in full batches."""
    full_s = 0.004 + 0.001 * batch
    workload = {"model": "m", "rate_rps": load * slots * batch / full_s, **more.pop("workload", {})}
    return {
        "run": {"seconds": 3.0, "warmup_s": 1.0, "admission": admission, "curves_known": True, **more},
        "node": [{"name": "n", "slots": slots}],
        "model": [
            {"name": "m", "max_batch_size": batch, "slo_s": 0.1, "fallback": "small"},
            {"name": "small", "max_batch_size": batch, "slo_s": 0.1},
        ],
        "latency": [
            {"model": "m", "node": "n", "base_s": 0.004, "per_request_s": 0.001, "cv": 0.1},
            {"model": "small", "node": "n", "base_s": 0.001, "per_request_s": 0.0005, "cv": 0.1},
        ],
        "workload": [workload],
    }


def run(admission: list[str], **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    made = scenario(world(admission, **more))
    row, lines = logged(made, seed=1)
    assert (row["lost"], row["duplicated"], row["violations"]) == (0, 0, 0), row["first_violation"]
    check_figures(made, row, lines)
    if "stale" not in row["degraded"]:
        check_log(made, lines)
    return row, lines


@pytest.mark.parametrize(("slots", "load", "most"), [(1, 1.5, 3.0), (1, 3.0, 3.2), (2, 1.5, 5.0), (8, 1.5, 14.0)])
def test_limit_settles_near_the_slots(slots: int, load: float, most: float) -> None:
    """Little's law: what is open on average is throughput times latency. Without a limit it grows for ever."""
    row, _ = run(["gradient"], load=load, slots=slots)
    open_mean = row["throughput_rps"] * row["latency_s"]["mean"]
    assert slots <= open_mean <= most
    assert row["throughput_rps"] >= 0.95 * slots / FULL_S  # and the devices are kept busy
    assert set(row["reasons"]) == {"ok", "overload"}
    without, _ = run([], load=load, slots=slots)
    assert without["throughput_rps"] * without["latency_s"]["mean"] > 20 * slots


def test_limit_leaves_room_for_batches() -> None:
    row, lines = run(["gradient"], slots=2, batch=16)
    assert row["throughput_rps"] >= 0.97 * 2 * 16 / 0.020
    full = [line["batch"] for line in lines if line["outcome"] == "ok" and line["arrival_s"] > 1.0]
    assert sum(full) / len(full) > 15.0
    calm, _ = run(["gradient"], slots=2, batch=16, load=0.8)
    assert set(calm["reasons"]) == {"ok"}


def test_limit_recovers_after_the_overload() -> None:
    """A second of 30 times the load, then as much as a tenth of what is possible: nobody is refused any more."""
    shape = {"arrivals": "flash_sale", "at_s": 1.0, "ramp_s": 0.01, "for_s": 1.0, "peak_factor": 30.0}
    for policy in ("gradient", "refuse"):
        _, lines = run([policy], load=0.1, slots=2, workload=shape)
        refused_s = [line["arrival_s"] for line in lines if line["outcome"] == "rejected"]
        assert len(refused_s) > 300 and max(refused_s) < 2.1, policy


def test_goodput_with_each_step() -> None:
    """Share of the arrivals within their goal of 0.1 s; at most 1 / 1.5 where the model itself answers."""
    mixed = {"stale_share": 0.2, "defer_s": 0.0}
    goodput = {name: run([name], workload=mixed)[0]["within_slo"] for name in [*LADDER, "gradient"]}
    bare = run([], workload=mixed)[0]["within_slo"]
    assert bare < 0.2
    assert goodput["infeasible"] == goodput["off_peak"] == goodput["shorter_wait"] == bare  # not what they are for
    assert goodput["stale"] > bare + 0.15
    assert goodput["cheaper"] > 0.95
    assert goodput["refuse"] > 0.6 and goodput["gradient"] > 0.6


def test_the_ladder_stops_where_it_helps() -> None:
    """All steps: the cheaper model takes the load, and next to nobody is refused; each answer says how it was made."""
    row, lines = run(LADDER, workload={"stale_share": 0.1})
    assert row["within_slo"] > 0.95
    assert row["degraded"].keys() <= {"stale", "cheaper", "overload"} and row["degraded"]["cheaper"] > 200
    assert row["outcomes"]["rejected"] < 0.02 * row["requests"]
    for line in lines:
        refused = line["outcome"] in ("rejected", "shed")
        assert ("reason" in line) == (line["outcome"] != "ok")
        assert not refused or (line["reason"] in ("overload", "displaced") and line["hint_s"] > 0.0)


def test_the_last_tier_makes_room() -> None:
    tables = world(["shed_last"], load=1.0)
    tables["workload"] += [{"model": "m", "rate_rps": 0.5 / FULL_S, "tier": 2}]
    tables["workload"][0]["rate_rps"] *= 0.9
    row, lines = logged(scenario(tables), seed=1)
    by_tier = {
        tier: [line["outcome"] for line in lines if line["tier"] == tier and line["arrival_s"] > 1.0] for tier in (0, 2)
    }
    assert by_tier[0].count("ok") == len(by_tier[0]), "the urgent were touched"
    assert by_tier[2].count("ok") < 0.4 * len(by_tier[2]) and by_tier[2].count("shed") > 10
    assert {"ok", "overload", "displaced"} == set(row["reasons"])


def test_put_off_to_when_there_is_time() -> None:
    """A burst of a second: what may wait 4 s comes after it, and what may not is served sooner than without."""
    burst = {"arrivals": "flash_sale", "at_s": 1.0, "ramp_s": 0.01, "for_s": 1.0, "peak_factor": 5.0}
    tables = world(["off_peak"], load=0.2, workload=burst)
    tables["workload"] += [{**tables["workload"][0], "rate_rps": 0.2 / FULL_S, "defer_s": 4.0}]
    row, lines = logged(scenario(tables), seed=1)
    tables["run"]["admission"] = []
    _, bare = logged(scenario(tables), seed=1)
    put_off = [line for line in lines if line.get("degraded") == "off_peak"]
    assert len(put_off) > 50 and row["outcomes"]["ok"] == row["requests"]
    assert all(line["end_s"] - line["arrival_s"] < 4.1 for line in put_off)
    ids = {line["id"] for line in put_off}
    others = [i for i, line in enumerate(lines) if line["id"] not in ids]
    mean_s = [sum(log[i]["end_s"] - log[i]["arrival_s"] for i in others) / len(others) for log in (lines, bare)]
    assert mean_s[0] < 0.8 * mean_s[1], mean_s


def test_infeasible_never_waits() -> None:
    row, lines = run(["infeasible"], workload={"deadline_s": 0.003})
    assert set(row["reasons"]) == {"infeasible"} and all(line["end_s"] == line["arrival_s"] for line in lines)
    bare, _ = run([], workload={"deadline_s": 0.003})
    assert set(bare["reasons"]) == {"deadline"}


def test_tiers_are_bounded() -> None:
    tables = world([], load=3.0, tier_capacity=[4, 2])
    tables["workload"] += [{**tables["workload"][0], "tier": 1}]
    row, _ = logged(scenario(tables), seed=1)
    assert set(row["reasons"]) == {"ok", "queue_full"}
    assert row["throughput_rps"] * row["latency_s"]["mean"] <= 6.0
    tables["run"]["overflow"] = "shed_lowest"
    tables["run"] |= {"max_requests": 6, "tier_capacity": []}
    _, lines = logged(scenario(tables), seed=1)
    ok = [sum(line["outcome"] == "ok" for line in lines if line["tier"] == tier) for tier in (0, 1)]
    assert ok[0] > 20 * ok[1]
