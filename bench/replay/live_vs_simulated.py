"""The same arrivals served live and in simulation: how far apart are throughput, p50 and p99?

    python bench/replay/live_vs_simulated.py [--suite smoke] [--suite mixed] [--json F]

Of each suite the emulated devices alone take part. The rates are parts of round_robin's capacity as the simulator finds
it. A pair of runs has the same models, curves, batch limits, deadlines and arrivals; each repetition has arrivals of
its own. Spreads are drawn apart, and bursts make p99 depend on them: of one plan simulated with 8 seeds, p99 differed
by up to a quarter (mixed, 5 s). So the simulated side is the median of several draws, and a row that of its
repetitions. What the engine's threads add to a batch is measured once, by a lone caller, and told the simulator
(handoff_s, answer_s); nothing is fitted to a policy. Latency counts from the planned arrival.

The engine's threads run before all ordinary ones where the system lets us, as the load generator does: on a shared
machine it would else be measured who else is there. --ordinary leaves them among the others.
"""

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infcore.profiling import env, suite
from infcore.profiling.arrivals import Arrivals, arrivals
from infcore.profiling.capacity import PART_RUN, PART_WARMUP, WITHIN_SLO_MIN, Probe, highest_load
from infcore.profiling.collect import OK
from infcore.profiling.drive import Interrupt, drive
from infcore.profiling.fleet import OpenFleet, known_policies, open_fleet
from infcore.profiling.modelled_suite import (
    Overheads,
    after,
    emulated_part,
    measured_overheads,
    scenario_of,
    write_trace,
)
from infcore.sim.simulate import simulate
from infcore.sim.traces import open_trace

# How far the simulator may be from the live engine, as parts of the live figure.
ALLOWED = {"throughput_rps": 0.02, "p50_s": 0.05, "p99_s": 0.15}
CAPACITY_RATIO = 1.05

Figures = dict[str, float]


def planned(loads: suite.Suite, fleet: OpenFleet, rate_rps: float, seconds: float, seed: int) -> Arrivals:
    """The suite's warm-up and then its load, as one plan."""
    n_examples = min(len(fleet.examples(model.name)) for model in fleet.models)
    first, then = (
        arrivals(loads, rate_rps, part_s, seed=seed, n_examples=n_examples, part=part)
        for part, part_s in ((PART_WARMUP, loads.run.warmup_s), (PART_RUN, seconds))
    )
    return after(first, then)


def figures(plan: Arrivals, end_s: NDArray[np.float64], ok: NDArray[np.bool_], warmup_s: float) -> Figures:
    """Of the requests after the warm-up; `end_s` on the plan's own time scale."""
    counted = plan.times_s >= warmup_s
    answered = counted & ok
    latency_s = end_s[answered] - plan.times_s[answered]
    p50_s, p99_s = np.quantile(latency_s, [0.5, 0.99]) if answered.any() else (np.nan, np.nan)
    span_s = max(plan.seconds, float(end_s[answered].max(initial=0.0))) - warmup_s
    return {
        "throughput_rps": float(answered.sum()) / span_s,
        "p50_s": float(p50_s),
        "p99_s": float(p99_s),
        "answered": float(answered.sum()) / float(counted.sum()),
    }


def live(loads: suite.Suite, fleet: OpenFleet, policy: str, plan: Arrivals) -> Figures:
    """Serve the plan with an infcore.Engine."""
    with fleet.engine(policy) as engine:
        driven = drive(engine, fleet, plan, drain_s=loads.run.drain_s, interrupt=Interrupt())
    collector = driven.collector
    found = figures(plan, collector.end_s - driven.start_s, collector.outcome == OK, loads.run.warmup_s)
    return {**found, "late_p99_s": float(np.quantile(driven.late_s, 0.99))}


def simulated(
    loads: suite.Suite, fleet: OpenFleet, policy: str, plan: Arrivals, overheads: Overheads, seed: int
) -> tuple[Figures, float]:
    """Serve the plan in simulation once; its figures, and the part of the requests inside their goal."""
    scenario = scenario_of(fleet, name=loads.name, seconds=plan.seconds, overheads=overheads)
    log = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrivals.jsonl"
        write_trace(path, fleet, plan)
        row = simulate(scenario, policy=policy, seed=seed, trace=open_trace(path), log=log)
    if row["violations"] or row["lost"] or row["duplicated"]:
        raise SystemExit(f"{policy}: the simulator broke an invariant: {row['first_violation']}")
    end_s, ok = np.full(len(plan), np.nan), np.zeros(len(plan), bool)
    for line in log.getvalue().splitlines():
        ended = json.loads(line)
        end_s[ended["id"]] = ended["end_s"] + plan.times_s[0]  # a trace begins with its first row
        ok[ended["id"]] = ended["outcome"] == "ok"
    return figures(plan, end_s, ok, loads.run.warmup_s), row["within_slo"] or 0.0


def typical(draws: Sequence[Figures]) -> Figures:
    """Each figure's median over the draws."""
    return {name: statistics.median(draw[name] for draw in draws) for name in draws[0]}


def capacity_rps(loads: suite.Suite, fleet: OpenFleet, overheads: Overheads, seconds: float, seed: int) -> float:
    """The highest rate at which round_robin answers 99 % inside their goal, in simulation."""

    def probe(rate_rps: float) -> Probe:
        plan = planned(loads, fleet, rate_rps, seconds, seed)
        _, within = simulated(loads, fleet, "round_robin", plan, overheads, seed)
        return Probe(rate_rps, within, 0.0, within >= WITHIN_SLO_MIN)

    return highest_load(probe, loads.run.start_rps, ratio=CAPACITY_RATIO).capacity_rps


def compared(pairs: Sequence[tuple[Figures, Figures]]) -> dict[str, Any]:
    """Medians over the repetitions of the live figures, the simulated ones and their ratios; which are inside."""
    row: dict[str, Any] = {"live": {}, "simulated": {}, "ratio": {}, "ratios": {}, "inside": {}}
    for name, allowed in ALLOWED.items():
        ratios = [sim[name] / real[name] for real, sim in pairs]
        row["live"][name] = statistics.median(real[name] for real, _ in pairs)
        row["simulated"][name] = statistics.median(sim[name] for _, sim in pairs)
        row["ratios"][name] = ratios
        row["ratio"][name] = statistics.median(ratios)
        row["inside"][name] = abs(row["ratio"][name] - 1.0) <= allowed
    row["answered"] = {
        "live": statistics.median(real["answered"] for real, _ in pairs),
        "simulated": statistics.median(sim["answered"] for _, sim in pairs),
    }
    row["late_p99_s"] = statistics.median(real["late_p99_s"] for real, _ in pairs)
    return row


HEAD = (
    "policy            of cap.   req/s |  live/s    sim/s  ratio | live p50   sim p50  ratio "
    "| live p99   sim p99  ratio | answered      | late p99"
)


def line_of(row: Mapping[str, Any]) -> str:
    """A row of the table; a ratio that is not inside what is allowed has a mark."""
    real, sim, ratio, inside = row["live"], row["simulated"], row["ratio"], row["inside"]

    def of(name: str) -> str:
        return f"{ratio[name]:6.3f}{' ' if inside[name] else '!'}"

    return (
        f"{row['policy']:<18}{row['part']:7.2f}{row['rate_rps']:8.0f} |"
        f"{real['throughput_rps']:8.1f} {sim['throughput_rps']:8.1f} {of('throughput_rps')}|"
        f"{real['p50_s'] * 1e3:9.3f} {sim['p50_s'] * 1e3:9.3f} {of('p50_s')}|"
        f"{real['p99_s'] * 1e3:9.3f} {sim['p99_s'] * 1e3:9.3f} {of('p99_s')}|"
        f"{row['answered']['live']:7.2%} {row['answered']['simulated']:7.2%}|{row['late_p99_s'] * 1e3:9.3f}"
    )


def one_suite(name: str, options: argparse.Namespace, overheads: Overheads) -> list[dict[str, Any]]:
    """Every policy at every rate, printed as they come."""
    loads = emulated_part(suite.load(name))
    rows = []
    with open_fleet(loads, seed=options.seed) as fleet:
        capacity = capacity_rps(loads, fleet, overheads, options.seconds, options.seed)
        print(f"\n{name}: round_robin carries {capacity:.0f} req/s in simulation\n{HEAD}", flush=True)
        for part in options.part or (0.5, 0.8):
            for policy in options.policy or known_policies():
                pairs = []
                for seed in range(options.seed, options.seed + options.repetitions):
                    seeded = replace(fleet, seed=seed)
                    plan = planned(loads, seeded, part * capacity, options.seconds, seed)
                    draws = [simulated(loads, seeded, policy, plan, overheads, s)[0] for s in range(options.draws)]
                    pairs.append((live(loads, seeded, policy, plan), typical(draws)))
                rows.append(
                    {"suite": name, "policy": policy, "part": part, "rate_rps": part * capacity, **compared(pairs)}
                )
                print(line_of(rows[-1]), flush=True)
    return rows


def _real_time() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (AttributeError, OSError):
        return False
    return True


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Print the table; the rows, as --json has them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", action="append", help="a bench suite; default: smoke and mixed")
    parser.add_argument("--policy", action="append", choices=known_policies(), help="default: all")
    parser.add_argument("--part", action="append", type=float, help="of round_robin's capacity; default: 0.5 and 0.8")
    parser.add_argument("--seconds", type=float, default=8.0, help="of load per run, after the suite's warm-up")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--draws", type=int, default=5, help="simulations of each plan, with seeds of their own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ordinary", action="store_true", help="threads of ordinary priority")
    parser.add_argument("--no-overheads", action="store_true", help="simulate an engine whose threads take no time")
    options = parser.parse_args(argv)
    first = not options.ordinary and _real_time()
    overheads = Overheads() if options.no_overheads else measured_overheads()
    print(f"threads {'before all ordinary ones' if first else 'of ordinary priority'}; a batch's hand-over takes "
          f"{overheads.handoff_s * 1e6:.0f} us, its answer {overheads.answer_s * 1e6:.0f} us")  # fmt: skip
    rows = [row for name in options.suite or ("smoke", "mixed") for row in one_suite(name, options, overheads)]
    n_inside = sum(all(row["inside"].values()) for row in rows)
    print(f"\n{n_inside} of {len(rows)} rows inside " + ", ".join(f"{k} {v:.0%}" for k, v in ALLOWED.items()))
    if options.json is not None:
        document = {"rows": rows, "overheads": vars(overheads), "real_time": first, "env": env.environment()}
        options.json.write_text(json.dumps(document, indent=1))
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
