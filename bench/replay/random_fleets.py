"""Policies on fleets, models and traffic that nobody looked at: python bench/replay/random_fleets.py [--fleets N].

Each seed draws two to five groups of unlike nodes (speed by the call, by the request and by the unit of work, price,
network time, slots), one to four models, of which a group may lack some, and traffic of several shapes at a share of
what the bound says could be carried. For each the p99 and the money of every policy, in ratio to the first; then how
often it was better and worse by more than 5 %.
"""

import argparse
import math
import random
import sys
from typing import Any

from infcore.sim import parse, simulate
from infcore.sim.bound import capacity_bound
from infcore.sim.scenario import scaled


def table(of: str, /, **fields: Any) -> str:
    """A TOML table of an array; None is left out."""
    lines = [f"[[{of}]]"]
    for key, value in fields.items():
        if value is not None:
            lines.append(f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}")
    return "\n".join(lines)


def traffic(draw: random.Random) -> dict[str, Any]:
    """How requests come."""
    shapes: list[dict[str, Any]] = [
        {"arrivals": "poisson"},
        {"arrivals": "gamma", "arrival_cv": draw.choice([1.5, 2.0, 3.0])},
        {"arrivals": "onoff", "on_s": 0.5, "off_s": 2.0, "on_factor": draw.choice([3.0, 8.0])},
    ]
    return draw.choice(shapes)


def fleet(seed: int, seconds: float) -> tuple[Any, float]:
    """A scenario at load 1, and the share of its bound that it is to be run at."""
    draw = random.Random(f"fleet {seed}")
    spread = lambda low, high: math.exp(draw.uniform(math.log(low), math.log(high)))  # noqa: E731
    out = [f'name = "fleet-{seed}"', "[run]", f"seconds = {seconds}", f"warmup_s = {seconds / 6}"]
    models = [f"m{i}" for i in range(draw.randint(1, 4))]
    sizes = {model: spread(0.5, 20.0) * 1e-3 for model in models}
    for group in range(draw.randint(2, 5)):
        speed = spread(0.3, 4.0)
        held = [model for model in models if group == 0 or draw.random() < 0.8]
        out.append(
            table(
                "node",
                name=f"g{group}",
                count=draw.randint(1, 4),
                kind=draw.choice(["cpu", "gpu"]),
                slots=draw.choice([1, 1, 1, 4]),
                price_per_hour=round(spread(0.05, 5.0), 3),
                rtt_s=round(spread(0.0002, 0.01), 5),
            )
        )
        for model in held:
            took_s, fixed = sizes[model] / speed, draw.uniform(0.1, 0.9)
            term = draw.choice(["per_request_s", "per_work_s", "per_padded_work_s"])
            curve = {"base_s": took_s * fixed, term: took_s * (1.0 - fixed)}
            out.append(table("latency", model=model, node=f"g{group}", cv=draw.choice([0.05, 0.1, 0.2]), **curve))
    for model in models:
        out.append(table("model", name=model, slo_s=20.0 * sizes[model] + 0.05, max_batch_size=draw.choice([1, 8, 32])))
        cv = draw.choice([0.0, 0.5, 1.0, 1.5])
        work = f'{{ dist = "lognormal", mean = 1.0, cv = {cv} }}'
        rate = round(draw.uniform(0.3, 1.0) / sizes[model], 3)
        deadline_s = draw.choice([None, 40.0 * sizes[model] + 0.1])
        rows = table("workload", model=model, rate_rps=rate, deadline_s=deadline_s, **traffic(draw))
        out.append(f"{rows}\nwork = {work}")
    return parse("\n".join(out) + "\n", f"fleet-{seed}.toml"), draw.choice([0.15, 0.3, 0.5, 0.7])


def main() -> int:
    """A line a fleet, and the sums."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fleets", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--policy", nargs="+", default=["fastest_finish", "slo_cost"])
    arguments = parser.parse_args()
    first, *others = arguments.policy
    better, worse = dict.fromkeys(others, 0), dict.fromkeys(others, 0)
    for seed in range(arguments.first, arguments.first + arguments.fleets):
        scenario, share = fleet(seed, arguments.seconds)
        load = share * capacity_bound(scenario)
        rate = sum(workload.rate_rps for workload in scenario.workloads) * load
        scenario = scaled(scenario, min(load, load * 4000.0 / rate))
        rows = {policy: simulate(scenario, policy=policy, seed=seed) for policy in arguments.policy}
        told = [f"fleet {seed}, {share:g} of the bound, {len(scenario.nodes)} nodes, {len(scenario.models)} models:"]
        for policy, row in rows.items():
            p99_s, usd = row["latency_s"]["p99"], row["cost_usd_per_1k"]
            told.append(f"{policy} p99 {p99_s * 1e3:.1f} ms, in SLO {row['within_slo']:.2%}, ${usd:.3g}/1k;")
            if policy == first:
                continue
            ratio = p99_s / rows[first]["latency_s"]["p99"]
            gone = row["within_slo"] - rows[first]["within_slo"]
            told.append(f"{ratio:.2f}x")
            better[policy] += ratio < 0.95 and gone > -0.001
            worse[policy] += ratio > 1.05 or gone < -0.001
        print(" ".join(told), flush=True)
    for policy in others:
        print(f"{policy} against {first}: better in {better[policy]}, worse in {worse[policy]} of {arguments.fleets}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
