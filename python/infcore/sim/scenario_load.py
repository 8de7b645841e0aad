"""The [[workload]], [[fault]], [[random_fault]] and [[antagonist]] tables of a scenario."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from infcore._toml_table import Table, shown
from infcore.errors import InvalidArgument
from infcore.sim.scenario_fleet import SECONDS_MAX, SECONDS_MIN, TOKENS_MAX
from infcore.sim.scenario_schema import (
    Antagonist,
    ArrivalKind,
    Fault,
    FaultKind,
    Prefix,
    RandomFault,
    Session,
    WorkDist,
    WorkKind,
    Workload,
)

RATE_MAX = 1e9
WORK_MAX = 1e12
FACTOR_MAX = 1e6
GROUPS_MAX = 1 << 20
TIER_MAX = 7  # the engine's tiers by default


def _work(table: Table, key: str = "work", *, default: float | None = 1.0, high: float = WORK_MAX) -> WorkDist:
    """A bare number, or { dist = ... }."""
    if not isinstance(table.peek(key), dict):
        return WorkDist(mean=table.number(key, default, high=high))
    inner = table.table(key)
    dist = cast(WorkKind, inner.text("dist", "constant", allowed=get_args(WorkKind)))
    cv = low = top = 0.0
    if dist == "uniform":
        low = inner.number("low", high=high)
        top = inner.number("high", low=low, high=high)
        mean = (low + top) / 2
    else:
        mean = inner.number("mean", 1.0, above=True, high=high)
    if dist in ("lognormal", "gamma", "pareto"):
        cv = inner.number("cv", 0.0, high=100.0)
    elif dist == "exponential":
        cv = 1.0
    least = inner.number("min", high=high) if "min" in inner else inner.take("min")
    most = inner.number("max", low=least or 0.0, high=high) if "max" in inner else inner.take("max")
    inner.done()
    return WorkDist(dist=dist, mean=mean, cv=cv, low=low, high=top, min=least, max=most)


def _prefix(table: Table) -> Prefix | None:
    """{ groups, share or tokens, zipf }."""
    if "prefix" not in table:
        return None
    inner = table.table("prefix")
    prefix = Prefix(
        groups=inner.integer("groups", 1, low=1, high=GROUPS_MAX),
        share=inner.number("share", 0.0, high=1.0),
        tokens=inner.integer("tokens", 0, low=0, high=TOKENS_MAX),
        zipf=inner.number("zipf", 0.0, high=10.0),
    )
    if (prefix.share > 0.0) == (prefix.tokens > 0):
        raise InvalidArgument(
            f"{inner.at('share')}: exactly one of share and tokens must be > 0, got share {prefix.share:g}, "
            f"tokens {prefix.tokens}"
        )
    inner.done()
    return prefix


def _demand(table: Table, tokens: bool, kind: ArrivalKind) -> dict[str, Any]:
    """What a request asks for: work, or of a token model prompt and output, which a trace brings itself."""
    if not tokens:
        return {"work": _work(table)}
    default = 1.0 if kind == "trace" else None
    return {
        "prompt_tokens": _work(table, "prompt_tokens", default=default, high=TOKENS_MAX),
        "output_tokens": _work(table, "output_tokens", default=default, high=TOKENS_MAX),
        "prefix": _prefix(table) if kind != "trace" else None,
    }


def _arrivals(table: Table, kind: ArrivalKind, folder: Path) -> dict[str, Any]:
    """The keys that belong to the kind of arrivals."""
    if kind == "gamma":
        return {"arrival_cv": table.number("arrival_cv", 0.0, high=100.0)}  # 0, as API.md has it: evenly spaced
    if kind == "onoff":
        return {
            "on_s": table.number("on_s", low=SECONDS_MIN, high=SECONDS_MAX),
            "off_s": table.number("off_s", low=SECONDS_MIN, high=SECONDS_MAX),
            "on_factor": table.number("on_factor", above=True, high=FACTOR_MAX),
        }
    if kind in ("diurnal", "follow_the_sun", "weekly"):
        period_s = 86400.0
        if kind != "weekly":
            period_s = table.number("period_s", period_s, low=SECONDS_MIN, high=SECONDS_MAX)
        shape = {"period_s": period_s, "peak_to_mean": table.number("peak_to_mean", low=1.0, high=1000.0)}
        if kind == "weekly":
            shape["weekend_factor"] = table.number("weekend_factor", 0.6, high=1000.0)
        return shape
    if kind == "flash_sale":
        return {
            "at_s": table.number("at_s", high=SECONDS_MAX),
            "ramp_s": table.number("ramp_s", 0.0, high=SECONDS_MAX),
            "for_s": table.number("for_s", above=True, high=SECONDS_MAX),
            "peak_factor": table.number("peak_factor", 20.0, low=1.0, high=FACTOR_MAX),
        }
    if kind == "trace":
        return {
            "file": str(folder / table.text("file")),
            "rate_factor": table.number("rate_factor", 1.0, above=True, high=FACTOR_MAX),
        }
    return {}


def workload_of(table: Table, *, folder: Path, token_models: Collection[str] = ()) -> Workload:
    """One [[workload]]; a trace's file stands beside the scenario's, in `folder`."""
    model = table.text("model")
    kind = cast(ArrivalKind, table.text("arrivals", "poisson", allowed=get_args(ArrivalKind)))
    rate_rps = table.number("rate_rps", above=True, high=RATE_MAX) if kind != "trace" else 0.0
    session = None
    if kind != "trace" and "session" in table:
        inner = table.table("session")
        session = Session(
            turns_mean=inner.number("turns_mean", low=1.0, high=1e6),
            think_s_mean=inner.number("think_s_mean", high=SECONDS_MAX),
        )
        inner.done()
    elif kind != "trace":
        table.take("session")
    workload = Workload(
        model=model,
        rate_rps=rate_rps,
        arrivals=kind,
        **_demand(table, model in token_models, kind),
        tier=table.integer("tier", 0, low=0, high=TIER_MAX),
        tenant=table.text("tenant", ""),
        deadline_s=table.optional("deadline_s", high=SECONDS_MAX),
        defer_s=table.number("defer_s", 0.0, high=SECONDS_MAX),
        stale_share=table.number("stale_share", 0.0, high=1.0),
        phase_s=table.number("phase_s", 0.0, low=-SECONDS_MAX, high=SECONDS_MAX),
        start_s=table.number("start_s", 0.0, high=SECONDS_MAX),
        end_s=table.optional("end_s", high=SECONDS_MAX),
        require=table.mapping("require"),
        zipf=table.number("zipf", 0.0, high=10.0) if kind != "trace" else 0.0,
        session=session,
        **_arrivals(table, kind, folder),
    )
    if workload.end_s is not None and workload.end_s <= workload.start_s:
        raise InvalidArgument(f"{table.at('end_s')} must be > start_s = {workload.start_s:g}, got {workload.end_s:g}")
    table.done()
    return workload


def spread(workload: Workload, models: Sequence[str]) -> list[Workload]:
    """The workload for each of the models: of its rate, the i-th has a share in proportion to 1 / (i + 1)^zipf."""
    if len(models) == 1:
        return [replace(workload, model=models[0])]
    # Rounded, since pow() differs from machine to machine in its last bits, and the digests of runs must not.
    shares = [float(f"{(rank + 1) ** -workload.zipf:.9g}") for rank in range(len(models))]
    per_share_rps = workload.rate_rps / math.fsum(shares)
    return [
        replace(workload, model=model, rate_rps=per_share_rps * share)
        for model, share in zip(models, shares, strict=True)
    ]


def _place(table: Table, *, needed: bool) -> tuple[str, str]:
    """node and zone: exactly one where `needed`, else at most one."""
    node, zone = table.text("node", ""), table.text("zone", "")
    if (node and zone) or (needed and not node and not zone):
        allowed = "exactly one of node and zone" if needed else "at most one of node and zone"
        raise InvalidArgument(
            f"{table.at('node')}: {allowed} must be given, got node {shown(node)}, zone {shown(zone)}"
        )
    return node, zone


def _strength(table: Table, kind: FaultKind) -> dict[str, float]:
    if kind == "slow":
        return {"factor": table.number("factor", above=True, high=FACTOR_MAX)}
    if kind in ("errors", "lost_completions"):
        return {"rate": table.number("rate", above=True, high=1.0)}
    return {}


def fault_of(table: Table) -> Fault:
    """One [[fault]]."""
    kind = cast(FaultKind, table.text("kind", allowed=get_args(FaultKind)))
    at_s = table.number("at_s", high=SECONDS_MAX)
    node, zone = _place(table, needed=True)
    for_s = table.number("for_s", 0.0, high=SECONDS_MAX)
    fault = Fault(at_s=at_s, kind=kind, node=node, zone=zone, for_s=for_s, **_strength(table, kind))
    table.done()
    return fault


def random_fault_of(table: Table) -> RandomFault:
    """One [[random_fault]]."""
    kind = cast(FaultKind, table.text("kind", allowed=get_args(FaultKind)))
    rate = table.number("rate_per_node_hour", above=True, high=1e6)
    node, zone = _place(table, needed=False)
    for_s = table.number("for_s", above=True, high=SECONDS_MAX)
    fault = RandomFault(kind=kind, rate_per_node_hour=rate, for_s=for_s, node=node, zone=zone, **_strength(table, kind))
    table.done()
    return fault


def antagonist_of(table: Table) -> Antagonist:
    """One [[antagonist]]."""
    antagonist = Antagonist(
        node=table.text("node"),
        factor=table.number("factor", above=True, high=FACTOR_MAX),
        on_s=table.number("on_s", low=SECONDS_MIN, high=SECONDS_MAX),
        off_s=table.number("off_s", low=SECONDS_MIN, high=SECONDS_MAX),
    )
    table.done()
    return antagonist
