"""Where a policy loses time against the clairvoyant, of its slowest requests: python bench/replay/regret.py SCENARIO.

A request's time beyond the least that it could have taken (alone, at once, on its fastest node) is parted into: another
node than that one, the others in its batch, service that took longer than its curve says, and waiting. Waiting is laid
to what its node ran meanwhile; what is left of it, the node was free, and the request waited elsewhere: held for a
larger batch, for another node, or retried. A row for each model and node that the slowest went to, and the money that
each took. Of scenarios without token models.
"""

import argparse
import io
import json
import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from infcore.profiling.tables import render
from infcore.sim import load, simulate
from infcore.sim.scenario_schema import Latency, Scenario

HEAD = (
    "model",
    "node",
    "n",
    "share",
    "ms",
    "over least",
    "node",
    "batch",
    "service",
    "waiting",
    "behind",
    "$/1k of all",
)


@dataclass
class Cell:
    """The slowest of a model on a group of nodes: sums of seconds."""

    n: int = 0
    latency_s: float = 0.0
    parts_s: Counter[str] = field(default_factory=Counter)
    behind_s: Counter[str] = field(default_factory=Counter)


def curve_of(scenario: Scenario, model: str, node: Any) -> Latency:
    """The row of the pair, as the simulator finds it."""
    rows = {row.node: row for row in scenario.latencies if row.model == model}
    return rows.get(node.name) or rows[node.group]


def service_s(curve: Latency, works: list[float]) -> float:
    """Of a batch of these."""
    n, total, most = len(works), sum(works), max(works)
    return curve.base_s + curve.per_request_s * n + curve.per_work_s * total + curve.per_padded_work_s * n * most


def runs_of(rows: list[dict[str, Any]]) -> dict[str, list[tuple[float, float, str, list[float]]]]:
    """By node its batches in the order of their ends: start, end, model, works."""
    batches: dict[tuple[str, float, float, str], list[float]] = defaultdict(list)
    for row in rows:
        batches[row["node"], row["end_s"], row["start_s"], row["model"]].append(row["work"])
    runs: dict[str, list[tuple[float, float, str, list[float]]]] = defaultdict(list)
    for (node, end_s, start_s, model), works in sorted(batches.items()):
        runs[node].append((start_s, end_s, model, works))
    return runs


def explain(scenario: Scenario, rows: list[dict[str, Any]], slowest: list[dict[str, Any]]) -> dict[Any, Cell]:
    """By model and group of nodes."""
    nodes = {node.name: node for node in scenario.nodes}
    runs = runs_of(rows)
    ends = {node: [run[1] for run in its] for node, its in runs.items()}
    batch_of = {(node, run[1], run[2]): run[3] for node, its in runs.items() for run in its}
    cells: dict[Any, Cell] = defaultdict(Cell)
    for row in slowest:
        node = nodes[row["node"]]
        curve = curve_of(scenario, row["model"], node)
        latency_s = row["end_s"] - row["arrival_s"]
        least_s = latency_s - row["regret_s"]
        alone_s = service_s(curve, [row["work"]]) + node.rtt_s
        batch_s = service_s(curve, batch_of[row["node"], row["end_s"], row["model"]]) + node.rtt_s
        took_s = row["end_s"] - row["start_s"] + node.rtt_s / 2  # start_s is when it has arrived there
        waiting_s = latency_s - took_s
        cell = cells[row["model"], node.group]
        cell.n += 1
        cell.latency_s += latency_s
        parts = {"node": alone_s - least_s, "batch": batch_s - alone_s, "service": took_s - batch_s}
        cell.parts_s.update({**parts, "waiting": waiting_s, "all": row["regret_s"]})
        sent_s = row["start_s"] - node.rtt_s / 2
        left_s, at = waiting_s, bisect_left(ends[row["node"]], row["arrival_s"])
        for start_s, end_s, model, _ in runs[row["node"]][at : at + 64]:
            overlap_s = min(end_s, sent_s) - max(start_s - node.rtt_s / 2, row["arrival_s"])
            if overlap_s > 0 and node.slots == 1:
                cell.behind_s[model] += overlap_s
                left_s -= overlap_s
        cell.behind_s["(nobody there)" if node.slots == 1 else "(slots)"] += max(0.0, left_s)
    return cells


def spent_usd(scenario: Scenario, rows: list[dict[str, Any]]) -> Counter[Any]:
    """By model and group of nodes, of all batches."""
    nodes = {node.name: node for node in scenario.nodes}
    spent: Counter[Any] = Counter()
    for name, runs in runs_of(rows).items():
        node = nodes[name]
        for start_s, end_s, model, _ in runs:
            busy_s = end_s - start_s - node.rtt_s / 2
            spent[model, node.group] += busy_s * node.price_per_hour / 3600.0 / node.slots
    return spent


def main() -> int:
    """The table on standard output."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenario", metavar="SCENARIO")
    parser.add_argument("--policy", default="slo_cost")
    parser.add_argument("--load", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--beyond", type=float, default=0.99, metavar="Q", help="quantile that they are slower than")
    parser.add_argument("--policy-option", nargs="+", default=[], metavar="NAME=NUMBER")
    arguments = parser.parse_args()
    scenario, log = load(arguments.scenario), io.BytesIO()
    options = {name: float(value) for name, _, value in (one.partition("=") for one in arguments.policy_option)}
    world = {"seed": arguments.seed, "load": arguments.load, "log": log}
    simulate(scenario, policy=arguments.policy, policy_options=options or None, **world)
    rows = [json.loads(line) for line in log.getvalue().splitlines()]
    rows = [row for row in rows if row["outcome"] == "ok" and row["arrival_s"] >= scenario.run.warmup_s]
    rows.sort(key=lambda row: float(row["end_s"] - row["arrival_s"]))
    slowest = rows[int(arguments.beyond * len(rows)) :]
    cells, usd = explain(scenario, rows, slowest), spent_usd(scenario, rows)
    table = []
    for key in sorted(set(cells) | set(usd), key=lambda key: -cells[key].n if key in cells else 0):
        cell = cells.get(key, Cell())
        per, parts = 1e3 / max(1, cell.n), cell.parts_s
        behind = ", ".join(f"{who} {s * per:.1f}" for who, s in cell.behind_s.most_common(3) if s * per >= 0.05)
        figures = [cell.latency_s, parts["all"], parts["node"], parts["batch"], parts["service"], parts["waiting"]]
        shown = [f"{s * per:.2f}" for s in figures] if cell.n else [""] * 6
        share = f"{cell.n / max(1, len(slowest)):.1%}"
        table.append([*key, str(cell.n), share, *shown, behind, f"{usd[key] / max(1, len(rows)) * 1e3:.3g}"])
    print(
        f"{arguments.scenario}, {arguments.policy}, load {arguments.load:g}: the slowest {len(slowest)} of {len(rows)}"
    )
    print(render(HEAD, table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
