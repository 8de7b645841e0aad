"""Under overload and in bursts the engine, which learns its device from nothing, serves nearly all that can be."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

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
