"""Who is in a batch where deadlines are in danger, readably: the first batch of a plan over the queue.

`latency` is infcore's own model of the pair; shapes are (n, sum of work, largest work). The compiled rule must decide
the same: sums are taken in the same order, so that the same doubles are compared.
"""

from dataclasses import dataclass
from typing import Any

PRICE_OF_TIME = 0.5
SPREADS_LATE = 1.5
BATCHES_AHEAD = 4
LAYERS = 5
N_LEARNED = 4
CAPACITY_ALONE = 1.01
TIME_UNIT_S = 1e-9
FOREVER_S = 1.7976931348623157e308

Shape = tuple[int, float, float]


@dataclass
class Waiting:
    """One that waits, as select() is shown it."""

    deadline_ns: int
    work: float
    tier: int
    aged: bool
    tenant: int = 0


@dataclass
class Traffic:
    n_waiting: int
    max_batch_size: int
    arrivals_per_s: float
    capacity_per_s: float
    share: float = 1.0  # of the device's time, for this lane


@dataclass
class Started:
    """What more urgent ones have put into the first batch."""

    room: int
    shape: Shape = (0, 0.0, 0.0)
    limit_s: float = FOREVER_S

    def add(self, now_ns: int, w: Waiting) -> None:
        n, work_sum, work_max = self.shape
        self.shape = (n + 1, work_sum + w.work, max(work_max, w.work))
        self.room -= 1
        self.limit_s = min(self.limit_s, seconds(w.deadline_ns - now_ns))


@dataclass
class Label:
    """The best way to have passed so many of the queue in so many batches."""

    value: float
    start_s: float  # of the next batch
    first: tuple[int, int]  # of the first batch: left out before it, taken


def seconds(ns: int) -> float:
    return ns * 1e-9


def select_by_plan(now_ns: int, waiting: list[Waiting], n_max: int, traffic: Traffic, latency: Any) -> list[str]:
    """Class after class of urgency; a less urgent one fills what is left of the batch."""
    verdicts = ["leave"] * len(waiting)
    if not latency.has_prior and latency.n_observed < N_LEARNED:  # learn first
        n = min(len(waiting), n_max, traffic.max_batch_size)
        return ["take"] * n + verdicts[n:]
    peak = _peak_per_s(waiting, traffic, latency)
    batch = Started(room=min(n_max, traffic.max_batch_size))
    next_start = peak / (max(traffic.capacity_per_s, peak) * traffic.share)
    for begin, end in _classes(waiting):
        if batch.room == 0:
            break
        price = _price_of_second(now_ns, waiting, begin, end, traffic, peak)
        members = waiting[begin : min(end, begin + BATCHES_AHEAD * traffic.max_batch_size)]
        plan = Plan(now_ns, members, latency, traffic.max_batch_size, next_start)
        n_skipped, n_taken = plan.first(batch, price)
        for i in range(begin + n_skipped, begin + n_skipped + n_taken):
            verdicts[i] = "take"
            batch.add(now_ns, waiting[i])
        if batch.shape[0] > 0 and begin + n_skipped + n_taken < end:
            break
    if batch.shape[0] == 0:
        verdicts[0] = "take"
    elif traffic.capacity_per_s <= CAPACITY_ALONE * peak:
        next_s = latency.service_s(*batch.shape)
        for i, w in enumerate(waiting):
            alone_s = latency.service_s(1, w.work, w.work) * (1.0 + SPREADS_LATE * latency.spread)
            if verdicts[i] == "leave" and seconds(w.deadline_ns - now_ns) < next_s + alone_s:
                verdicts[i] = "drop"
    return verdicts


def _classes(waiting: list[Waiting]) -> list[tuple[int, int]]:
    """Aged ones, then tier by tier, and in a tier tenant by tenant, as they stand: [begin, end)."""
    keys = [(w.aged, None if w.aged else (w.tier, w.tenant)) for w in waiting]
    starts = [i for i in range(len(keys)) if i == 0 or keys[i] != keys[i - 1]]
    return list(zip(starts, [*starts[1:], len(keys)], strict=True))


def _peak_per_s(waiting: list[Waiting], traffic: Traffic, latency: Any) -> float:
    """Requests a second that the device serves in full batches of the mean work."""
    work_sum = 0.0
    for w in waiting:
        work_sum += w.work
    n, mean = traffic.max_batch_size, work_sum / len(waiting)
    return n / latency.service_s(n, n * mean, mean)


def _price_of_second(now_ns: int, waiting: list[Waiting], begin: int, end: int, traffic: Traffic, peak: float) -> float:
    """Half of what full batches would serve, less what the load leaves idle; all of it where the queue needs twice the
    time that is left. For a class and those more urgent: as if they were alone here."""
    last_ns = max([now_ns, *(w.deadline_ns for w in waiting[begin:end])])
    per_s = (end / len(waiting)) / (max(traffic.capacity_per_s, peak) * traffic.share)
    load = min(1.0, traffic.arrivals_per_s * per_s)
    left_s = seconds(last_ns - now_ns) + TIME_UNIT_S
    crowded = min(max(traffic.n_waiting * per_s / left_s - 1.0, 0.0), 1.0)
    return peak * (PRICE_OF_TIME * load * (1.0 - crowded) + crowded)


class Plan:
    """Batches of one class, in order, some left out: requests in time, less the price of the device's seconds."""

    def __init__(self, now_ns: int, waiting: list[Waiting], latency: Any, n_cap: int, next_start: float) -> None:
        self.latency, self.n_cap, self.next_start = latency, n_cap, next_start
        self.deadlines_s = [seconds(w.deadline_ns - now_ns) for w in waiting]
        self.works = [w.work for w in waiting]
        self.work_before = [0.0]
        for work in self.works:
            self.work_before.append(self.work_before[-1] + work)
        self.work_mean = self.work_before[-1] / len(waiting)

    def first(self, started: Started, price: float) -> tuple[int, int]:
        """(left out before it, taken) of the first batch: of who is safe from a slow device, else by the mean."""
        late_factor = 1.0 + SPREADS_LATE * self.latency.spread
        safe = self._best(started, price, late_factor)
        if safe is not None:
            return self._with_lucky(started, safe, late_factor)
        return self._best(started, price, 1.0) or (0, 0)

    def _best(self, started: Started, price: float, late_factor: float) -> tuple[int, int] | None:
        labels = {0: Label(0.0, 0.0, (0, 0))}
        best: Label | None = None
        for layer in range(LAYERS):
            labels = self._extend(labels, started if layer == 0 else None, price, late_factor)
            for i in sorted(labels):
                if best is None or labels[i].value > best.value:
                    best = labels[i]
        return best.first if best else None

    def _extend(
        self, labels: dict[int, Label], started: Started | None, price: float, late_factor: float
    ) -> dict[int, Label]:
        """One batch more from every place reached, each as large as its earliest deadline allows."""
        begun = started or Started(room=self.n_cap)
        reached: dict[int, Label] = {}
        for i in range(len(self.works) + 1):
            if i not in labels:
                continue
            label = labels[i]
            if i < len(self.works) and (i + 1 not in labels or label.value > labels[i + 1].value):
                labels[i + 1] = label  # this one is left out
            end = self._last_in_time(i, label, begun, late_factor)
            sent = self._joined(begun, i, end)
            if sent[0] == 0:
                continue
            cost = price * self.latency.service_s(sent[0], sent[0] * self.work_mean, self.work_mean)
            value = label.value + (end - i) - cost
            if end not in reached or value > reached[end].value:
                start_s = label.start_s + self.latency.service_s(*sent) * self.next_start
                reached[end] = Label(value, start_s, (i, end - i) if started else label.first)
        return reached

    def _last_in_time(self, i: int, label: Label, begun: Started, late_factor: float) -> int:
        end = i
        while end < min(len(self.works), i + begun.room):
            seconds_late = self.latency.service_s(*self._joined(begun, i, end + 1)) * late_factor
            if label.start_s + seconds_late > min(begun.limit_s, min(self.deadlines_s[i : end + 1])):
                break
            end += 1
        return end

    def _joined(self, started: Started, begin: int, end: int) -> Shape:
        n, work_sum, work_max = started.shape
        if begin == end:
            return started.shape
        more = self.work_before[end] - self.work_before[begin]
        return n + (end - begin), work_sum + more, max(work_max, *self.works[begin:end])

    def _with_lucky(self, started: Started, safe: tuple[int, int], late_factor: float) -> tuple[int, int]:
        """With those before it whom the mean lets be in time, as far as they endanger nobody."""
        begin, end = safe[0], safe[0] + safe[1]
        limit_s = min([started.limit_s, *self.deadlines_s[begin:end]])
        while begin > 0 and end - begin < started.room:
            larger_s = self.latency.service_s(*self._joined(started, begin - 1, end))
            if larger_s * late_factor > limit_s or larger_s > self.deadlines_s[begin - 1]:
                break
            begin -= 1
        return begin, end - begin
