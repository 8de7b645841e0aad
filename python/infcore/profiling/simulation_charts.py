"""The charts of a simulation's report, from its document as documents.check() gives it back."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from infcore.profiling import report_charts, svg, svg_time, tables
from infcore.profiling.capacity import WITHIN_SLO_MIN
from infcore.profiling.fault_spans import Fault, bands_of, color_of, faults_of, kinds_of, lanes_of
from infcore.profiling.report_charts import LOG_FROM_RATIO, milliseconds_mark
from infcore.profiling.report_html import Chart
from infcore.profiling.report_style import BOUND_COLOR, N_COLORS
from infcore.profiling.svg import Series
from infcore.sim.simulate import BOUND

Run = Mapping[str, Any]
Document = Mapping[str, Any]

NINES_MAX = 5
HEAT_ROWS_MAX = 40
# The palette's own grey is left to the bound.
_COLORS = tuple(i for i in range(N_COLORS) if i != 6)


def styles_of(runs: Sequence[Run]) -> list[Series]:
    """Each policy's name and colour; the bound in grey and dashed, as is a policy whose colour another has already."""
    out: list[Series] = []
    for run in runs:
        at = sum(style.color != BOUND_COLOR for style in out)
        if run["policy"] == BOUND:
            out.append(Series(run["policy"], BOUND_COLOR, dashed=True))
        else:
            out.append(Series(run["policy"], _COLORS[at % len(_COLORS)], dashed=at >= len(_COLORS)))
    return out


def latency_chart(document: Document) -> Chart:
    """The latency distribution per policy, both scales logarithmic."""
    runs = document["runs"]
    return report_charts.curve_chart(runs, styles_of(runs), nines_max=NINES_MAX)


def ttft_chart(document: Document) -> Chart:
    """Likewise of the time to a first token; None where no model makes tokens."""
    runs = document["runs"]
    return report_charts.curve_chart(
        runs,
        styles_of(runs),
        nines_max=NINES_MAX,
        key="ttft_curve_s",
        what="time to first token",
        caption="First tokens within a time",
    )


def arrivals_rps(document: Document) -> float | None:
    """The mean rate of arrivals at load 1, as they came; what the scenario states where none did."""
    for run in document["runs"]:
        parts = run["parts"]
        if (total := sum(parts["arrivals"])) and document["load"]:
            rate: float = total / (len(parts["arrivals"]) * parts["part_s"]) / document["load"]
            return rate
    stated: float | None = document["scenario_detail"]["rate_rps"]
    return stated


def _probes(document: Document) -> list[tuple[Series, list[Mapping[str, Any]]]]:
    """Each policy's loads that were tried, in order of load."""
    searched = document["capacity"] or {}
    found = []
    for style in styles_of(document["runs"]):
        if probes := [probe for probe in searched.get(style.name, []) if probe["load"] > 0]:
            found.append((style, sorted(probes, key=lambda probe: probe["load"])))
    return found


def _scaled(values: Sequence[float], title: str, write: Callable[[float], str]) -> svg.Axis:
    """Logarithmic where the values are far apart."""
    if min(values) > 0 and max(values) / min(values) > LOG_FROM_RATIO:
        return svg.log_axis(min(values) / 1.15, max(values) * 1.15, f"{title} (log scale)", write)
    return svg.linear_axis((max(values) or 1.0) * 1.1, title, write)


def _dollars(value: float) -> str:
    """Without the zeros at the end, which a table's column has and an axis has no room for."""
    text = tables.dollars(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _load_axis(probes: Sequence[tuple[Series, Sequence[Mapping[str, Any]]]]) -> svg.Axis:
    loads = [probe["load"] for _, rows in probes for probe in rows]
    title = "load, times the scenario's arrivals"
    if max(loads) / min(loads) > LOG_FROM_RATIO:
        return svg.log_axis(min(loads), max(loads), f"{title} (log scale)", lambda v: f"{v:g}")
    return svg.linear_axis(max(loads), title)


def slo_chart(document: Document) -> Chart:
    """The part of the arrivals inside the SLO over the load, from the search for the capacity."""
    probes = _probes(document)
    if not probes:
        return None
    series = [
        replace(style, points=[(p["load"], p["within_slo"]) for p in rows], dots=[p["carried"] for p in rows])
        for style, rows in probes
    ]
    axis = svg.tail_axis(4.0, "arrivals inside the SLO")
    rule = svg.Rule(WITHIN_SLO_MIN, f"{WITHIN_SLO_MIN * 100:g} %: carried")
    picture = svg.lines("arrivals inside the SLO over load", series, _load_axis(probes), axis, y_rule=rule)
    return "Inside the SLO over load (full dots: carried)", svg.legend(series) + picture


def goodput_chart(document: Document) -> Chart:
    """Answers inside the SLO per second over the load; nobody can be above the arrivals."""
    probes, rate = _probes(document), arrivals_rps(document)
    if not probes or not rate:
        return None
    series = [
        replace(
            style,
            points=[(p["load"], p["load"] * rate * p["within_slo"]) for p in rows],
            dots=[p["carried"] for p in rows],
        )
        for style, rows in probes
    ]
    low, high = (pick(p["load"] for _, rows in probes for p in rows) for pick in (min, max))
    steps = [low * (high / low) ** (i / 40) for i in range(41)]
    series.append(Series("all arrivals", BOUND_COLOR, points=[(load, load * rate) for load in steps], dashed=True))
    values = [y for row in series for _, y in row.points]
    axis = svg.linear_axis(max(values), "goodput, answers inside the SLO per s", lambda v: f"{v:,.4g}")
    picture = svg.lines("goodput over load", series, _load_axis(probes), axis)
    return "Goodput over load (full dots: carried)", svg.legend(series) + picture


def cost_chart(document: Document) -> Chart:
    """Cost against p99; the front is of the policies, which the bound is none of."""
    series = [
        replace(style, points=[(run["latency_s"]["p99"], run["cost_usd_per_1k"])])
        for style, run in zip(styles_of(document["runs"]), document["runs"], strict=True)
        if run["cost_usd_per_1k"] is not None and run["latency_s"]["p99"] is not None
    ]
    # Where nothing has a price there is nothing to weigh.
    if not any(row.points[0][1] > 0 for row in series):
        return None
    # A policy whose colour comes round again is no bound: it is a dot all the same.
    series = [replace(row, dashed=row.color == BOUND_COLOR) for row in series]
    front = pareto([row.points[0] for row in series if row.color != BOUND_COLOR])
    x_axis = _scaled([row.points[0][0] for row in series], "p99, ms", milliseconds_mark)
    y_axis = _scaled([row.points[0][1] for row in series], "US $ per 1,000 answers", _dollars)
    return "Cost against p99 (lower left is better; dotted: Pareto front)", svg.points(
        "cost against p99", series, x_axis, y_axis, front=front
    )


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other beats in one of the two without losing in the other, from left to right."""
    front: list[tuple[float, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


# ---- over time


def _end_s(run: Run) -> float:
    end_s: float = len(run["parts"]["arrivals"]) * run["parts"]["part_s"]
    return end_s


def _latency_panel(heading: str, key: str, runs: Sequence[Run], styles: Sequence[Series]) -> svg_time.Panel | None:
    lines: list[list[tuple[float, float] | None]] = []
    for run in runs:
        parts = run["parts"]
        lines.append(
            [
                ((i + 0.5) * parts["part_s"], value) if ok and value else None
                for i, (value, ok) in enumerate(zip(parts[key], parts["ok"], strict=True))
            ]
        )
    values = [point[1] for line in lines for point in line if point is not None]
    if not values:
        return None
    axis = svg.log_axis(min(values), max(values), "", milliseconds_mark)
    # At this height there is no room for more than the powers of ten.
    tens = [tick for tick in axis.ticks if round(math.log10(tick), 6).is_integer()]
    return svg_time.Panel(heading, replace(axis, ticks=tens if len(tens) > 1 else axis.ticks), styles, lines)


def _arrivals_panel(runs: Sequence[Run], styles: Sequence[Series]) -> svg_time.Panel:
    rates: list[list[tuple[float, float]]] = []
    for run in runs:
        parts = run["parts"]
        rates.append([((i + 0.5) * parts["part_s"], n / parts["part_s"]) for i, n in enumerate(parts["within_slo"])])
    parts = runs[0]["parts"]
    area = [((i + 0.5) * parts["part_s"], n / parts["part_s"]) for i, n in enumerate(parts["arrivals"])]
    top = max(rate for row in [area, *rates] for _, rate in row)
    axis = svg.linear_axis(top, "", lambda v: f"{v:,.4g}")
    heading = "requests per second: arrivals (grey area), inside the SLO (lines)"
    return svg_time.Panel(heading, axis, styles, rates, area)


def time_chart(document: Document) -> Chart:
    """Arrivals, answers inside the SLO, latencies and faults on one time axis."""
    runs = [run for run in document["runs"] if _end_s(run) > 0]
    if not any(sum(run["parts"]["arrivals"]) for run in runs):
        return None
    end_s, styles = max(_end_s(run) for run in runs), styles_of(runs)
    faults = faults_of(runs, end_s)
    warmup_s: float = document["scenario_detail"]["warmup_s"]
    panels = [
        _arrivals_panel(runs, styles),
        _latency_panel("mean latency of a part's answers, ms (log scale)", "latency_mean_s", runs, styles),
        _latency_panel("longest latency of a part's answers, ms (log scale)", "latency_max_s", runs, styles),
    ]
    picture = svg_time.panels(
        "arrivals, latency and faults over time",
        end_s,
        [panel for panel in panels if panel is not None],
        lanes=lanes_of(faults, end_s),
        lanes_heading="faults",
        bands=bands_of(faults, end_s),
        shade_until_s=min(warmup_s, end_s),
        shade_text="warm-up: left out of the figures",
    )
    return "By time of arrival", svg.legend(styles) + fault_legend(faults, warmup=warmup_s > 0) + picture


def fault_legend(faults: Sequence[Fault], *, warmup: bool = False) -> str:
    """The kinds of faults that there were beside their colours, as HTML."""
    items = [f'<span><i class="k{color_of(kind)}"></i>{escape(kind)}</span>' for kind in kinds_of(faults)]
    if warmup:
        items.append('<span><i class="warm"></i>warm-up (left out of the figures)</span>')
    return f'<div class="legend">{"".join(items)}</div>' if items else ""


# ---- nodes


def load_rows(run: Run) -> tuple[list[tuple[str, list[float]]], bool]:
    """Names and busy parts of 1 over time, a row for each node; of groups of them (True) where nodes are too many."""
    nodes = run["nodes"]
    if len(nodes) <= HEAT_ROWS_MAX:
        return [(node["name"], _busy([node], run)) for node in nodes], False
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for node in nodes:
        groups.setdefault(node["group"] or node["name"], []).append(node)
    rows = [(f"{name} ({len(members)})" if len(members) > 1 else name, members) for name, members in groups.items()]
    if len(rows) > HEAT_ROWS_MAX:
        # The largest stay, in the file's order; the others share a row.
        large = set(sorted(range(len(rows)), key=lambda i: -len(rows[i][1]))[: HEAT_ROWS_MAX - 1])
        rest = [node for i, (_, members) in enumerate(rows) if i not in large for node in members]
        rows = [row for i, row in enumerate(rows) if i in large] + [(f"others ({len(rest)})", rest)]
    return [(name, _busy(members, run)) for name, members in rows], True


def _busy(nodes: Sequence[Mapping[str, Any]], run: Run) -> list[float]:
    slot_s = sum(node["slots"] for node in nodes) * run["parts"]["part_s"]
    if slot_s <= 0:
        return [0.0] * len(run["parts"]["arrivals"])
    return [math.fsum(values) / slot_s for values in zip(*(node["busy_part_s"] for node in nodes), strict=True)]


def load_charts(document: Document) -> list[Chart]:
    """A heat map for each policy: how busy each node was over time, with its faults below. The bound uses none."""
    runs = [run for run in document["runs"] if run["policy"] != BOUND and run["nodes"] and _end_s(run) > 0]
    charts: list[Chart] = []
    for run in runs:
        end_s = _end_s(run)
        rows, grouped = load_rows(run)
        places = {} if grouped else {name: i for i, (name, _) in enumerate(rows)}
        marks = [
            (places[lane.name], span)
            for lane in _node_lanes(faults_of(document["runs"], end_s), places, end_s)
            for span in lane.spans
        ]
        picture = svg_time.heat_map(f"load of the nodes over time, {run['policy']}", rows, end_s, marks=marks)
        charts.append((run["policy"], picture))
    return charts


def _node_lanes(faults: Sequence[Fault], places: Mapping[str, int], end_s: float) -> list[svg_time.Lane]:
    """A lane for each node that has a row of its own, however many."""
    return [lane for name in places for lane in lanes_of([fault for fault in faults if fault[0] == name], end_s)]
