"""The joint choice of device and batch, readably. Called by reference.engine for one lane at a time.

The question is by when all that waits could be done if every device, free or busy, took its part; each free device then
gets what it can finish by that time. Arithmetic in the order of csrc/infcore/engine/schedule.cpp.
"""

import math
from dataclasses import dataclass
from typing import Any

from reference.batching import NEVER_NS, Pending, to_ns
from reference.lanes import Batch, Lane, Request, add_ns, larger


@dataclass
class Candidate:
    node: int
    free_in_s: float
    base_s: float
    slope_s: float  # a batch of n takes base_s + n * slope_s
    alone_s: float
    per_work_s: float  # one request of work w takes alone_s + per_work_s * w
    open: Batch | None  # that requests of this lane may still join
    takes: bool

    @property
    def joined(self) -> int:
        return self.open.shape[0] if self.open else 0

    def finish_s(self, n: int) -> float:
        return self.free_in_s + self.base_s + self.slope_s * n


def dispatch_from(engine: Any, now_ns: int, lane: Lane) -> bool:
    """Sends or joins one device's share at most; whether it did, so that it is asked again."""
    max_batch_size = engine.models[lane.model].max_batch_size
    candidates = gather(engine, now_ns, lane)
    if not any(c.takes for c in candidates):
        return False
    level_s = finish_of_all_s(candidates, len(lane.requests), max_batch_size)
    candidates.sort(key=lambda c: (c.finish_s(c.joined + 1), c.node))
    recheck_ns = NEVER_NS
    for c in candidates:
        if not c.takes:
            recheck_ns = min(recheck_ns, add_ns(add_ns(now_ns, to_ns(c.free_in_s)), 1))
            continue
        share = share_of(c, level_s, max_batch_size)
        if c is candidates[0]:
            share = max(share, c.joined + 1)
        if share > c.joined and serve(engine, now_ns, lane, c, candidates, min(share - c.joined, len(lane.requests))):
            return True
    if lane.bound is None:  # free devices were passed over for busy ones
        lane.timer_ns = min(lane.timer_ns, recheck_ns)
    return False


def share_of(c: Candidate, level_s: float, max_batch_size: int) -> int:
    """How many the device finishes by then in one batch, those already in it included."""
    room_s = level_s - c.free_in_s - c.base_s
    if c.slope_s > 0.0:
        fits = room_s / c.slope_s + 1e-6
    else:
        fits = max_batch_size if room_s >= -1e-12 else 0.0
    return int(min(max(fits, 0.0), max_batch_size))


def gather(engine: Any, now_ns: int, lane: Lane) -> list[Candidate]:
    holders = [node.id for node in engine.fleet if lane.model in node.models] if lane.bound is None else [lane.bound]
    mean = lane.work_mean()
    return [
        candidate(engine, now_ns, lane, id, mean)
        for id in holders
        if engine.fleet[id].state == "up" and engine.carries(id, lane.require)
    ]


def candidate(engine: Any, now_ns: int, lane: Lane, id: int, work_mean: float) -> Candidate:
    base, per_request, per_work, per_padded_work = engine.latency.at(lane.model, id).curve
    slope = per_request + (per_work + per_padded_work) * work_mean
    batch = open_batch(engine, lane, id)
    running = engine.batches[id]
    free_in_s, takes = 0.0, True
    if batch is None and len(running) >= engine.fleet[id].slots:
        takes = False
        # One that is overdue is expected to take as long again as it is late.
        ends = [max(b.expected_end_ns, 2 * now_ns - b.expected_end_ns) for b in running]
        free_in_s = (min(ends) - now_ns) * 1e-9
    return Candidate(id, free_in_s, base, slope, base + per_request, per_work + per_padded_work, batch, takes)


def open_batch(engine: Any, lane: Lane, id: int) -> Batch | None:
    """One of this lane that has room and whose members do not insist on running alone."""
    for batch in engine.batches[id]:
        if batch.open and batch.lane is lane and batch.shape[0] < engine.models[lane.model].max_batch_size:
            if not (batch.members and batch.members[0].solo):
                return batch
    return None


def finish_of_all_s(candidates: list[Candidate], n_requests: int, max_batch_size: int) -> float:
    """Seconds by which all could be done, each device running batch after batch."""
    low_s = min(c.finish_s(c.joined + 1) for c in candidates)
    if n_requests == 1:
        return low_s
    high_s = min(
        c.free_in_s
        + math.ceil((n_requests + c.joined) / max_batch_size) * c.base_s
        + c.slope_s * (n_requests + c.joined)
        for c in candidates
    )
    for _ in range(24):
        if not high_s - low_s > 1e-9:
            break
        middle_s = 0.5 * (low_s + high_s)
        if sum(finished_by(middle_s, c, n_requests, max_batch_size) for c in candidates) >= n_requests:
            high_s = middle_s
        else:
            low_s = middle_s
    return high_s


def finished_by(t_s: float, c: Candidate, n_requests: int, max_batch_size: int) -> float:
    """How many more requests the device has finished by then: whole full batches, and what a last one holds."""
    room_s = t_s - c.free_in_s
    if room_s <= 0.0:
        return 0.0
    full_s = c.base_s + c.slope_s * max_batch_size
    cycles = math.floor(room_s / full_s) if full_s > 0.0 else n_requests
    rest_s = room_s - cycles * full_s - c.base_s
    if rest_s < 0.0:
        rest = 0
    else:
        rest = math.floor(rest_s / c.slope_s + 1e-6) if c.slope_s > 0.0 else max_batch_size
    return max(0.0, cycles * max_batch_size + min(rest, max_batch_size) - c.joined)


def serve(engine: Any, now_ns: int, lane: Lane, c: Candidate, candidates: list[Candidate], n_share: int) -> bool:
    """Joins the device's open batch, or opens one unless the batching rule would rather wait. Did the lane change?"""
    n_before = len(lane.requests)
    latency = engine.latency.at(lane.model, c.node)
    batch = c.open
    if batch is None:
        n_share, wait_until_ns = engine.batching.close(now_ns, pending_of(engine, now_ns, lane, c, n_share), latency)
        if n_share == 0:
            lane.timer_ns = min(lane.timer_ns, wait_until_ns)
            return False
        engine.n_batches += 1
        batch = Batch(engine.n_batches, lane, lane.model, now_ns)
    fill(engine, now_ns, lane, c, candidates, batch, n_share)
    if c.open is None and batch.members:
        engine.batches[c.node].append(batch)
    batch.expected_end_ns = add_ns(now_ns, to_ns(latency.service_s(*batch.shape)))
    return len(lane.requests) < n_before


def pending_of(engine: Any, now_ns: int, lane: Lane, c: Candidate, n_share: int) -> Pending:
    mean = lane.work_mean()
    oldest_ns = min(r.arrival_ns for r in lane.requests)
    return Pending(
        n_requests=n_share,
        work_sum=mean * n_share,
        work_max=mean,
        earliest_deadline_ns=lane.next_deadline_ns(),
        held_since_ns=max(engine.free_since_ns[c.node], oldest_ns),
        arrivals_per_s=lane.arrivals_per_s(now_ns),
        max_batch_size=engine.models[lane.model].max_batch_size,
        delay_ns_max=engine.models[lane.model].batch_delay_ns_max,
    )


def too_late(now_ns: int, r: Request, candidates: list[Candidate]) -> bool:
    """No device could finish it in time even if it were free now."""
    return r.deadline_ns != NEVER_NS and all(
        add_ns(now_ns, to_ns(c.alone_s + c.per_work_s * r.work)) > r.deadline_ns for c in candidates
    )


def fill(
    engine: Any, now_ns: int, lane: Lane, c: Candidate, candidates: list[Candidate], batch: Batch, n_more: int
) -> None:
    """Moves the most urgent into the batch; those that are too late are shed on the way."""
    latency = engine.latency.at(lane.model, c.node)
    earliest_ns = min((r.deadline_ns for r in batch.members), default=NEVER_NS)
    n_wanted = batch.shape[0] + n_more
    while batch.shape[0] < n_wanted and lane.requests:
        r = lane.front(now_ns, engine.ageing_ns)
        if too_late(now_ns, r, candidates):
            engine.leave_lane(r)
            engine.end(now_ns, r, "shed", "deadline")
            continue
        if batch.members and (r.solo or batch.members[0].solo):
            return
        shape = larger(batch.shape, r.work)
        with_it_ns = min(earliest_ns, r.deadline_ns)
        would_be_late = with_it_ns != NEVER_NS and add_ns(now_ns, to_ns(latency.upper_s(*shape))) > with_it_ns
        if would_be_late and shape[0] > max(1, n_wanted // 2):
            return  # larger, it would make its most urgent member late; half of the batch is worth that, more is not
        engine.leave_lane(r)
        engine.unreserve(r)
        r.batch, r.node = batch, c.node
        r.attempts += 1
        engine.reserve(r, c.slope_s + (0.0 if batch.members else c.base_s))
        earliest_ns, batch.shape = with_it_ns, shape
        batch.members.append(r)
        engine.act(r, "dispatch", "none", batch.shape[0] - 1)
