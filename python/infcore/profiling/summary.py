"""From a policy's run to the figures of its table: quantiles, throughput, goodput, utilisation, cost.

Cost is the price of the time that devices were busy, sum(price_per_hour / 3600 * busy_s) / requests answered, as if
unused time went to other work: on a fleet of fixed size that is what tells policies apart. cost_usd_per_1k_up counts
every device for the whole run instead.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infcore.profiling.collect import OK, OUTCOMES, UNANSWERED
from infcore.profiling.contract import Fleet
from infcore.profiling.run import PolicyRun
from infcore.profiling.suite import DeviceSpec

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
# Points of the latency curve in the JSON: half of them below p90, half in the tail.
CURVE_POINTS = 200


def quantiles_s(latency_s: NDArray[np.float64]) -> dict[str, float | None]:
    """p50, p90, p99, p99.9: the smallest observed value that at least that part is not above; None without any."""
    if len(latency_s) == 0:
        return dict.fromkeys(QUANTILES)
    values = np.quantile(latency_s, list(QUANTILES.values()), method="inverted_cdf")
    return dict(zip(QUANTILES, values.tolist(), strict=True))


def curve(latency_s: NDArray[np.float64]) -> dict[str, list[float]]:
    """The distribution as CURVE_POINTS pairs: q, a part of the requests, and s, the latency that it stays within."""
    n = len(latency_s)
    if n == 0:
        return {"q": [], "s": []}
    half = CURVE_POINTS // 2
    tail_end = max(1.0 / n, 1e-6)
    q = np.concatenate([np.linspace(0.0, 0.9, half), 1.0 - np.geomspace(0.1, min(tail_end, 0.1), half)[1:], [1.0]])
    values = np.quantile(latency_s, q, method="inverted_cdf")
    return {"q": np.round(q, 7).tolist(), "s": values.tolist()}


def per_1k(cost_usd: float, requests: int) -> float | None:
    """US dollars per 1,000 requests; None without requests."""
    return cost_usd / requests * 1000.0 if requests else None


def _device_row(
    device: DeviceSpec, run: PolicyRun, index: int, latency_s: NDArray[np.float64], wall_s: float
) -> dict[str, Any]:
    collector = run.driven.collector
    mine = (collector.outcome == OK) & (collector.device == index)
    requests = int(mine.sum())
    use = run.devices[device.name]
    # The card's own counter says more than its power on paper: with idle times, and as it really was.
    measured = use.energy_j is not None
    estimate_j = None if device.busy_w is None else device.busy_w * use.busy_s
    energy_j = use.energy_j if measured else estimate_j
    energy_j = None if energy_j is None or not requests else energy_j / requests
    return {
        "name": device.name,
        "kind": device.kind,
        "emulated": device.emulated,
        "requests": requests,
        "throughput_rps": requests / wall_s,
        "latency_s": quantiles_s(latency_s[mine]),
        "utilization": use.busy_s / wall_s,
        "batch_mean": use.requests / use.batches if use.batches else None,
        "cost_usd_per_1k": per_1k(device.price_per_hour / 3600.0 * use.busy_s, requests),
        "energy_j_per_request": energy_j,
        "energy_source": None if energy_j is None else "measured" if measured else "estimated",
        "busy_s": use.busy_s,
        "batches": use.batches,
        "price_per_hour_usd": device.price_per_hour,
    }


def _model_rows(
    fleet: Fleet, run: PolicyRun, latency_s: NDArray[np.float64], counted: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    collector, rows = run.driven.collector, []
    within = collector.within_slo()
    for index, model in enumerate(fleet.models):
        mine = counted & (run.driven.arrivals.model == index)
        check = run.checks.get(model.name)
        rows.append(
            {
                "name": model.name,
                "tier": model.tier,
                "slo_s": model.slo_s,
                "requests": int(mine.sum()),
                "within_slo": float(within[mine].mean()) if mine.any() else None,
                "latency_s": quantiles_s(latency_s[mine & (collector.outcome == OK)]),
                "checked": check.checked if check else 0,
                "wrong": check.wrong if check else 0,
            }
        )
    return rows


def summarise(fleet: Fleet, run: PolicyRun) -> dict[str, Any]:
    """The policy's entry of the JSON document. Latency covers answered requests, within_slo and outcomes all."""
    driven, collector = run.driven, run.driven.collector
    counted = np.ones(len(collector.outcome), np.bool_)
    if driven.interrupted:  # what was not yet submitted, under way or cancelled when the user ended it says nothing
        cut = (collector.outcome == UNANSWERED) | (collector.outcome == OUTCOMES.index("cancelled"))
        counted &= ~cut
    ok = counted & (collector.outcome == OK)
    n_ok, n_counted = int(ok.sum()), int(counted.sum())
    latency_s = collector.end_s - collector.due_s
    last_end_s = float(np.max(collector.end_s[ok])) if n_ok else driven.start_s
    wall_s = max(driven.seconds, last_end_s - driven.start_s)
    within = int((collector.within_slo() & counted).sum())
    devices = [_device_row(device, run, i, latency_s, wall_s) for i, device in enumerate(fleet.devices)]
    busy_usd = math.fsum(row["price_per_hour_usd"] / 3600.0 * row["busy_s"] for row in devices)
    up_usd = math.fsum(device.price_per_hour for device in fleet.devices) / 3600.0 * wall_s
    return {
        "policy": run.policy,
        "requests": n_counted,
        "outcomes": {name: int((counted & (collector.outcome == code)).sum()) for code, name in enumerate(OUTCOMES)},
        "seconds": wall_s,
        "rate_rps": run.rate_rps,
        "throughput_rps": n_ok / wall_s,
        "goodput_rps": within / wall_s,
        "within_slo": within / n_counted if n_counted else None,
        "latency_s": quantiles_s(latency_s[ok]),
        "latency_curve_s": curve(latency_s[ok]),
        "cost_usd_per_1k": per_1k(busy_usd, n_ok),
        "cost_usd_per_1k_up": per_1k(up_usd, n_ok),
        "capacity_rps": None,
        "devices": devices,
        "models": _model_rows(fleet, run, latency_s, counted),
        "lateness_s": lateness(driven.late_s),
        "real_time_generator": driven.real_time,
        "first_failure": None if collector.first_failure is None else str(collector.first_failure),
        "interrupted": driven.interrupted,
    }


def lateness(late_s: NDArray[np.float64]) -> dict[str, float]:
    """How late the load generator was, in seconds: p50, p99, max."""
    if len(late_s) == 0:
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    p50, p99 = np.quantile(late_s, [0.5, 0.99]).tolist()
    return {"p50": p50, "p99": p99, "max": float(late_s.max())}


def ratio(value: float | None, base: float | None) -> float | None:
    """value / base; None where either is missing or the base is 0."""
    return None if value is None or not base else value / base


def compare_with(rows: Sequence[Mapping[str, Any]], baseline: Mapping[str, Any]) -> list[dict[str, float | None]]:
    """For each policy, its figures over the baseline's."""
    return [
        {
            "p50": ratio(row["latency_s"]["p50"], baseline["latency_s"]["p50"]),
            "p99": ratio(row["latency_s"]["p99"], baseline["latency_s"]["p99"]),
            "goodput_rps": ratio(row["goodput_rps"], baseline["goodput_rps"]),
            "cost_usd_per_1k": ratio(row["cost_usd_per_1k"], baseline["cost_usd_per_1k"]),
            "capacity_rps": ratio(row["capacity_rps"], baseline["capacity_rps"]),
        }
        for row in rows
    ]
