"""Charts over time as inline SVG: panels one above the other on one time axis, marked spans, heat maps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from infcore.profiling import svg

WIDE = 1140
# A heat map's cells have one of so many shades; the last is for parts of 1 from HEAT_FULL on.
N_SHADES = 10
HEAT_FULL = 0.95
# Units of a time axis: up to so many seconds, seconds per unit, its name.
_UNITS = ((600.0, 1.0, "s"), (3 * 3600.0, 60.0, "min"), (4 * 86400.0, 3600.0, "h"), (math.inf, 86400.0, "days"))
_LABEL_SPACE = 12
_PANELS_LEFT = 124.0


@dataclass(frozen=True)
class Span:
    """Seconds from which to which something was so; `kind` is the number of its colour, `title` what is told of it."""

    from_s: float
    until_s: float
    kind: int
    title: str


@dataclass(frozen=True)
class Panel:
    """Lines over time. `lines[i]` belongs to series i: (seconds, value) or, where the line is broken, None.

    area  a grey area up to its points, behind the lines
    """

    heading: str
    axis: svg.Axis
    series: Sequence[svg.Series]
    lines: Sequence[Sequence[tuple[float, float] | None]]
    area: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Lane:
    """A named row of spans."""

    name: str
    spans: Sequence[Span]


def time_axis(end_s: float) -> svg.Axis:
    """From 0 to the end, in a unit that suits it."""
    unit_s, name = next((unit_s, name) for most, unit_s, name in _UNITS if end_s <= most)
    ticks = [tick * unit_s for tick in svg.steps(end_s / unit_s, 8) if tick * unit_s <= end_s * 1.0001]
    return svg.Axis(lambda s: min(1.0, max(0.0, s / end_s)), ticks, lambda s: f"{s / unit_s:g}", f"time, {name}")


def shortened(name: str, most: int) -> str:
    """The name, its middle left out where it is longer than that many characters: names differ at their ends."""
    tail = most // 2
    return name if len(name) <= most else f"{name[: most - 1 - tail]}…{name[-tail:]}"


def _path(points: Sequence[tuple[float, float] | None], time: svg.Axis, axis: svg.Axis, box: svg.Box) -> str:
    """Breaks at None. A point alone is a line of no length, which a round end makes a dot."""
    parts, begun = [], False
    for point in points:
        if point is None:
            begun = False
            continue
        x, y = box.x(time.place(point[0])), box.y(axis.place(point[1]))
        parts.append(f"{'L' if begun else 'M'}{x:.1f} {y:.1f}" + ("" if begun else "h0"))
        begun = True
    return "".join(parts)


def _panel(panel: Panel, time: svg.Axis, box: svg.Box) -> list[str]:
    parts = [svg.text(box.left, box.top - 9, panel.heading, "heading", "start"), *svg.y_axis_of(panel.axis, box)]
    for tick in time.ticks:
        x = box.x(time.place(tick))
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{box.bottom}" y2="{box.top}" class="grid"/>')
    if panel.area:
        first, last = (box.x(time.place(panel.area[i][0])) for i in (0, -1))
        path = _path(panel.area, time, panel.axis, box)
        parts.append(f'<path d="{path}L{last:.1f} {box.bottom}L{first:.1f} {box.bottom}z" class="area"/>')
    for row, points in zip(panel.series, panel.lines, strict=True):
        kind = f"thin l{row.color}" + (" dashed" if row.dashed else "")
        path = _path(points, time, panel.axis, box)
        parts.append(f'<path d="{path}" class="{kind}"><title>{escape(row.name)}</title></path>')
    return parts


def _lane(lane: Lane, time: svg.Axis, box: svg.Box) -> list[str]:
    parts = [
        f'<line x1="{box.left}" x2="{box.right}" y1="{box.bottom}" y2="{box.bottom}" class="grid"/>',
        f"<g><title>{escape(lane.name)}</title>"
        + svg.text(box.left - 8, box.bottom - 5, shortened(lane.name, 17), "tick", "end")
        + "</g>",
    ]
    for span in lane.spans:
        left, right = box.x(time.place(span.from_s)), box.x(time.place(span.until_s))
        parts.append(
            f'<rect x="{left:.1f}" y="{box.top + 2:.1f}" width="{max(1.5, right - left):.1f}" height="12" rx="2" '
            f'class="f{span.kind}"><title>{escape(span.title)}</title></rect>'
        )
    return parts


def panels(
    label: str,
    end_s: float,
    rows: Sequence[Panel],
    *,
    lanes: Sequence[Lane] = (),
    lanes_heading: str = "",
    bands: Sequence[Span] = (),
    shade_until_s: float = 0.0,
    shade_text: str = "",
) -> str:
    """The panels, then the lanes, on one time axis; bands go through all panels, and the start may be shaded."""
    time, height, gap = time_axis(end_s), 120.0, 34.0
    parts: list[str] = []
    top = gap - 6
    for row in rows:
        box = svg.Box(_PANELS_LEFT, WIDE - svg.RIGHT, top, top + height)
        if shade_until_s > 0.0:
            parts.append(_band(box, time, 0.0, shade_until_s, "shade", shade_text))
        parts += [_band(box, time, band.from_s, band.until_s, f"f{band.kind} band", band.title) for band in bands]
        parts += _panel(row, time, box)
        top += height + gap
    bottom = top - gap
    if lanes:
        parts.append(svg.text(_PANELS_LEFT, top - 9, lanes_heading, "heading", "start"))
        for i, lane in enumerate(lanes):
            parts += _lane(lane, time, svg.Box(_PANELS_LEFT, WIDE - svg.RIGHT, top + 17 * i, top + 17 * (i + 1)))
        bottom = top + 17 * len(lanes)
    parts += _time_marks(time, svg.Box(_PANELS_LEFT, WIDE - svg.RIGHT, bottom, bottom))
    return svg.frame(label, parts, width=WIDE, height=bottom + 44)


def _time_marks(time: svg.Axis, box: svg.Box) -> list[str]:
    """The axis' values and title below the box."""
    marks = [svg.text(box.x(time.place(tick)), box.bottom + 17, time.write(tick), "tick") for tick in time.ticks]
    return [*marks, svg.text(box.x(0.5), box.bottom + 36, time.title, "axis")]


def _band(box: svg.Box, time: svg.Axis, from_s: float, until_s: float, kind: str, title: str) -> str:
    left, right = box.x(time.place(from_s)), box.x(time.place(until_s))
    return (
        f'<rect x="{left:.1f}" y="{box.top:.1f}" width="{max(1.0, right - left):.1f}" '
        f'height="{box.bottom - box.top:.1f}" class="{kind}"><title>{escape(title)}</title></rect>'
    )


def shade(part: float) -> int:
    """The number of a cell's shade, 0 (idle) to N_SHADES."""
    if part >= HEAT_FULL:
        return N_SHADES
    return min(N_SHADES - 1, math.ceil(max(0.0, part) / HEAT_FULL * (N_SHADES - 1)))


def heat_map(
    label: str,
    rows: Sequence[tuple[str, Sequence[float]]],
    end_s: float,
    *,
    marks: Sequence[tuple[int, Span]] = (),
) -> str:
    """A row of cells for each name, the parts of 1 in equal parts of the time; a mark is a line below a row's cells."""
    time = time_axis(end_s)
    height = 20.0 if len(rows) <= 12 else 14.0
    longest = max((len(name) for name, _ in rows), default=0)
    most = min(24, longest)
    box = svg.Box(most * svg.CHARACTER_WIDTH + _LABEL_SPACE, svg.WIDTH - svg.RIGHT, 6, 6 + height * len(rows))
    parts: list[str] = []
    for i, (name, values) in enumerate(rows):
        middle = box.top + height * (i + 0.5)
        mean = math.fsum(values) / max(1, len(values))
        parts.append(
            f"<g><title>{escape(name)}: busy {mean * 100:.0f} % on average</title>"
            + svg.text(box.left - 8, middle + 4, shortened(name, most), "tick", "end")
            + _cells(values, box, middle, height - 3)
            + "</g>"
        )
    for i, span in marks:
        left, right = box.x(time.place(span.from_s)), box.x(time.place(span.until_s))
        y = box.top + height * (i + 1) - 4
        parts.append(
            f'<rect x="{left:.1f}" y="{y:.1f}" width="{max(1.5, right - left):.1f}" height="3" '
            f'class="f{span.kind}"><title>{escape(span.title)}</title></rect>'
        )
    parts += _time_marks(time, box)
    return svg.frame(label, parts, height=box.bottom + 42)


def _cells(values: Sequence[float], box: svg.Box, middle: float, height: float) -> str:
    """One path for each shade, a stroke as thick as the row: a few bytes a cell."""
    width = (box.right - box.left) / max(1, len(values))
    paths: dict[int, list[str]] = {}
    start = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or shade(values[i]) != shade(values[start]):
            paths.setdefault(shade(values[start]), []).append(
                f"M{box.left + start * width:.1f} {middle:.1f}H{box.left + i * width:.1f}"
            )
            start = i
    return "".join(
        f'<path d="{"".join(path)}" class="h{number}" stroke-width="{height:g}"/>'
        for number, path in sorted(paths.items())
    )


def heat_legend() -> str:
    """What the shades mean, as HTML."""
    cells = "".join(f'<i class="g{number}"></i>' for number in range(N_SHADES + 1))
    most = f"busy {HEAT_FULL * 100:.0f} % and more"
    return f'<div class="legend heat"><span>idle</span><span>{cells}</span><span>{most}</span></div>'
