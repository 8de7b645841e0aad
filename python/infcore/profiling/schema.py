"""The JSON document of `infcore bench`: putting it together, and saying what makes a run invalid."""

from collections.abc import Mapping, Sequence
from typing import Any

from infcore.profiling.capacity import Capacity
from infcore.profiling.contract import Fleet
from infcore.profiling.suite import Suite
from infcore.profiling.summary import compare_with

SCHEMA_VERSION = 1
COST_BASIS = "busy time: sum(price_per_hour / 3600 * busy_s) / requests answered"
# What a document of this schema holds at least; `infcore report` refuses one that lacks any.
REQUIRED = ("schema_version", "suite", "seed", "load", "policies", "lateness_s", "valid", "invalid_reasons", "env")
REQUIRED_POLICY = ("policy", "throughput_rps", "goodput_rps", "latency_s", "cost_usd_per_1k", "devices", "models")


def invalid_reasons(suite: Suite, rows: Sequence[Mapping[str, Any]], *, interrupted: bool) -> list[str]:
    """Why the figures cannot be trusted, in words; empty if they can."""
    reasons = ["interrupted: ended by the user before the last policy was done"] if interrupted else []
    for row in rows:
        policy, outcomes = row["policy"], row["outcomes"]
        late_s, limit_s = row["lateness_s"]["p99"], suite.lateness_limit_s
        if late_s > limit_s:
            reasons.append(
                f"{policy}: load generator late: p99 {late_s * 1e3:.2f} ms > {limit_s * 1e3:.2f} ms, "
                f"{suite.run.lateness_slo_part:g} of the smallest SLO"
            )
        if outcomes["unanswered"]:
            reasons.append(
                f"{policy}: {outcomes['unanswered']} requests lost: no answer {suite.run.drain_s:g} s after the load"
            )
        if outcomes["failed"]:
            reasons.append(f"{policy}: {outcomes['failed']} requests failed, the first with: {row['first_failure']}")
        if outcomes["cancelled"]:
            reasons.append(f"{policy}: {outcomes['cancelled']} requests cancelled by the engine")
        if outcomes["ok"] < suite.run.min_samples:
            reasons.append(
                f"{policy}: too few samples: {outcomes['ok']} answered, at least {suite.run.min_samples} needed"
            )
        for model in row["models"]:
            if model["wrong"]:
                reasons.append(
                    f"{policy}: wrong answers: {model['wrong']} of {model['checked']} checked for {model['name']}"
                )
    if not rows and not interrupted:
        reasons.append("no policy was run")
    return reasons


def suite_part(suite: Suite, fleet: Fleet) -> dict[str, Any]:
    """What was asked for: arrivals, models, devices."""
    return {
        "name": suite.name,
        "description": suite.description,
        "arrivals": dict(vars(suite.arrivals)),
        "warmup_s": suite.run.warmup_s,
        "models": [dict(vars(model)) for model in fleet.models],
        "devices": [
            {
                "name": device.name,
                "kind": device.kind,
                "emulated": device.emulated,
                "precision": device.precision,
                "threads": device.threads,
                "price_per_hour_usd": device.price_per_hour,
                "rtt_s": device.rtt_s,
                "description": device.description,
            }
            for device in fleet.devices
        ],
        "notes": list(fleet.notes),
    }


def capacity_part(found: Capacity) -> dict[str, Any]:
    """A search's result with every load it tried."""
    return {"capacity_rps": found.capacity_rps, "probes": [dict(vars(probe)) for probe in found.probes]}


def document(
    suite: Suite,
    fleet: Fleet,
    rows: list[dict[str, Any]],
    *,
    seed: int,
    seconds: float,
    load: Mapping[str, Any],
    capacities: Mapping[str, Capacity],
    interrupted: bool,
    env: Mapping[str, Any],
    baseline: str,
) -> dict[str, Any]:
    """The whole document; rows are summarise()'s, in the order in which they were run."""
    for row in rows:
        if row["policy"] in capacities:
            row["capacity_rps"] = capacities[row["policy"]].capacity_rps
    base = next((row for row in rows if row["policy"] == baseline), rows[0] if rows else None)
    if base is not None:
        for row, ratios in zip(rows, compare_with(rows, base), strict=True):
            row["ratio_to_baseline"] = ratios
    reasons = invalid_reasons(suite, rows, interrupted=interrupted)
    late = [row["lateness_s"] for row in rows]
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "bench",
        "suite": suite.name,
        "suite_detail": suite_part(suite, fleet),
        "seed": seed,
        "seconds": seconds,
        "load": load["load"],
        "load_detail": dict(load),
        "baseline": None if base is None else base["policy"],
        "policies": rows,
        "capacity": {policy: capacity_part(found) for policy, found in capacities.items()} or None,
        "cost_basis": COST_BASIS,
        "lateness_s": max((part["p99"] for part in late), default=0.0),
        "lateness_detail_s": {
            "p50": max((part["p50"] for part in late), default=0.0),
            "p99": max((part["p99"] for part in late), default=0.0),
            "max": max((part["max"] for part in late), default=0.0),
            "limit": suite.lateness_limit_s,
        },
        "valid": not reasons,
        "invalid_reasons": reasons,
        "env": dict(env),
    }
