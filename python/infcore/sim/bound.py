"""What no policy can carry: an upper bound of a scenario's capacity, from the fleet's prices of time.

Give each group of nodes a price per second of one slot, such that the whole fleet's second costs 1. A request costs at
least the cheapest of its node-seconds, each as its share of a full batch. So a load that costs more than 1 a second
cannot be carried, whatever the policy, whatever it knows (weak duality of the assignment of requests to unlike
machines: J. Lenstra, D. Shmoys, E. Tardos, Mathematical Programming 46, 1990, section 2). Every set of prices gives a
bound; the best is looked for by raising the prices of what would be overloaded (multiplicative weights).
"""

import numpy as np
from numpy.typing import NDArray

from infcore.sim.scenario_schema import Latency, Node, Scenario, WorkDist, Workload

SAMPLES = 2000  # works drawn for each workload, scaled to its exact mean where it has no bounds
ROUNDS = 400
_SEED = 1


def capacity_bound(scenario: Scenario, served: float = 0.99) -> float:
    """The highest load, times the scenario's arrivals, of which any policy could serve that part in the long run.

    What is not served is what costs most. Deadlines, goals, bursts and faults are not looked at, so the truth may lie
    well below. inf where nothing arrives, and where a model makes tokens: what may be found in caches bounds nothing.
    Raises  nothing that the scenario's reader has not refused
    Cost    about a second; O(ROUNDS * workloads * groups of alike nodes * SAMPLES)
    """
    if any(model.tokens for model in scenario.models):
        return float("inf")
    groups = _groups(scenario)
    slots = np.array([sum(node.slots for node in alike) for alike in groups], np.float64)
    costs = [_costs(scenario, workload, groups) for workload in scenario.workloads]
    rates = [workload.rate_rps for workload in scenario.workloads]
    prices = np.full(len(groups), 1.0 / slots.sum())
    best = 0.0
    total = sum(rates)
    for at in range(ROUNDS):
        rate, spent, busy = [], [], []
        for per_s, cost in zip(rates, costs, strict=True):
            priced = prices[:, None] * cost
            cheapest, draws = priced.argmin(axis=0), np.arange(SAMPLES)
            rate.append(np.full(SAMPLES, per_s / SAMPLES))
            spent.append(priced[cheapest, draws])
            busy.append((np.arange(len(groups))[:, None] == cheapest) * cost[cheapest, draws])
        kept = _cheapest(np.concatenate(rate), np.concatenate(spent), served * total)
        best = max(best, float((kept * np.concatenate(spent)).sum()))
        utilization = (kept * np.concatenate(busy, axis=1)).sum(axis=1) / slots
        if not 0.0 < utilization.max() < np.inf:
            break
        prices *= np.exp(utilization / utilization.max() / np.sqrt(1.0 + at))
        prices /= (prices * slots).sum()
    if not np.isfinite(best):
        return 0.0  # some workload has no node at all
    return 1.0 / best if best > 0.0 else float("inf")


def _cheapest(rate: NDArray[np.float64], cost: NDArray[np.float64], enough: float) -> NDArray[np.float64]:
    """Of requests at these rates, the rates that are served where the cheapest come first until it is enough."""
    order = np.argsort(cost, kind="stable")
    before = np.cumsum(rate[order]) - rate[order]
    kept = np.empty_like(rate)
    kept[order] = np.clip(enough - before, 0.0, rate[order])
    return kept


def _groups(scenario: Scenario) -> list[list[Node]]:
    """Nodes that cost every request the same."""
    alike: dict[object, list[Node]] = {}
    own = {row.node for row in scenario.latencies}
    for node in scenario.nodes:
        row = node.name if node.name in own else node.group
        alike.setdefault((row, node.rtt_s, node.models, tuple(sorted(_labels(node).items()))), []).append(node)
    return list(alike.values())


def _labels(node: Node) -> dict[str, str]:
    return {"kind": node.kind, "zone": node.zone, "location": node.location, **node.labels}


def _costs(scenario: Scenario, workload: Workload, groups: list[list[Node]]) -> NDArray[np.float64]:
    """Seconds of a slot that a request takes: (groups, draws of its work); inf where it can't go."""
    work = _draws(workload.work)
    model = next(model for model in scenario.models if model.name == workload.model)
    out = np.full((len(groups), len(work)), np.inf)
    for i, alike in enumerate(groups):
        row = _row(scenario, workload.model, alike[0])
        if row is None or not workload.require.items() <= _labels(alike[0]).items():
            continue
        share_s = (row.base_s + alike[0].rtt_s) / model.max_batch_size + row.per_request_s
        out[i] = share_s + (row.per_work_s + row.per_padded_work_s) * work
    return out


def _row(scenario: Scenario, model: str, node: Node) -> Latency | None:
    if node.models is not None and model not in node.models:
        return None
    rows = {row.node: row for row in scenario.latencies if row.model == model}
    return rows.get(node.name, rows.get(node.group))


def _draws(dist: WorkDist) -> NDArray[np.float64]:
    draw = np.random.Generator(np.random.PCG64(_SEED))
    cv2 = dist.cv * dist.cv
    if dist.dist == "uniform":
        work = draw.uniform(dist.low, dist.high, SAMPLES)
    elif dist.dist == "exponential":
        work = draw.exponential(dist.mean, SAMPLES)
    elif dist.dist == "lognormal":
        work = dist.mean * draw.lognormal(-0.5 * np.log1p(cv2), np.sqrt(np.log1p(cv2)), SAMPLES)
    elif dist.dist == "gamma" and cv2 > 0:
        work = dist.mean * cv2 * draw.gamma(1.0 / cv2, size=SAMPLES)
    elif dist.dist == "pareto" and cv2 > 0:
        alpha = 1.0 + np.sqrt(1.0 + 1.0 / cv2)
        work = dist.mean * (alpha - 1.0) / alpha * (1.0 + draw.pareto(alpha, SAMPLES))
    else:
        work = np.full(SAMPLES, dist.mean)
    if dist.min is None and dist.max is None and dist.dist != "uniform":
        return np.asarray(work * (dist.mean / work.mean()), np.float64)
    return np.clip(work, dist.min or 0.0, np.inf if dist.max is None else dist.max)
