"""A policy's options reach it through the engine, the simulator and the command line, and come back in a log."""

import pytest

import infcore
from infcore import sim
from infcore.cli import main

WORLD = """
name = "two-prices"
[run]
seconds = 20.0
warmup_s = 2.0
[[node]]
name = "dear"
price_per_hour = 4.0
[[node]]
name = "cheap"
price_per_hour = 0.1
[[model]]
name = "m"
slo_s = 1.0
max_batch_size = 1
[[latency]]
model = "m"
node = "dear"
per_work_s = 0.004
[[latency]]
model = "m"
node = "cheap"
per_work_s = 0.006
[[workload]]
model = "m"
rate_rps = 20.0
arrivals = "poisson"
work = { dist = "lognormal", mean = 1.0, cv = 1.0 }
deadline_s = 5.0
"""


@pytest.fixture(scope="module")
def world():
    return sim.parse(WORLD, "two-prices.toml")


def row(world, **options):
    return sim.simulate(world, policy="slo_cost", seed=3, policy_options=options)


def test_money_is_saved_where_it_costs_the_tail_nothing(world):
    plain, thrifty = row(world, joint_price=0.0), row(world)
    assert thrifty["cost_usd_per_1k"] < 0.8 * plain["cost_usd_per_1k"]
    assert thrifty["latency_s"]["p99"] < 1.1 * plain["latency_s"]["p99"]


def test_options_that_there_are_not_are_refused(world):
    with pytest.raises(infcore.UnknownName, match="magic"):
        row(world, magic=1.0)
    with pytest.raises(infcore.InvalidArgument, match="joint_tail"):
        row(world, joint_tail=2.0)
    with pytest.raises(infcore.UnknownName, match="magic"):
        infcore.Engine(policy_options={"magic": 1.0})


def test_command_line(world, tmp_path, capsys):
    path = tmp_path / "two-prices.toml"
    path.write_text(WORLD)
    asked = ["simulate", str(path), "--policy", "slo_cost", "--seed", "3", "--json", "-"]
    assert main([*asked, "--policy-option", "joint_price=0"]) == 0
    assert row(world, joint_price=0.0)["digest"] in capsys.readouterr().out
    for options, why in ((["x"], "NAME=VALUE"), (["magic=1"], "magic")):
        assert main([*asked, "--policy-option", *options]) != 0
        assert why in capsys.readouterr().err
    assert main(["simulate", str(path), "--policy-option", "joint_price=0"]) != 0
    assert "one policy" in capsys.readouterr().err


def test_large_works_go_where_they_are_done_soonest():
    """Two speeds by the unit of work, five to one, both needed (0.7 of what they can do): by work all are faster than
    in the order of coming, and the slowest by most."""
    text = WORLD.replace("per_work_s = 0.006", "per_work_s = 0.02").replace("rate_rps = 20.0", "rate_rps = 210.0")
    busy = sim.parse(text.replace("seconds = 20.0", "seconds = 30.0"), "two-speeds.toml")
    in_order, by_work = row(busy, joint_price=0.0, joint_by_work=0.0), row(busy, joint_price=0.0)
    ratio = {name: by_work["latency_s"][name] / in_order["latency_s"][name] for name in ("mean", "p99", "p999")}
    assert ratio["mean"] < 0.96
    assert ratio["p99"] < 0.95
    assert ratio["p999"] < 0.8
