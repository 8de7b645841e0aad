"""Hedging in the simulator: the same machine, in worlds where some runs take far longer than others."""

from dataclasses import replace

import pytest
from sim_rig import check_figures, check_log, logged, scenario

from infcore.sim import Scenario, simulate


def world(cv=0.0, **tables) -> Scenario:
    return scenario(
        {
            "run": {"seconds": 20.0, "warmup_s": 1.0, "run_limit_s": 2.0},
            "node": [{"name": "n", "count": 8, "kind": "gpu", "price_per_hour": 1.0}],
            "model": [{"name": "m", "slo_s": 0.05, "max_batch_size": 1}],
            "latency": [{"model": "m", "node": "n", "base_s": 0.005, "cv": cv}],
            "workload": [{"model": "m", "rate_rps": 600.0, "deadline_s": 0.5}],
            **tables,
        }
    )


def hedging(world, quantile=0.95, budget=0.05):
    return replace(world, run=replace(world.run, hedge_quantile=quantile, hedge_budget=budget))


@pytest.mark.parametrize("policy", ["fastest_finish", "least_outstanding"])
def test_stragglers_are_cut_off_within_the_budget(policy):
    plain = simulate(world(cv=2.0), policy=policy)
    row, lines = logged(hedging(world(cv=2.0)), policy)
    check_log(world(cv=2.0), lines, policy=policy)
    check_figures(world(cv=2.0), row, lines)
    runs = row["second_runs"]
    assert row["violations"] == row["lost"] == row["duplicated"] == 0
    assert 0.01 * row["requests_total"] < runs["hedged"] <= 16 + 0.05 * row["requests_total"]
    assert 0 < runs["hedge_won"] < runs["hedged"] and runs["hedge_wasted_s"] > 0.0
    assert row["latency_s"]["p99"] < 0.8 * plain["latency_s"]["p99"]
    assert plain["second_runs"]["hedged"] == 0


def test_a_hang_costs_no_request_its_deadline():
    hang = [{"kind": "hang", "at_s": 5.0, "for_s": 3.0, "node": "n-0"}, {"kind": "hang", "at_s": 10.0, "node": "n-1"}]
    plain = simulate(world(fault=hang), policy="fastest_finish")
    row = simulate(hedging(world(fault=hang)), policy="fastest_finish")
    # Whoever was on a node when it hung is retried after the run limit, and too late for the deadline.
    assert plain["outcomes"]["expired"] == 2 == plain["second_runs"]["retried"]
    assert row["availability"] == 1.0 and row["second_runs"]["retried"] == 0
    assert max(row["parts"]["latency_max_s"]) < 0.1 and row["second_runs"]["hedge_won"] == 2
