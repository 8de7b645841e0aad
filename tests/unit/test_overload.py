"""Under overload and in bursts the engine, which learns its device from nothing, serves nearly all that can be."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from infcore.sim import parse, simulate

BENCH = Path(__file__).parents[2] / "bench" / "replay" / "overload.py"


def bench() -> Any:
    spec = importlib.util.spec_from_file_location("overload", BENCH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OVERLOAD = bench()


@pytest.mark.parametrize("cv", [0.0, 0.05])
@pytest.mark.parametrize("index", range(4))
def test_the_floors_are_reached(index: int, cv: float) -> None:
    cell = OVERLOAD.targets()[index]
    scenario = OVERLOAD.with_run(cell.scenario, 0.6, cv)
    shares = OVERLOAD.shares(scenario, cell.load, ["dynamic"], 0)
    assert cell.floor <= shares["dynamic"] <= shares["bound"]
    assert shares["fifo"] < shares["dynamic"] - 0.2


@pytest.mark.parametrize("name", ["8+25+100 ms, bursts", "10+60 ms, bursts, and a slower device", "20 ms, works cv 2"])
@pytest.mark.parametrize("load", [0.5, 1.0])
def test_never_below_first_come_first_served(name: str, load: float) -> None:
    scenario = OVERLOAD.with_run(OVERLOAD.traffics()[name], 0.4, 0.05)
    shares = OVERLOAD.shares(scenario, load, ["dynamic"], 1)
    assert shares["dynamic"] >= shares["fifo"] - OVERLOAD.NOISE


def test_the_bound_is_what_unit_tasks_allow() -> None:
    scenario = OVERLOAD.made([20])
    full_s = 1.0 / OVERLOAD.capacity_rps(scenario)
    due = dict.fromkeys(range(400), (0.0, 0.02))
    assert OVERLOAD.bound(scenario, due) == int(0.02 / full_s) / 400


MODELS = """
[run]
seconds = 3.0
{batching}
[[node]]
name = "n"
"""
MODEL = """
[[model]]
name = "m{i}"
slo_s = {s}
[[latency]]
model = "m{i}"
node = "n"
base_s = 0.001
per_request_s = 0.0001
cv = 0.3
[[workload]]
model = "m{i}"
rate_rps = 2162.0
{deadline}
"""


def test_models_that_share_a_device_plan_for_their_share_of_it() -> None:
    """Each planned as if the device were its own: .73, where first come, first served has .91."""

    def share(fifo: bool) -> float:
        text = MODELS.format(batching='batching = "greedy"' if fifo else "")
        for i, s in enumerate((0.012, 0.015, 0.015)):
            text += MODEL.format(i=i, s=s, deadline="" if fifo else f"deadline_s = {s}")
        return float(simulate(parse(text, "here.toml"), policy="fastest_finish", seed=1132)["within_slo"])

    assert share(fifo=False) >= share(fifo=True)
