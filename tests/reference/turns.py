"""Which of several queues for one device comes first where not all that wait can be in time, readably.

Each is tried as the first, and what happens then is played through, by earliest deadline and by first come, first
served. For reference.engine.
"""

from dataclasses import dataclass
from typing import Any

from reference.batching import to_ns
from reference.joint import gather
from reference.lanes import Lane, add_ns

N_QUEUES_MAX = 8
N_WAITING_MAX = 256  # of a queue


@dataclass
class Queue:
    curve: Any
    work_mean: float
    max_batch_size: int
    waiting: list[tuple[int, int]]  # deadline, arrival; by deadline

    def run_ns(self, n: int) -> int:
        base, per_request, per_work, per_padded = self.curve
        work_sum = self.work_mean * n
        return to_ns(base + per_request * n + per_work * work_sum + per_padded * (n * self.work_mean))


def best(queues: list[Queue], now_ns: int) -> int:
    """The first to serve. 0 where that loses nobody, and among equals the lowest."""
    first, most = 0, n_in_time(queues, now_ns, 0, by_deadline=True)
    if most == sum(len(q.waiting) for q in queues):
        return 0
    for by_deadline in (True, False):
        for i in range(len(queues)):
            n = n_in_time(queues, now_ns, i, by_deadline)
            if n > most:
                first, most = i, n
    return first


def n_in_time(queues: list[Queue], now_ns: int, first: int, by_deadline: bool) -> int:
    left = [list(q.waiting) for q in queues]
    n, now_ns = serve(queues[first], left[first], now_ns)
    while True:
        for q, waiting in zip(queues, left, strict=True):
            drop_late(q, waiting, now_ns)
        waits = [i for i, waiting in enumerate(left) if waiting]
        if not waits:
            return n
        i = min(waits, key=lambda i: (left[i][0][0 if by_deadline else 1], i))
        more, now_ns = serve(queues[i], left[i], now_ns)
        n += more


def drop_late(q: Queue, waiting: list[tuple[int, int]], now_ns: int) -> None:
    while waiting and waiting[0][0] < add_ns(now_ns, q.run_ns(1)):
        del waiting[0]


def serve(q: Queue, waiting: list[tuple[int, int]], now_ns: int) -> tuple[int, int]:
    """One batch: all that it can hold, or as many as the first of them is in time with, whichever brings more in the
    time. Who of them is in time, and when it ends."""
    drop_late(q, waiting, now_ns)
    if not waiting:
        return 0, now_ns
    n_all = min(len(waiting), q.max_batch_size)
    end_ns = add_ns(now_ns, q.run_ns(n_all))
    n_in_all = sum(deadline_ns >= end_ns for deadline_ns, _ in waiting[:n_all])
    n_few = max(n for n in range(1, n_all + 1) if add_ns(now_ns, q.run_ns(n)) <= waiting[0][0])
    takes_all = n_few == n_all or n_in_all * (q.run_ns(n_few) * 1e-9) >= n_few * (q.run_ns(n_all) * 1e-9)
    n = n_all if takes_all else n_few
    del waiting[:n]
    return n_in_all if takes_all else n_few, add_ns(now_ns, q.run_ns(n))


def only_device(engine: Any, now_ns: int, lane: Lane) -> int | None:
    """The device that alone may serve the lane, if it has a free slot."""
    may = [lane.bound] if lane.bound is not None else [c.node for c in gather(engine, now_ns, lane)]
    return may[0] if len(may) == 1 and engine.has_free(may[0]) else None


def give_turn(engine: Any, now_ns: int, in_order: list[Lane]) -> list[Lane]:
    """The lanes in the order of service, but first of all the one that should have the device of the first."""
    if len(in_order) < 2:
        return in_order
    node = only_device(engine, now_ns, in_order[0])
    if node is None:
        return in_order

    def standing(lane: Lane) -> tuple[bool, int]:
        r = lane.front(now_ns, engine.ageing_ns)
        return now_ns - r.arrival_ns >= engine.ageing_ns, r.tier

    head_stands = standing(in_order[0])
    competing: list[Lane] = []
    end_ns, in_danger = now_ns, False
    for lane in in_order:
        if len(competing) == N_QUEUES_MAX or standing(lane) != head_stands:
            break
        if only_device(engine, now_ns, lane) != node:
            continue
        latency, model = engine.latency.at(lane.model, node), engine.models[lane.model]
        trusted = latency.has_prior or latency.n_observed >= 4
        if not trusted or model.runs_share or any(other.model == lane.model for other in competing):
            return in_order
        competing.append(lane)
        n, mean = min(len(lane.requests), model.max_batch_size), lane.work_mean()
        end_ns = add_ns(end_ns, to_ns(latency.upper_s(n, mean * n, mean)))
        in_danger = in_danger or end_ns > lane.next_deadline_ns()
    if len(competing) < 2 or not in_danger:
        return in_order
    queues = []
    for lane in competing:
        shown = lane.in_order(now_ns, engine.ageing_ns)[:N_WAITING_MAX]
        waiting = sorted(((r.deadline_ns, r.arrival_ns) for r in shown), key=lambda w: w[0])
        curve = engine.latency.at(lane.model, node).curve
        queues.append(Queue(curve, lane.work_mean(), engine.models[lane.model].max_batch_size, waiting))
    first = competing[best(queues, now_ns)]
    return [first, *(lane for lane in in_order if lane is not first)]
