"""The report's charts, each from the policies' rows: a caption and the picture; None where there is nothing to show."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from infcore.profiling import svg, tables
from infcore.profiling.report_html import Chart
from infcore.profiling.report_style import N_COLORS

Row = Mapping[str, Any]

# Beyond this many times the smallest, bars of quantiles are unreadable on a linear scale.
LOG_FROM_RATIO = 12.0


def milliseconds_mark(seconds: float) -> str:
    """How an axis writes seconds."""
    return f"{seconds * 1e3:.4g}"


def _by_policy(rows: Sequence[Row]) -> list[svg.Series]:
    return [svg.Series(row["policy"], i % N_COLORS) for i, row in enumerate(rows)]


def quantile_chart(rows: Sequence[Row]) -> Chart:
    """p50, p99 and p99.9, a bar per policy."""
    groups = {"p50": "p50", "p99": "p99", "p999": "p99.9"}
    series = [
        svg.Series(row["policy"], i % N_COLORS, values=[row["latency_s"][q] for q in groups])
        for i, row in enumerate(rows)
    ]
    values = [value for row in series for value in row.values if value is not None and value > 0]
    if not values:
        return None
    low, high = min(values), max(values)
    if high / low > LOG_FROM_RATIO:
        axis = svg.log_axis(low / 2, high, "latency, ms (log scale)", milliseconds_mark)
    else:
        axis = svg.linear_axis(high, "latency, ms", milliseconds_mark)
    picture = svg.bars("latency quantiles by policy", list(groups.values()), series, axis, tables.milliseconds)
    return "Latency from the intended arrival", svg.legend(series) + picture


def curve_chart(
    rows: Sequence[Row],
    styles: Sequence[svg.Series] | None = None,
    *,
    nines_max: int = 3,
    key: str = "latency_curve_s",
    what: str = "latency",
    caption: str = "Answers within a latency",
) -> Chart:
    """A distribution per policy, with the tail stretched as far as there are answers, at most nines_max."""
    series = []
    for style, row in zip(styles or _by_policy(rows), rows, strict=True):
        curve = row.get(key) or {"q": [], "s": []}
        # The last point is the maximum, at q = 1: beyond any number of nines.
        pairs = [(s, q) for q, s in zip(curve["q"], curve["s"], strict=True) if q < 1.0 and s > 0]
        series.append(replace(style, points=pairs))
    series = [row for row in series if row.points]
    if not series:
        return None
    samples = max(row["outcomes"]["ok"] for row in rows)
    nines = float(next((n for n in range(nines_max, 2, -1) if samples >= 10**n), 2))
    shown = [replace(r, points=[p for p in r.points if p[1] <= 1.0 - 10.0**-nines]) for r in series]
    seen = [x for row in shown for x, _ in row.points]
    x_axis = svg.log_axis(min(seen), max(seen), f"{what}, ms (log scale)", milliseconds_mark)
    y_axis = svg.tail_axis(nines, "answers within")
    return caption, svg.legend(shown) + svg.lines(f"{what} distribution by policy", shown, x_axis, y_axis)


def cost_chart(rows: Sequence[Row]) -> Chart:
    """Cost against p99: down and to the left is better."""
    series = [
        svg.Series(row["policy"], i % N_COLORS, points=[(row["latency_s"]["p99"], row["cost_usd_per_1k"])])
        for i, row in enumerate(rows)
        if row["cost_usd_per_1k"] is not None and row["latency_s"]["p99"] is not None
    ]
    if not series:
        return None
    x_axis = svg.linear_axis(max(row.points[0][0] for row in series) * 1.05, "p99, ms", milliseconds_mark)
    y_axis = svg.linear_axis(max(row.points[0][1] for row in series) * 1.15, "US $ per 1,000 answers", tables.dollars)
    return "Cost against p99 (lower left is better)", svg.points("cost against p99", series, x_axis, y_axis)


def capacity_chart(rows: Sequence[Row]) -> Chart:
    """The highest load carried, where it was searched."""
    found = [(i, row) for i, row in enumerate(rows) if row["capacity_rps"] is not None]
    if not found:
        return None
    series = [
        svg.Series(
            row["policy"], i % N_COLORS, values=[row["capacity_rps"] if g == k else None for g in range(len(found))]
        )
        for k, (i, row) in enumerate(found)
    ]
    axis = svg.linear_axis(
        max(row["capacity_rps"] for _, row in found) * 1.05, "requests per second", lambda v: f"{v:,.0f}"
    )
    # One bar to a group: drawn as a single series of full width, each in its policy's colour.
    picture = svg.bars("capacity by policy", [row["policy"] for _, row in found], series, axis, lambda v: f"{v:,.0f}")
    return "Capacity: highest load with 99 % inside the SLO", picture


def _device_groups(rows: Sequence[Row]) -> list[str]:
    devices = rows[0]["devices"]
    return [device["name"] + ("\n(emulated)" if device["emulated"] else "") for device in devices]


def device_throughput_chart(rows: Sequence[Row]) -> Chart:
    """Answers per second and device, a bar per policy."""
    series = [
        svg.Series(row["policy"], i % N_COLORS, values=[device["throughput_rps"] for device in row["devices"]])
        for i, row in enumerate(rows)
    ]
    top = max(value for row in series for value in row.values if value is not None)
    axis = svg.linear_axis(top * 1.05, "answers per second", lambda v: f"{v:,.4g}")
    picture = svg.bars("throughput by device", _device_groups(rows), series, axis, lambda v: f"{v:,.0f}")
    return "Throughput by device", svg.legend(series) + picture


def device_utilization_chart(rows: Sequence[Row]) -> Chart:
    """The part of the time that each device was busy, a bar per policy."""
    series = [
        svg.Series(row["policy"], i % N_COLORS, values=[device["utilization"] for device in row["devices"]])
        for i, row in enumerate(rows)
    ]
    axis = svg.linear_axis(1.0, "per cent of the time", lambda v: f"{v * 100:.0f}")
    picture = svg.bars("utilisation by device", _device_groups(rows), series, axis, lambda v: f"{v * 100:.0f}")
    return "Utilisation by device", svg.legend(series) + picture
