"""Charts as inline SVG text: grouped bars, lines on chosen scales, labelled points. The page's CSS colours them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 16, 46


@dataclass(frozen=True)
class Axis:
    """One axis: maps values to 0..1, with the values to mark and how to write them."""

    place: Callable[[float], float]
    ticks: Sequence[float]
    write: Callable[[float], str]
    title: str


@dataclass(frozen=True)
class Series:
    """A named row of values (bars; None: no bar) or of points (lines), drawn in colour number `color`."""

    name: str
    color: int
    values: Sequence[float | None] = ()
    points: Sequence[tuple[float, float]] = ()


def steps(top: float, about: int = 5) -> list[float]:
    """Round values from 0 to at least `top`, about that many."""
    if top <= 0:
        return [0.0, 1.0]
    raw = top / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * unit >= raw * 0.999)
    return [i * step for i in range(math.ceil(top / step - 1e-9) + 1)]


def linear_axis(top: float, title: str, write: Callable[[float], str] = lambda v: f"{v:g}") -> Axis:
    """From 0 to a round value at or above `top`."""
    ticks = steps(top)
    return Axis(lambda value: value / ticks[-1], ticks, write, title)


def log_axis(low: float, high: float, title: str, write: Callable[[float], str]) -> Axis:
    """From the 1-2-5 value at or below `low` to the one at or above `high`; both > 0."""
    marks = [
        m * 10.0**e for e in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)
    ]
    first = max(mark for mark in marks if mark <= low * 1.0001)
    last = min(mark for mark in [*marks, marks[-1] * 10] if mark >= high * 0.9999 and mark > first)
    span = math.log(last / first)
    ticks = [mark for mark in marks if first <= mark <= last]
    return Axis(lambda value: math.log(max(value, first) / first) / span, ticks, write, title)


def tail_axis(nines: float, title: str) -> Axis:
    """Parts of 1 from 0 to 1 - 10**-nines, each further nine as far again: the tail is readable."""
    ticks = [0.0, 0.5, *(1.0 - 10.0**-k for k in range(1, int(nines) + 1))]

    def write(part: float) -> str:
        return f"{part * 100:.10g} %"

    return Axis(lambda part: min(1.0, -math.log10(max(1.0 - part, 1e-12)) / nines), ticks, write, title)


def _x(part: float) -> float:
    return LEFT + part * (WIDTH - LEFT - RIGHT)


def _y(part: float) -> float:
    return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)


def _text(x: float, y: float, text: str, kind: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _y_axis(axis: Axis) -> list[str]:
    parts = []
    for tick in axis.ticks:
        y = _y(axis.place(tick))
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(_text(LEFT - 8, y + 4, axis.write(tick), "tick", "end"))
    middle = _y(0.5)
    parts.append(
        f'<text transform="translate(14 {middle:.1f}) rotate(-90)" class="axis" text-anchor="middle">'
        f"{escape(axis.title)}</text>"
    )
    return parts


def _x_axis(axis: Axis) -> list[str]:
    parts = []
    for tick in axis.ticks:
        x = _x(axis.place(tick))
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_y(0):.1f}" y2="{_y(1):.1f}" class="grid"/>')
        parts.append(_text(x, _y(0) + 17, axis.write(tick), "tick"))
    return [*parts, _text(_x(0.5), HEIGHT - 8, axis.title, "axis")]


def _frame(label: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label, quote=True)}">'
    return f"{head}{''.join(parts)}</svg>"


def bars(label: str, groups: Sequence[str], series: Sequence[Series], axis: Axis, shown: Callable[[float], str]) -> str:
    """A bar per group and series, its value above it; None takes no place; a line break splits a name."""
    parts = _y_axis(axis)
    present = [[row for row in series if row.values[g] is not None] for g in range(len(groups))]
    group_width = 1.0 / max(1, len(groups))
    most = max((len(rows) for rows in present), default=1)
    bar_width = min(group_width * 0.78 / max(1, most), 0.12)
    for g, name in enumerate(groups):
        first = (g + 0.5) * group_width - bar_width * len(present[g]) / 2
        for s, row in enumerate(present[g]):
            value = row.values[g] or 0.0
            left = _x(first + (s + 0.04) * bar_width)
            width = (WIDTH - LEFT - RIGHT) * bar_width * 0.92
            top, bottom = _y(min(1.0, max(0.0, axis.place(value)))), _y(0)
            title = escape(f"{name}, {row.name}: {shown(value)}".replace("\n", " "))
            parts.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{max(0.5, bottom - top):.1f}" rx="2" '
                f'class="c{row.color}"><title>{title}</title></rect>'
            )
            if width >= 18:
                parts.append(_text(left + width / 2, top - 4, shown(value), "value"))
        for line, words in enumerate(name.split("\n")):
            parts.append(_text(_x((g + 0.5) * group_width), _y(0) + 17 + 13 * line, words, "tick"))
    return _frame(label, parts)


def lines(label: str, series: Sequence[Series], x_axis: Axis, y_axis: Axis) -> str:
    """A line through each series' points."""
    parts = [*_y_axis(y_axis), *_x_axis(x_axis)]
    for row in series:
        path = " ".join(f"{_x(x_axis.place(x)):.1f},{_y(y_axis.place(y)):.1f}" for x, y in row.points)
        parts.append(
            f'<polyline points="{path}" class="line l{row.color}"><title>{escape(row.name)}</title></polyline>'
        )
    return _frame(label, parts)


def points(label: str, series: Sequence[Series], x_axis: Axis, y_axis: Axis) -> str:
    """A labelled dot for each series' first point; labels of dots that nearly touch are moved apart."""
    parts = [*_y_axis(y_axis), *_x_axis(x_axis)]
    taken: list[tuple[float, float]] = []
    for row in series:
        x, y = _x(x_axis.place(row.points[0][0])), _y(y_axis.place(row.points[0][1]))
        side, anchor = (12, "start") if x < WIDTH * 0.62 else (-12, "end")
        label_y = y + 4
        while any(abs(label_y - other_y) < 14 and abs(x - other_x) < 160 for other_x, other_y in taken):
            label_y -= 15
        taken.append((x, label_y))
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" class="c{row.color}"><title>{escape(row.name)}</title></circle>'
        )
        parts.append(_text(x + side, label_y, row.name, "value", anchor))
    return _frame(label, parts)


def legend(series: Sequence[Series]) -> str:
    """The names of the series beside their colours, as HTML."""
    items = "".join(f'<span><i class="b{row.color}"></i>{escape(row.name)}</span>' for row in series)
    return f'<div class="legend">{items}</div>'
