"""Packed or padded, whole or in groups of like length: chosen for each batch by what runs like it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from infcore._core.batching import LengthGroups
from infcore._core.latency import LatencyModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LayoutChoice", "LayoutFigures", "Plan"]

# Groups must be predicted to save at least this share: below it lies what the curves themselves are unsure of.
_GAIN_MIN = 0.05
# The other layout is looked at again, since a curve that is never measured again would be believed for ever: at most
# once in so many batches, and once what that is predicted to cost more is this share of the time spent since.
_LOOK_EVERY = 64
_LOOK_SHARE = 1 / 256
# More rows than any batch here has; beyond them the search for groups would take milliseconds.
_GROUPED_ROWS_MAX = 1024


class Plan(NamedTuple):
    """How one batch is to be run."""

    layout: str
    groups: list[list[int]] | None  # row indices, one group after the other; None: all rows at once, as they are
    predicted_s: float | None  # by this layout's curve; None: nothing is known of it yet
    reason: str  # "only" | "warm_up" | "explore" | "predicted" | "refresh"


class LayoutFigures(NamedTuple):
    """What has been done and learned of one layout."""

    n_batches: int
    n_grouped: int  # of those, run in more than one group
    n_explored: int  # of those, run to learn and not because they were predicted to be the fastest
    predicted_s: float | None  # of its last batch, before it ran
    measured_s: float | None  # of its last batch
    curve: tuple[float, float, float, float]  # base_s, per_request_s, per_work_s, per_padded_work_s
    n_observed: int


@dataclass(slots=True)
class _Layout:
    latency: LatencyModel = field(default_factory=LatencyModel)
    warm: bool = False
    whole_tries: dict[int, int] = field(default_factory=dict)  # size class -> batches run whole to learn
    split_tries: dict[int, int] = field(default_factory=dict)
    n_batches: int = 0
    n_grouped: int = 0
    n_explored: int = 0
    predicted_s: float | None = None
    measured_s: float | None = None


class LayoutChoice:
    """Chooses layout and groups of each batch of one model on one device, and learns from what they took.

    layouts   those that the model takes; the first is taken where nothing is known
    grouping  whether a batch may be run in several groups

    One latency model for each layout predicts whole batches and groups; the plan with the least predicted seconds wins.
    What is not known is tried, by a fixed plan that no clock and no chance has a part in. The first run of a layout
    warms it up: it is not learned from, since it pays for what is loaded or compiled once. Then in each class of batch
    sizes (1, 2 to 3, 4 to 7, ...) each layout runs one batch whole and, where rows differ in work, one split by halves
    (the shortest half, the next quarter, ... the longest row). Batches of one shape cannot tell the four terms of a
    curve apart; those runs differ in every feature, so that the curve holds for sizes that have not come yet. Without
    a split there are two whole batches. So exploring ends: after at most 3 batches a layout and class, and one.
    Afterwards the other layout is looked at now and then, for less than 1/256 of the time. Where there is nothing to
    choose (one layout, and no groups or rows all alike), nothing is tried.
    One thread at a time; figures() may be called from another. Cost: some 10 us a plan, most of it NumPy's.
    """

    def __init__(self, layouts: Sequence[str], *, grouping: bool = True) -> None:
        self.layouts = tuple(layouts)
        self.grouping = grouping
        self._of = {layout: _Layout() for layout in self.layouts}
        self._groups = LengthGroups(_GROUPED_ROWS_MAX)
        self._n_since = 0  # batches and their seconds since the other layout was last looked at
        self._spent_s = 0.0

    def plan(self, works: NDArray[np.float64]) -> Plan:
        """How to run a batch of rows with these works (n,), n >= 1, finite and >= 0."""
        self._n_since += 1
        splits = self.grouping and 1 < len(works) <= _GROUPED_ROWS_MAX and works.min() < works.max()
        if len(self.layouts) == 1 and not splits:
            plan = Plan(self.layouts[0], None, self._whole_s(self.layouts[0], works), "only")
        else:
            plan = self._try(works, splits) or self._best(works, splits)
        used = self._of[plan.layout]
        used.n_batches += 1
        used.n_grouped += plan.groups is not None
        used.n_explored += plan.reason not in ("only", "predicted")
        used.predicted_s = plan.predicted_s
        return plan

    def learn(self, plan: Plan, works: Sequence[NDArray[np.float64]], seconds: Sequence[float]) -> None:
        """What a plan took: the works of each group that ran (one of all rows where it has no groups), its seconds."""
        used = self._of[plan.layout]
        used.measured_s = sum(seconds)
        self._spent_s += used.measured_s
        if plan.reason != "warm_up":
            for group, seconds_of_it in zip(works, seconds, strict=True):
                used.latency.observe(len(group), float(group.sum()), float(group.max()), seconds_of_it)

    def figures(self) -> dict[str, LayoutFigures]:
        """What has been done and learned so far, by layout."""
        return {
            layout: LayoutFigures(
                of.n_batches,
                of.n_grouped,
                of.n_explored,
                of.predicted_s,
                of.measured_s,
                of.latency.curve,
                of.latency.n_observed,
            )
            for layout, of in self._of.items()
        }

    def _try(self, works: NDArray[np.float64], splits: bool) -> Plan | None:
        """What is to be learned from this batch, if anything."""
        size_class = len(works).bit_length()
        for layout, of in self._of.items():
            if not of.warm:
                of.warm = True
                return Plan(layout, None, None, "warm_up")
        for whole_wanted in (1,) if splits else (1, 2):
            for layout, of in self._of.items():
                if of.whole_tries.get(size_class, 0) < whole_wanted:
                    of.whole_tries[size_class] = whole_wanted
                    return Plan(layout, None, self._whole_s(layout, works), "explore")
        for layout, of in self._of.items() if splits else ():
            if size_class not in of.split_tries:
                of.split_tries[size_class] = 1
                return Plan(layout, _halves(works), self._whole_s(layout, works), "explore")
        return None

    def _best(self, works: NDArray[np.float64], splits: bool) -> Plan:
        """The plan with the least predicted seconds, or the other layout's where that is due to be looked at."""
        known = [layout for layout, of in self._of.items() if of.latency.n_observed]
        plans = sorted((self._planned(layout, works, splits) for layout in known), key=lambda plan: plan[0])
        if not plans:
            return Plan(self.layouts[0], None, None, "only")
        best_s, best = plans[0]
        if len(plans) > 1 and self._n_since >= _LOOK_EVERY and plans[1][0] - best_s <= _LOOK_SHARE * self._spent_s:
            self._n_since, self._spent_s = 0, 0.0
            return plans[1][1]._replace(reason="refresh")
        return best

    def _planned(self, layout: str, works: NDArray[np.float64], splits: bool) -> tuple[float, Plan]:
        latency = self._of[layout].latency
        whole_s = latency.service_s(len(works), float(works.sum()), float(works.max()))
        if splits:
            groups, seconds = self._groups.split(works, latency)
            if len(groups) > 1 and seconds <= (1.0 - _GAIN_MIN) * whole_s:
                return seconds, Plan(layout, groups, seconds, "predicted")
        return whole_s, Plan(layout, None, whole_s, "predicted")

    def _whole_s(self, layout: str, works: NDArray[np.float64]) -> float | None:
        latency = self._of[layout].latency
        if not latency.n_observed:
            return None
        return latency.service_s(len(works), float(works.sum()), float(works.max()))


def _halves(works: NDArray[np.float64]) -> list[list[int]]:
    """The shortest half of the rows, half of what is left, and so on; at last the longest alone."""
    order = np.argsort(works, kind="stable").tolist()
    groups = []
    while order:
        n = (len(order) + 1) // 2
        groups.append(order[:n])
        order = order[n:]
    return groups
