"""The share of requests inside their SLO under overload and in bursts: python bench/replay/overload.py [--all] ...

The engine in the simulator, batching rule by batching rule, beside first come, first served: the same arrivals without
deadlines, whatever waits goes at once. `bound` is what no rule can beat: requests served one by one, each in its part
of a full batch, in deadline order, the late ones dropped. The first four cells have a floor; in no cell may a rule that
knows the deadlines be below first come, first served. Exits with 1 where one is.
"""

import argparse
import dataclasses
import heapq
import io
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from infcore._core.batching import batching_policies
from infcore.profiling.tables import percent, render
from infcore.sim import load, simulate
from infcore.sim.scenario_schema import Scenario, WorkDist, Workload

# Shares may differ by so much before one counts as below the other: the learned curve's first batches.
NOISE = 0.001


class Cell(NamedTuple):
    """One traffic at one load."""

    name: str
    scenario: Scenario
    load: float
    floor: float | None = None  # share inside the SLO that the default rule must reach


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="other loads, bursts, SLOs and fleets too")
    parser.add_argument("--cell", default="", help="cells whose name has this in it")
    parser.add_argument("--rules", nargs="+", default=batching_policies(), choices=batching_policies())
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--cv", type=float, default=0.0, help="spread of the devices' times")
    options = parser.parse_args(arguments)
    rows, failed = [], False
    for cell in [*targets(), *(others() if options.all else [])]:
        if options.cell not in cell.name:
            continue
        scenario = with_run(cell.scenario, options.seconds, options.cv)
        results = [shares(scenario, cell.load, options.rules, seed) for seed in range(options.seeds)]
        mean = {name: statistics.fmean(result[name] for result in results) for name in results[0]}
        verdict = judged(cell, mean, options.rules)
        failed |= verdict not in ("", "ok")
        rows.append([cell.name, f"{cell.load:g}", *(percent(mean[n], 1) for n in mean), floor_of(cell), verdict])
        print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    print(render(("cell", "load", "bound", "fifo", *options.rules, "floor", ""), rows))
    return int(failed)


def judged(cell: Cell, mean: dict[str, float], rules: Sequence[str]) -> str:
    below = [rule for rule in rules if rule != "greedy" and mean[rule] < mean["fifo"] - NOISE]
    if below:
        return f"{', '.join(below)} below fifo"
    if cell.floor is None or "dynamic" not in rules:
        return ""
    return "ok" if mean["dynamic"] >= cell.floor else "below the floor"


def floor_of(cell: Cell) -> str:
    return "" if cell.floor is None else percent(cell.floor, 1)


def with_run(scenario: Scenario, seconds: float, cv: float) -> Scenario:
    return dataclasses.replace(
        scenario,
        run=dataclasses.replace(scenario.run, seconds=seconds),
        latencies=tuple(dataclasses.replace(latency, cv=cv) for latency in scenario.latencies),
    )


def shares(scenario: Scenario, at: float, rules: Sequence[str], seed: int) -> dict[str, float]:
    """Of all arrivals, by bound, fifo and rule."""
    by_rule = {}
    due: dict[int, tuple[float, float]] = {}  # arrival and deadline of each request, by its number
    for rule in rules:
        requests = list(ended(scenario, rule, at, seed))
        due = {r["id"]: (r["arrival_s"], r["deadline_s"]) for r in requests}
        by_rule[rule] = share_in_time(requests, due)
    without = dataclasses.replace(
        scenario, workloads=tuple(dataclasses.replace(w, deadline_s=None) for w in scenario.workloads)
    )
    fifo = share_in_time(list(ended(without, "greedy", at, seed)), due)
    return {"bound": bound(scenario, due), "fifo": fifo, **by_rule}


def ended(scenario: Scenario, rule: str, at: float, seed: int) -> Iterator[dict[str, Any]]:
    run = dataclasses.replace(scenario.run, batching=rule)
    log = io.BytesIO()
    row = simulate(dataclasses.replace(scenario, run=run), policy="fastest_finish", seed=seed, load=at, log=log)
    assert not (row["lost"] or row["duplicated"] or row["violations"]), (scenario.name, rule, row["violations"])
    log.seek(0)
    yield from (json.loads(line) for line in log)


def share_in_time(requests: Sequence[dict[str, Any]], due: dict[int, tuple[float, float]]) -> float:
    assert len(requests) == len(due), (len(requests), len(due))
    half_ns = 0.5e-9  # times in the log are whole nanoseconds, as seconds
    in_time = 0
    for r in requests:
        arrival_s, deadline_s = due[r["id"]]
        in_time += r["outcome"] == "ok" and r["end_s"] - arrival_s <= deadline_s + half_ns
    return in_time / len(requests)


def bound(scenario: Scenario, due: dict[int, tuple[float, float]]) -> float:
    """Unit tasks in deadline order, those that cannot be done any more dropped: no schedule does more of them. Where
    works differ it is none: who serves the light ones alone does more."""
    rps = capacity_rps(scenario)
    tasks = sorted(due.values())
    waiting: list[float] = []
    now_s, n_done, next_task = 0.0, 0, 0
    while waiting or next_task < len(tasks):
        if not waiting:
            now_s = max(now_s, tasks[next_task][0])
        while next_task < len(tasks) and tasks[next_task][0] <= now_s:
            arrival_s, deadline_s = tasks[next_task]
            heapq.heappush(waiting, arrival_s + deadline_s)
            next_task += 1
        if heapq.heappop(waiting) >= now_s + 1.0 / rps:
            n_done, now_s = n_done + 1, now_s + 1.0 / rps
    return n_done / len(tasks)


def targets() -> list[Cell]:
    uniform, mixed = load("overload-uniform"), load("overload-mixed")
    return [
        Cell("20 ms", uniform, 1.2, 0.95 / 1.2),
        Cell("20 ms", uniform, 1.5, 0.95 / 1.5),
        Cell("10+60 ms, bursts", mixed, 0.9, 0.96),
        Cell("10+60 ms, bursts", mixed, 1.2, 0.70),
    ]


def others() -> Iterator[Cell]:
    for name, scenario in traffics().items():
        for at in (0.5, 0.7, 0.9, 1.0, 1.2, 1.5, 2.0):
            yield Cell(name, scenario, at)


def onoff(on_s: float, off_s: float, on_factor: float) -> dict[str, object]:
    return {"arrivals": "onoff", "on_s": on_s, "off_s": off_s, "on_factor": on_factor}


def traffics() -> dict[str, Scenario]:
    """Other bursts, SLOs and fleets, each at load 1 for what its full batches serve."""
    bursts = onoff(0.05, 0.05, 9.0)
    slow = {"base_s": 0.003, "per_request_s": 0.0003}
    by_work = {"per_request_s": 0.0, "per_work_s": 0.0001}
    steep = {"base_s": 0.005, "per_request_s": 0.00002}
    return {
        "20 ms": made([20]),
        "20 ms, bursts": made([20], bursts),
        "9 ms": made([9]),
        "8 ms, bursts": made([8], bursts),
        "20 ms, cv 5": made([20], {"arrivals": "gamma", "arrival_cv": 5.0}),
        "10+60 ms": made([10, 60]),
        "10+60 ms, bursts": made([10, 60], bursts),
        "10+60 ms, 20 of 100 ms x16": made([10, 60], onoff(0.02, 0.08, 16.0)),
        "10+60 ms, 5 of 50 ms x1000": made([10, 60], onoff(0.005, 0.045, 1000.0)),
        "10+60 ms, bursts of 10 ms": made([10, 60], onoff(0.01, 0.01, 9.0)),
        "10+60 ms, bursts of 500 ms": made([10, 60], onoff(0.5, 0.5, 9.0)),
        "10+60 ms, cv 3": made([10, 60], {"arrivals": "gamma", "arrival_cv": 3.0}),
        "10+600 ms, bursts of 500 ms": made([10, 600], onoff(0.5, 0.5, 9.0)),
        "8+25+100 ms, bursts": made([8, 25, 100], bursts),
        "10+20 ms, bursts": made([10, 20], bursts),
        "10+60 ms, 9 of 10 tight, bursts": made([10] * 9 + [60], bursts),
        "10+60 ms, 1 of 10 tight, bursts": made([10] + [60] * 9, bursts),
        "10+60 ms, bursts, 4 devices": made([10, 60], bursts, n_devices=4),
        "20 ms, 4 devices": made([20], n_devices=4),
        "10+60 ms, bursts, and a slower device": made([10, 60], bursts, second=slow),
        "10+60 ms, bursts, 5 ms a batch": made([10, 60], bursts, curve=steep),
        "20 ms, 5 ms a batch": made([20], curve=steep),
        "20 ms, works cv 2": made([20], curve=by_work, work_cv=2.0),
        "10+60 ms, bursts, works cv 2": made([10, 60], bursts, curve=by_work, work_cv=2.0),
    }


def made(
    slos_ms: Sequence[float],
    arrivals: dict[str, object] | None = None,
    *,
    n_devices: int = 1,
    curve: dict[str, float] | None = None,
    second: dict[str, float] | None = None,
    work_cv: float = 0.0,
) -> Scenario:
    base = load("overload-uniform")
    device, latency = base.nodes[0], dataclasses.replace(base.latencies[0], **(curve or {}))
    nodes = [dataclasses.replace(device, name=f"device-{i}") for i in range(n_devices)]
    latencies = [latency]
    if second:
        nodes.append(dataclasses.replace(device, name="second", group="second"))
        latencies.append(dataclasses.replace(latency, node="second", **second))
    fleet = dataclasses.replace(base, nodes=tuple(nodes), latencies=tuple(latencies))
    rate_rps = capacity_rps(fleet) / len(slos_ms)
    work = WorkDist("lognormal", 1.0, work_cv) if work_cv else WorkDist()
    workloads = [
        Workload("model", rate_rps, work=work, deadline_s=slo * 1e-3, **(arrivals or {}))  # type: ignore[arg-type]
        for slo in slos_ms
    ]
    return dataclasses.replace(fleet, workloads=tuple(workloads))


def capacity_rps(scenario: Scenario) -> float:
    """In full batches of works of 1."""
    n_max = scenario.models[0].max_batch_size
    curves = [scenario.latency("model", node) for node in scenario.nodes]
    return sum(n_max / (c.base_s + n_max * (c.per_request_s + c.per_work_s)) for c in curves if c is not None)


if __name__ == "__main__":
    sys.exit(main())
