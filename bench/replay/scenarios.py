"""Every policy in every shipped scenario but swarm: `make sim`, or python bench/replay/scenarios.py [--capacity] ...

A row per scenario, load and policy: medians over the seeds. Load 1 is the scenario's own; --capacity first searches
what each policy carries, and then runs all of them at half and at nine tenths of round_robin's. first: to the first
token, of token models.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from infcore.profiling.simulations import DEFAULT_POLICIES, capacity_of
from infcore.profiling.tables import dollars, milliseconds, number, percent, render, times
from infcore.sim import load, shipped, simulate

HEAD = (
    "scenario",
    "load",
    "policy",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "in SLO",
    "avail.",
    "$/1k",
    "capacity",
    "p99 ratio",
    "first mean ms",
    "first p99 ms",
    "prefix reuse",
)


def median(rows: Sequence[dict[str, Any]], *path: str) -> float | None:
    """Over the seeds; None where any of them has none."""
    values = []
    for row in rows:
        value: Any = row
        for key in path:
            value = None if value is None else value[key]
        values.append(value)
    return None if any(value is None for value in values) else statistics.median(values)


def one_load(
    name: str, at: float, policies: Sequence[str], seeds: int, capacities: dict[str, float | None]
) -> list[Any]:
    """Every policy at one load; the ratio is to round_robin."""
    scenario, out, base = load(name), [], None
    for policy in policies:
        rows = [simulate(scenario, policy=policy, seed=seed, load=at) for seed in range(seeds)]
        assert not any(row["lost"] or row["duplicated"] or row["violations"] for row in rows), (name, policy)
        out.append(
            {
                "scenario": name,
                "load": at,
                "policy": policy,
                **{q: median(rows, "latency_s", q) for q in ("p50", "p99", "p999", "mean")},
                "within_slo": median(rows, "within_slo"),
                "availability": median(rows, "availability"),
                "cost_usd_per_1k": median(rows, "cost_usd_per_1k"),
                "capacity_load": capacities.get(policy),
                "ttft_mean_s": median(rows, "ttft_s", "mean"),
                "ttft_p99_s": median(rows, "ttft_s", "p99"),
                "prefix_reuse": median(rows, "prefix_reuse"),
                "digests": [row["digest"] for row in rows],
                "wall_s": sum(row["wall_s"] for row in rows),
                "requests": sum(row["requests_total"] for row in rows),
            }
        )
        base = out[-1] if policy == "round_robin" else base
    for row in out:
        row["p99_ratio"] = row["p99"] / base["p99"] if base and base["p99"] and row["p99"] else None
    return out


def line(row: dict[str, Any]) -> list[str]:
    """As text."""
    return [
        row["scenario"],
        f"{row['load']:.3g}",
        row["policy"],
        *(milliseconds(row[q]) for q in ("p50", "p99", "p999")),
        percent(row["within_slo"], 2),
        percent(row["availability"], 2),
        dollars(row["cost_usd_per_1k"]),
        number(row["capacity_load"], 2),
        times(row["p99_ratio"]),
        *(milliseconds(row[q]) for q in ("ttft_mean_s", "ttft_p99_s")),
        percent(row["prefix_reuse"], 1),
    ]


def main() -> int:
    """The table on standard output, the JSON where asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", action="extend", nargs="+", metavar="S", help="(default: all but swarm)")
    parser.add_argument("--policy", action="extend", nargs="+", metavar="P", help="(default: all)")
    parser.add_argument("--capacity", action="store_true", help="search capacities; run at .5 and .9 of round_robin's")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="medians over so many (default: 1)")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    policies = arguments.policy or list(DEFAULT_POLICIES)
    rows = []
    for name in arguments.scenario or [name for name in shipped() if name != "swarm"]:
        capacities: dict[str, float | None] = {}
        loads = [1.0]
        if arguments.capacity:
            capacities = {policy: capacity_of(load(name), policy, seed=0) for policy in policies}
            carried = capacities.get("round_robin")
            loads = [0.5 * carried, 0.9 * carried] if carried else loads
        for at in loads:
            rows += one_load(name, at, policies, arguments.seeds, capacities)
    print(render(HEAD, [line(row) for row in rows]))
    wall_s, requests = sum(row["wall_s"] for row in rows), sum(row["requests"] for row in rows)
    print(f"{requests:,} requests in {wall_s:.1f} s")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
