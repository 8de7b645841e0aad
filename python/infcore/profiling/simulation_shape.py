"""What a document of `infcore simulate --json` must look like to be drawn; what may be missing or null is filled in."""

from typing import Any

from infcore.errors import InvalidArgument
from infcore.profiling.shape import Read, count, fields, flag, list_of, map_of, mapping, maybe, number, text

_QUANTILES = ("mean", "p50", "p90", "p99", "p999")
_RATIOS = ("mean", "p50", "p99", "p999", "goodput_rps", "cost_usd_per_1k", "capacity_load")


def _numbers(names: tuple[str, ...]) -> Read:
    """Numbers by name, each of which may be null or missing; null for all of them, too."""
    return maybe(fields({}, {name: maybe(number) for name in names}), lambda: dict.fromkeys(names))


# Of token models; null where there are none.
_TOKEN_TIMES = maybe(fields({}, {name: maybe(number) for name in _QUANTILES}))
_OUTCOMES = maybe(fields({}, {"ok": maybe(count, int)}), lambda: {"ok": 0})
# Of a run and of each of its models.
_FIGURES: dict[str, Read] = {
    "requests": maybe(count, int),
    "outcomes": _OUTCOMES,
    "availability": maybe(number),
    "throughput_rps": maybe(number),
    "goodput_rps": maybe(number),
    "ttft_s": _TOKEN_TIMES,
    "itl_s": _TOKEN_TIMES,
    "prefix_reuse": maybe(number),
    "output_tokens_per_s": maybe(number),
}
_MODEL = fields(
    {"name": text}, {**_FIGURES, "latency_s": _numbers(_QUANTILES), "within_slo": maybe(number), "slo_s": maybe(number)}
)
_NODE = fields(
    {"name": text, "busy_part_s": list_of(number)},
    {
        "group": maybe(text),
        "kind": maybe(text),
        "zone": maybe(text),
        "slots": maybe(count, lambda: 1),
        "price_per_hour": maybe(number),
        "requests": maybe(count, int),
        "batches": maybe(count, int),
        "utilization": maybe(number),
        "cost_usd": maybe(number),
        "faults": maybe(count, int),
    },
)
_EVENT = fields({"at_s": number, "node": text, "kind": text, "begins": flag}, {})
_COUNTS = ("arrivals", "ok", "within_slo")
_LATENCIES = ("latency_mean_s", "latency_max_s")
_PARTS = fields(
    {
        "part_s": number,
        **{name: list_of(count) for name in _COUNTS},
        **{name: list_of(maybe(number)) for name in _LATENCIES},
    },
    {},
)
_CURVE = maybe(fields({"q": list_of(number), "s": list_of(number)}, {}), lambda: {"q": [], "s": []})
_RUN = fields(
    {
        "policy": text,
        "latency_s": _numbers(_QUANTILES),
        "within_slo": maybe(number),
        "cost_usd": maybe(number),
        "digest": maybe(text),
        "nodes": list_of(_NODE),
        "parts": _PARTS,
        "faults": fields({"count": count, "events": list_of(_EVENT)}, {}),
    },
    {
        **_FIGURES,
        "requests_total": maybe(count, int),
        "wall_s": maybe(number),
        "latency_curve_s": _CURVE,
        "ttft_curve_s": _CURVE,
        "tokens": maybe(fields({}, {"preempted": maybe(count, int)})),
        "regret_s": _numbers(_QUANTILES),
        "capacity_load": maybe(number),
        "cost_usd_per_1k": maybe(number),
        "cost_usd_up": maybe(number),
        "lost": maybe(count, int),
        "duplicated": maybe(count, int),
        "violations": maybe(count, int),
        "models": maybe(list_of(_MODEL), list),
        "ratio_to_baseline": _numbers(_RATIOS),
    },
)
_PROBE = fields({"load": number, "within_slo": number, "carried": flag}, {})
_DETAIL = fields(
    {},
    {
        "description": maybe(text, str),
        "seconds": maybe(number),
        "warmup_s": maybe(number, float),
        "batching": maybe(text),
        "nodes": maybe(count, int),
        "models": maybe(list_of(text), list),
        "rate_rps": maybe(number),
    },
)
_DOCUMENT = fields(
    {
        "scenario": text,
        "seed": count,
        "load": number,
        "runs": list_of(_RUN),
        "valid": flag,
        "invalid_reasons": list_of(text),
        "env": mapping,
    },
    {
        "scenario_detail": maybe(_DETAIL, lambda: _DETAIL({}, "")),
        "trace": maybe(text),
        "baseline": maybe(text),
        "cost_basis": maybe(text),
        "capacity": maybe(map_of(list_of(_PROBE))),
    },
)


def read(values: Any, where: str) -> dict[str, Any]:
    """The document with every key that the report looks at. Raises InvalidArgument naming the first that is wrong."""
    document: dict[str, Any] = _DOCUMENT(values, where)
    for i, run in enumerate(document["runs"]):
        at = f"{where}.runs[{i}]"
        parts = run["parts"]
        lengths = {name: len(parts[name]) for name in (*_COUNTS, *_LATENCIES)}
        if len(set(lengths.values())) > 1 or (lengths["arrivals"] and parts["part_s"] <= 0):
            raise InvalidArgument(f"{at}.parts must have arrays of one length and part_s > 0, got {lengths}")
        for name in ("latency_curve_s", "ttft_curve_s"):
            q, s = run[name]["q"], run[name]["s"]
            if len(q) != len(s):
                raise InvalidArgument(f"{at}.{name} must have as many q as s, got {len(q)} and {len(s)}")
        for k, node in enumerate(run["nodes"]):
            if len(node["busy_part_s"]) != lengths["arrivals"]:
                raise InvalidArgument(
                    f"{at}.nodes[{k}].busy_part_s must have a value for each of the {lengths['arrivals']} parts, "
                    f"got {len(node['busy_part_s'])}"
                )
    return document
