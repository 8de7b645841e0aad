"""Admission policies, readably: may a request enter, and in which form? The compiled ones must decide the same.

A policy is asked with what csrc/infcore/queue/admission_policy.hpp calls an Arrival; times are int nanoseconds,
durations float seconds.
"""

from dataclasses import dataclass, field
from math import inf

from reference.batching import NEVER_NS, to_ns

RETRY_AFTER_S_MIN = 1e-3
Verdict = tuple[str, int, float]  # what becomes of it, until when it is put off, when to try again
ADMIT: Verdict = ("admit", 0, 0.0)


@dataclass
class Arrival:
    now_ns: int = 0
    deadline_ns: int | None = None
    defer_ns: int = 0  # the longest that it may be put off
    model: int = 0
    tier: int = 0
    has_stale: bool = False  # an answer from before would do, and is there
    n_open: int = 0  # of its model
    best_s: float = -1.0  # the least any device would need; < 0: not certain, or in time
    wait_s: float = 0.0  # until what came before it is served
    goal_s: float = 0.0  # a wait that counts as overload; 0: nothing is known of the devices
    capacity_per_s: float = 0.0
    fallback_per_s: float = 0.0  # 0: no fallback that serves
    fallback_wait_s: float = 0.0
    first_tier: int = 0  # the most urgent tier that holds anything
    last_tier: int = 0  # the least urgent one that has something waiting

    def overloaded(self) -> bool:
        return self.goal_s > 0.0 and self.wait_s >= self.goal_s

    def half_goal_left_s(self) -> float:
        """When half of the wait that counts as overload will be left."""
        return max(self.wait_s - 0.5 * self.goal_s, RETRY_AFTER_S_MIN)


class Policy:
    def admit(self, a: Arrival) -> Verdict:
        return ADMIT

    def answered(self, model: int, n_open: int, max_batch_size: int, latency_s: float, service_s: float) -> None:
        pass

    def batch_delay_ns(self, configured_ns: int) -> int:
        return configured_ns

    def limit(self, model: int) -> float:
        return inf


class Infeasible(Policy):
    def admit(self, a: Arrival) -> Verdict:
        if a.deadline_ns is None or a.best_s < 0.0:
            return ADMIT
        in_time = min(a.now_ns + to_ns(a.best_s), NEVER_NS) <= a.deadline_ns
        return ADMIT if in_time else ("infeasible", 0, a.best_s)


class ShorterWait(Policy):
    def batch_delay_ns(self, configured_ns: int) -> int:
        return 0


class Stale(Policy):
    def admit(self, a: Arrival) -> Verdict:
        return ("stale", 0, 0.0) if a.has_stale else ADMIT


class Cheaper(Policy):
    def admit(self, a: Arrival) -> Verdict:
        helps = a.fallback_per_s > a.capacity_per_s or a.fallback_wait_s < a.wait_s
        return ("cheaper", 0, 0.0) if a.fallback_per_s > 0.0 and helps else ADMIT


class OffPeak(Policy):
    def admit(self, a: Arrival) -> Verdict:
        if a.defer_ns <= 0:
            return ADMIT
        until_ns = min(a.now_ns + a.defer_ns, NEVER_NS)
        if a.deadline_ns is not None:  # it keeps the time that it needs
            until_ns = min(until_ns, a.deadline_ns - to_ns(a.goal_s))
        return ("defer", until_ns, 0.0) if until_ns > a.now_ns else ADMIT


class ShedLast(Policy):
    def admit(self, a: Arrival) -> Verdict:
        if not a.overloaded():
            return ADMIT
        if a.tier < a.last_tier:
            return ("displace", 0, 0.0)  # somebody less urgent waits
        if a.tier == a.first_tier:
            return ADMIT  # all are alike
        return ("refuse", 0, a.half_goal_left_s())


class Refuse(Policy):
    def admit(self, a: Arrival) -> Verdict:
        return ("refuse", 0, a.half_goal_left_s()) if a.overloaded() else ADMIT


@dataclass
class Window:
    """What a model's answers since its last step add up to."""

    wanted: int
    latency_s: float = 0.0
    service_s: float = 0.0
    n_open: float = 0.0
    n_open_max: int = 0
    n: int = 0


@dataclass
class Gradient(Policy):
    """As many open as run, as much again as gathers for the next batch, and one or an eighth that waits."""

    limits: dict[int, float] = field(default_factory=dict)
    windows: dict[int, Window] = field(default_factory=dict)

    def limit(self, model: int) -> float:
        return self.limits.get(model, inf)

    def admit(self, a: Arrival) -> Verdict:
        if a.n_open < self.limit(a.model):
            return ADMIT
        over = a.n_open - self.limit(a.model) + 1.0
        after_s = over / a.capacity_per_s if a.capacity_per_s > 0.0 else 0.0
        return ("refuse", 0, max(after_s, RETRY_AFTER_S_MIN))

    def answered(self, model: int, n_open: int, max_batch_size: int, latency_s: float, service_s: float) -> None:
        w = self.windows.setdefault(model, Window(16))
        w.latency_s += latency_s
        w.service_s += service_s
        w.n_open += n_open
        w.n_open_max = max(w.n_open_max, n_open)
        w.n += 1
        if w.n < w.wanted:
            return
        self.limits[model] = self.next_limit(self.limit(model), w, max_batch_size)
        self.windows[model] = Window(max(16, n_open))

    @staticmethod
    def next_limit(limit: float, w: Window, max_batch_size: int) -> float:
        tolerance = max(1.5, 2.0 - 1.0 / max_batch_size)
        gradient = tolerance * w.service_s / w.latency_s if w.latency_s > 0.0 else 1.0
        was = min(limit, float(w.n_open_max))
        room = max(1.0, 0.125 * was)
        if gradient >= 1.0:  # nobody waits to speak of: more, if what there is was used
            return limit if w.n_open_max < 0.5 * limit else limit + 0.5 * room
        target = max(gradient, 0.5) * (w.n_open / w.n) + room
        return max(2.0 * max_batch_size - 1.0, was + 0.5 * (target - was))  # one slot has use for as many


class Ladder:
    """How many steps are in force: one up after a period of overload, one down after a calm one."""

    PERIOD_NS = 50_000_000

    def __init__(self) -> None:
        self.rung, self.begin_ns = 0, 0
        self.loads: list[float] = []
        self.n_refused, self.capacity_per_s = 0, 0.0

    def arrived(self, now_ns: int, load: float, capacity_per_s: float, n_rungs: int) -> int:
        self.settle(now_ns, n_rungs)
        self.loads.append(load)
        self.capacity_per_s = capacity_per_s
        return self.rung

    def refused(self) -> None:
        self.n_refused += 1

    def settle(self, now_ns: int, n_rungs: int) -> int:
        while now_ns - self.begin_ns >= self.PERIOD_NS:  # period by period
            self.begin_ns += self.PERIOD_NS
            n = len(self.loads)
            offered = n / (self.PERIOD_NS * 1e-9)
            if n and (min(self.loads) >= 1.0 or 10 * self.n_refused >= n):
                self.rung = min(self.rung + 1, n_rungs)
            elif not n or (min(self.loads) <= 0.5 and not self.n_refused and offered <= 0.9 * self.capacity_per_s):
                self.rung = max(self.rung - 1, 0)
            self.loads, self.n_refused = [], 0
        return self.rung


def policy(name: str) -> Policy:
    """The model of the registry's row `name`."""
    rows: dict[str, type[Policy]] = {
        "infeasible": Infeasible,
        "shorter_wait": ShorterWait,
        "stale": Stale,
        "cheaper": Cheaper,
        "off_peak": OffPeak,
        "shed_last": ShedLast,
        "refuse": Refuse,
        "gradient": Gradient,
    }
    return rows[name]()
