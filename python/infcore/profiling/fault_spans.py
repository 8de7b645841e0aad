"""A run's fault events as spans of time: which node was at fault, how, from when until when."""

from collections.abc import Mapping, Sequence
from typing import Any

from infcore.profiling.report_style import FAULT_COLORS
from infcore.profiling.svg_time import Lane, Span

LANES_MAX = 12  # more nodes at fault than that: a lane for each kind instead
BANDS_MAX = 16  # more spans than that behind the curves would hide them
# Spans nearer to each other than this part of the run are one: they would be drawn on the same spot.
_GAP_PART = 1 / 1000
_KINDS = tuple(FAULT_COLORS)

Fault = tuple[str, str, float, float]  # node, kind, from_s, until_s


def faults_of(runs: Sequence[Mapping[str, Any]], end_s: float) -> list[Fault]:
    """The faults in order of time, cut to the run. They are the same under every policy; the bound has none."""
    events: list[Mapping[str, Any]] = max((run["faults"]["events"] for run in runs), key=len, default=[])
    open_at: dict[tuple[str, str], list[float]] = {}
    out: list[Fault] = []
    for event in sorted(events, key=lambda event: event["at_s"]):
        key = (event["node"], event["kind"])
        if event["begins"]:
            open_at.setdefault(key, []).append(event["at_s"])
        elif open_at.get(key):
            out.append((*key, open_at[key].pop(0), event["at_s"]))
    # What has no end lasts to the run's; an end without a beginning says nothing of its span.
    out += [(*key, at_s, end_s) for key, starts in open_at.items() for at_s in starts]
    cut = [(node, kind, from_s, min(until_s, end_s)) for node, kind, from_s, until_s in out if from_s < end_s]
    return sorted(cut, key=lambda fault: (fault[2], fault[0], fault[1]))


def color_of(kind: str) -> int:
    """The number of a kind's colour."""
    return _KINDS.index(kind) if kind in FAULT_COLORS else _KINDS.index("")


def kinds_of(faults: Sequence[Fault]) -> list[str]:
    """The kinds that occur, in the order of their colours."""
    return sorted({kind for _, kind, _, _ in faults}, key=lambda kind: (color_of(kind), kind))


def spans_of(faults: Sequence[Fault], end_s: float) -> list[Span]:
    """A span for each kind and stretch of time in which some node was so: what touches or overlaps is one."""
    out = []
    for kind in kinds_of(faults):
        stretches: list[list[float]] = []
        nodes: list[set[str]] = []
        for node, other, from_s, until_s in faults:
            if other != kind:
                continue
            if stretches and from_s <= stretches[-1][1] + end_s * _GAP_PART:
                stretches[-1][1] = max(stretches[-1][1], until_s)
                nodes[-1].add(node)
            else:
                stretches.append([from_s, until_s])
                nodes.append({node})
        for (from_s, until_s), who in zip(stretches, nodes, strict=True):
            name = next(iter(who)) if len(who) == 1 else f"{len(who)} nodes"
            out.append(Span(from_s, until_s, color_of(kind), f"{name}: {kind}, {from_s:.6g} s to {until_s:.6g} s"))
    return out


def lanes_of(faults: Sequence[Fault], end_s: float) -> list[Lane]:
    """A lane for each node that was at fault, in order of time; for each kind where those would be too many."""
    nodes = list(dict.fromkeys(node for node, _, _, _ in faults))
    if len(nodes) <= LANES_MAX:
        return [Lane(node, spans_of([fault for fault in faults if fault[0] == node], end_s)) for node in nodes]
    return [Lane(kind, spans_of([fault for fault in faults if fault[1] == kind], end_s)) for kind in kinds_of(faults)]


def bands_of(faults: Sequence[Fault], end_s: float) -> list[Span]:
    """What is drawn behind the curves: nothing where it would be nearly everywhere."""
    spans = spans_of(faults, end_s)
    return spans if len(spans) <= BANDS_MAX else []
