"""Charts as inline SVG text: grouped bars, lines on chosen scales, labelled points. The page's CSS colours them.

What other charts are made of is here, too: a Box of the picture, its axes, text, the frame around it all.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 16, 46
# About the width of a character of the style sheet's small text: for what must not overlap.
CHARACTER_WIDTH = 6.3
# More marks than this on an axis: powers of ten alone are marked.
TICKS_MAX = 11


@dataclass(frozen=True)
class Box:
    """The part of a picture that an axis' 0..1 is stretched over."""

    left: float
    right: float
    top: float
    bottom: float

    def x(self, part: float) -> float:
        """From the left."""
        return self.left + part * (self.right - self.left)

    def y(self, part: float) -> float:
        """From the bottom, upwards."""
        return self.bottom - part * (self.bottom - self.top)


PLOT = Box(LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM)


@dataclass(frozen=True)
class Axis:
    """One axis: maps values to 0..1, with the values to mark and how to write them."""

    place: Callable[[float], float]
    ticks: Sequence[float]
    write: Callable[[float], str]
    title: str


@dataclass(frozen=True)
class Series:
    """A named row of values (bars; None: no bar) or of points (lines), drawn in colour number `color`.

    dashed  its line; a point of its own is a diamond instead of a dot
    dots    a line's: whether each of its points is a full dot or a hollow one; empty: no dots
    """

    name: str
    color: int
    values: Sequence[float | None] = ()
    points: Sequence[tuple[float, float]] = ()
    dashed: bool = False
    dots: Sequence[bool] = ()


@dataclass(frozen=True)
class Rule:
    """A dashed line across the plot at a value of its y axis, with a word above its end."""

    value: float
    text: str


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
    if len(ticks) > TICKS_MAX:
        tens = [mark for mark in ticks if round(math.log10(mark), 6).is_integer()]
        ticks = tens[:: math.ceil(len(tens) / TICKS_MAX)]
    return Axis(lambda value: math.log(max(value, first) / first) / span, ticks, write, title)


def tail_axis(nines: float, title: str) -> Axis:
    """Parts of 1 from 0 to 1 - 10**-nines, each further nine as far again: the tail is readable."""
    ticks = [0.0, 0.5, *(1.0 - 10.0**-k for k in range(1, int(nines) + 1))]

    def write(part: float) -> str:
        return f"{part * 100:.10g} %"

    return Axis(lambda part: min(1.0, -math.log10(max(1.0 - part, 1e-12)) / nines), ticks, write, title)


def text(x: float, y: float, words: str, kind: str, anchor: str = "middle") -> str:
    """Words at a place, of the class `kind`."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def y_axis_of(axis: Axis, box: Box = PLOT) -> list[str]:
    """Grid lines across the box with their values on its left, and the title on the picture's edge."""
    parts = []
    for tick in axis.ticks:
        y = box.y(axis.place(tick))
        parts.append(f'<line x1="{box.left}" x2="{box.right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(text(box.left - 8, y + 4, axis.write(tick), "tick", "end"))
    if axis.title:
        parts.append(
            f'<text transform="translate(14 {box.y(0.5):.1f}) rotate(-90)" class="axis" text-anchor="middle">'
            f"{escape(axis.title)}</text>"
        )
    return parts


def x_axis_of(axis: Axis, box: Box = PLOT) -> list[str]:
    """Grid lines up the box with their values and the title below it."""
    parts = []
    for tick in axis.ticks:
        x = box.x(axis.place(tick))
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{box.bottom}" y2="{box.top}" class="grid"/>')
        parts.append(text(x, box.bottom + 17, axis.write(tick), "tick"))
    return [*parts, text(box.x(0.5), box.bottom + 38, axis.title, "axis")]


def frame(label: str, parts: Sequence[str], *, width: float = WIDTH, height: float = HEIGHT) -> str:
    """The picture of what is in it; `label` is for those who cannot see it."""
    head = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label, quote=True)}">'
    return f"{head}{''.join(parts)}</svg>"


def bars(label: str, groups: Sequence[str], series: Sequence[Series], axis: Axis, shown: Callable[[float], str]) -> str:
    """A bar per group and series, its value above it; None takes no place; a line break splits a name."""
    parts = y_axis_of(axis)
    present = [[row for row in series if row.values[g] is not None] for g in range(len(groups))]
    group_width = 1.0 / max(1, len(groups))
    most = max((len(rows) for rows in present), default=1)
    bar_width = min(group_width * 0.78 / max(1, most), 0.12)
    for g, name in enumerate(groups):
        first = (g + 0.5) * group_width - bar_width * len(present[g]) / 2
        for s, row in enumerate(present[g]):
            value = row.values[g] or 0.0
            left = PLOT.x(first + (s + 0.04) * bar_width)
            width = (WIDTH - LEFT - RIGHT) * bar_width * 0.92
            top, bottom = PLOT.y(min(1.0, max(0.0, axis.place(value)))), PLOT.y(0)
            title = escape(f"{name}, {row.name}: {shown(value)}".replace("\n", " "))
            parts.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{max(0.5, bottom - top):.1f}" rx="2" '
                f'class="c{row.color}"><title>{title}</title></rect>'
            )
            if width >= 18:
                parts.append(text(left + width / 2, top - 4, shown(value), "value"))
        for line, words in enumerate(name.split("\n")):
            parts.append(text(PLOT.x((g + 0.5) * group_width), PLOT.y(0) + 17 + 13 * line, words, "tick"))
    return frame(label, parts)


def _line(row: Series, x_axis: Axis, y_axis: Axis) -> str:
    """A series' line with its dots."""
    placed = [(PLOT.x(x_axis.place(x)), PLOT.y(y_axis.place(y))) for x, y in row.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    kind = f"line l{row.color}" + (" dashed" if row.dashed else "")
    parts = [f'<polyline points="{path}" class="{kind}"><title>{escape(row.name)}</title></polyline>']
    for (x, y), full in zip(placed, row.dots, strict=False):
        kind = f"c{row.color}" if full else f"hollow l{row.color}"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" class="{kind}"/>')
    return "".join(parts)


def lines(
    label: str,
    series: Sequence[Series],
    x_axis: Axis,
    y_axis: Axis,
    *,
    y_rule: Rule | None = None,
) -> str:
    """A line through each series' points; the rule is drawn below them."""
    parts = [*y_axis_of(y_axis), *x_axis_of(x_axis)]
    if y_rule is not None:
        y = PLOT.y(y_axis.place(y_rule.value))
        parts.append(f'<line x1="{PLOT.left}" x2="{PLOT.right}" y1="{y:.1f}" y2="{y:.1f}" class="rule"/>')
        parts.append(text(PLOT.right - 6, y - 5, y_rule.text, "value", "end"))
    return frame(label, [*parts, *(_line(row, x_axis, y_axis) for row in series)])


def _label_place(x: float, y: float, width: float, taken: Sequence[Box]) -> tuple[float, float, str, Box]:
    """Where a dot's name overlaps nothing: beside it, above or below it, else ever farther up."""
    # Boxes run from a text's top to its bottom; 4 and 10 are the parts of a line below and above its base line.
    tries = [(12, 4, "start"), (-12, 4, "end"), (0, -13, "middle"), (0, 21, "middle")]
    sides = ((14, "start"), (-14, "end"))
    tries += [(side, 4 + step * 15, anchor) for step in (-1, 1, -2, 2, -3, 3) for side, anchor in sides]
    for dx, dy, anchor in tries:
        left = x + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        own = Box(left, left + width, y + dy - 10, y + dy + 4)
        inside = own.left >= PLOT.left and own.right <= PLOT.right and own.top >= 0 and own.bottom <= PLOT.bottom
        if inside and not any(
            own.left < box.right and box.left < own.right and own.top < box.bottom and box.top < own.bottom
            for box in taken
        ):
            break
    return x + dx, y + dy, anchor, own


def points(
    label: str, series: Sequence[Series], x_axis: Axis, y_axis: Axis, *, front: Sequence[tuple[float, float]] = ()
) -> str:
    """A labelled dot for each series' first point, and a dotted stair through the values of `front`."""
    parts = [*y_axis_of(y_axis), *x_axis_of(x_axis)]
    placed = [(PLOT.x(x_axis.place(row.points[0][0])), PLOT.y(y_axis.place(row.points[0][1]))) for row in series]
    taken = [Box(x - 8, x + 8, y - 8, y + 8) for x, y in placed]
    steps_to = [(PLOT.x(x_axis.place(x)), PLOT.y(y_axis.place(y))) for x, y in front]
    if steps_to:
        stair = [f"M{steps_to[0][0]:.1f} {PLOT.top}"]
        stair += [f"V{y:.1f}H{after[0]:.1f}" for (_, y), after in itertools.pairwise(steps_to)]
        parts.append(f'<path d="{"".join(stair)}V{steps_to[-1][1]:.1f}H{PLOT.right}" class="front"/>')
        corners = [(steps_to[0][0], float(PLOT.top)), *steps_to, (PLOT.right, steps_to[-1][1])]
        for (x, y), (after_x, after_y) in itertools.pairwise(corners):
            taken += [Box(x - 2, x + 2, y, after_y), Box(x, after_x, after_y - 2, after_y + 2)]
    for row, (x, y) in zip(series, placed, strict=True):
        shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7"'
        if row.dashed:
            shape = f'<path d="M{x:.1f} {y - 8.5:.1f}l8.5 8.5l-8.5 8.5l-8.5 -8.5z"'
        parts.append(f'{shape} class="c{row.color}"><title>{escape(row.name)}</title></{shape[1:].split()[0]}>')
        label_x, label_y, anchor, own = _label_place(x, y, len(row.name) * CHARACTER_WIDTH, taken)
        taken.append(own)
        parts.append(text(label_x, label_y, row.name, "value", anchor))
    return frame(label, parts)


def legend(series: Sequence[Series]) -> str:
    """The names of the series beside their colours, as HTML."""
    items = "".join(
        f'<span><i class="{f"d{row.color} dashes" if row.dashed else f"b{row.color}"}"></i>{escape(row.name)}</span>'
        for row in series
    )
    return f'<div class="legend">{items}</div>'
