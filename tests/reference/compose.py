"""What goes into a batch, readably. Called by reference.joint once a device and its share are chosen.

In the order of service as long as everybody is in time; where deadlines are in danger, the batching rule selects.
"""

from typing import Any

from reference.batching import NEVER_NS, Pending, Traffic, Waiting, to_ns
from reference.lanes import Batch, Lane, Request, add_ns, larger

N_SHOWN_MAX = 256
CAPACITY_NS = 10_000_000  # how long a lane's capacity is believed


def open_batch(engine: Any, lane: Lane, id: int) -> Batch | None:
    """One of this lane that has room and whose members do not insist on running alone."""
    for batch in engine.batches[id]:
        if batch.open and batch.lane is lane and batch.shape[0] < engine.models[lane.model].max_batch_size:
            if not (batch.members and batch.members[0].solo):
                return batch
    return None


def serve(engine: Any, now_ns: int, lane: Lane, c: Any, candidates: list[Any], n_share: int) -> str:
    """Joins the device's open batch, or opens one unless the batching rule would rather wait for more to come. It may
    not wait where more is there already and others do it sooner."""
    n_before = len(lane.requests)
    latency = engine.latency.at(lane.model, c.node)
    if c.open is not None:
        fill(engine, now_ns, lane, c, candidates, c.open, n_share)
        c.open.expected_end_ns = add_ns(now_ns, to_ns(latency.service_s(*c.open.shape)))
        return "sent" if len(lane.requests) < n_before else "refused"
    pending = pending_of(engine, now_ns, lane, c, n_share)
    n, wait_until_ns = engine.batching.close(now_ns, pending, latency)
    if n == 0 and n_share < n_before and lane.bound is None:
        n = n_share
    if n == 0:
        lane.timer_ns = min(lane.timer_ns, wait_until_ns)
        return "held"
    engine.n_batches += 1
    batch = Batch(engine.n_batches, lane, lane.model, now_ns)
    if in_danger(now_ns, lane, latency, n):
        choose(engine, now_ns, lane, c, candidates, batch, n)
    else:
        fill(engine, now_ns, lane, c, candidates, batch, n)
    if batch.members:
        engine.batches[c.node].append(batch)
    batch.expected_end_ns = add_ns(now_ns, to_ns(latency.service_s(*batch.shape)))
    return "sent" if len(lane.requests) < n_before else "held"


def pending_of(engine: Any, now_ns: int, lane: Lane, c: Any, n_share: int) -> Pending:
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


def in_danger(now_ns: int, lane: Lane, latency: Any, n: int) -> bool:
    """Somebody might be late, going by the mean work and the earliest deadline of all that wait."""
    mean, earliest_ns = lane.work_mean(), lane.next_deadline_ns()
    return earliest_ns != NEVER_NS and ends_ns(now_ns, latency, (n, mean * n, mean)) > earliest_ns


def ends_ns(now_ns: int, latency: Any, shape: tuple[int, float, float]) -> int:
    return add_ns(now_ns, to_ns(latency.upper_s(*shape)))


def late_on(now_ns: int, r: Request, c: Any) -> bool:
    return r.deadline_ns != NEVER_NS and add_ns(now_ns, to_ns(c.alone_s(r.work))) > r.deadline_ns


def too_late(now_ns: int, r: Request, candidates: list[Any]) -> bool:
    """No device could finish it in time even if it were free now."""
    return all(late_on(now_ns, r, c) for c in candidates)


def fill(
    engine: Any, now_ns: int, lane: Lane, c: Any, candidates: list[Any], batch: Batch, n_more: int
) -> None:
    """Moves the most urgent into the batch; those that are too late are shed on the way. Nobody who is in time without
    one more is made late by it, itself included."""
    latency = engine.latency.at(lane.model, c.node)
    slope_s = slope_of(latency, lane)
    n_wanted = batch.shape[0] + n_more
    in_time = [r for r in batch.members if r.deadline_ns >= ends_ns(now_ns, latency, batch.shape)]
    while batch.shape[0] < n_wanted and lane.requests:
        r = lane.front(now_ns, engine.ageing_ns)
        if too_late(now_ns, r, candidates):
            engine.leave_lane(r)
            engine.end(now_ns, r, "shed", "deadline")
            continue
        if batch.members and (r.solo or batch.members[0].solo or r.seq < batch.joins_from_seq):
            return
        with_it_ns = ends_ns(now_ns, latency, larger(batch.shape, r.work))
        if any(with_it_ns > other.deadline_ns for other in in_time):
            return
        if with_it_ns <= r.deadline_ns:
            in_time.append(r)
        elif batch.members and ends_ns(now_ns, latency, (1, r.work, r.work)) <= r.deadline_ns:
            return
        take(engine, lane, r, c, batch, latency, slope_s)


def slope_of(latency: Any, lane: Lane) -> float:
    _, per_request, per_work, per_padded_work = latency.curve
    return per_request + (per_work + per_padded_work) * lane.work_mean()


def take(engine: Any, lane: Lane, r: Request, c: Any, batch: Batch, latency: Any, slope_s: float) -> None:
    engine.leave_lane(r)
    engine.unreserve(r)
    r.batch, r.node = batch, c.node
    r.attempts += 1
    engine.reserve(r, slope_s + (0.0 if batch.members else latency.curve[0]))
    batch.shape = larger(batch.shape, r.work)
    batch.members.append(r)
    engine.act(r, "dispatch", "none", batch.shape[0] - 1)


def choose(
    engine: Any, now_ns: int, lane: Lane, c: Any, candidates: list[Any], batch: Batch, n_max: int
) -> None:
    """Those who come first, if they are in time together after all, else whom the rule selects of the first that this
    device can do in time. Those that no device can are shed, those that another one can wait."""
    shown = show(engine, now_ns, lane, c, candidates)
    latency = engine.latency.at(lane.model, c.node)
    if not shown:
        return
    first = shown[: min(n_max, len(shown))]
    shape = (0, 0.0, 0.0)
    for r in first:
        shape = larger(shape, r.work)
    if ends_ns(now_ns, latency, shape) <= min(r.deadline_ns for r in first):
        verdicts = ["take"] * len(first)
    else:
        waiting = [
            Waiting(r.deadline_ns, r.work, r.tier, now_ns - r.arrival_ns >= engine.ageing_ns) for r in shown
        ]
        traffic = Traffic(
            n_waiting=len(lane.requests),
            max_batch_size=engine.models[lane.model].max_batch_size,
            arrivals_per_s=lane.arrivals_per_s(now_ns),
            capacity_per_s=capacity_per_s(engine, now_ns, lane, candidates),
        )
        verdicts = engine.batching.select(now_ns, waiting, len(first), traffic, latency)
        batch.joins_from_seq = engine.n_arrived
    slope_s = slope_of(latency, lane)
    for r, verdict in zip(shown, verdicts, strict=False):
        if verdict == "take" and batch.shape[0] < len(first):
            take(engine, lane, r, c, batch, latency, slope_s)
        elif verdict == "drop":
            engine.leave_lane(r)
            engine.end(now_ns, r, "shed", "early_drop")


def show(engine: Any, now_ns: int, lane: Lane, c: Any, candidates: list[Any]) -> list[Request]:
    shown: list[Request] = []
    late_here = []
    for r in lane.in_order(now_ns, engine.ageing_ns)[:N_SHOWN_MAX]:
        if late_on(now_ns, r, c):
            late_here.append(r)
        elif not r.solo:
            shown.append(r)
        elif not shown:  # it runs alone
            shown = [r]
            break
    for r in late_here:
        if too_late(now_ns, r, candidates):
            engine.leave_lane(r)
            engine.end(now_ns, r, "shed", "deadline")
    return shown


def capacity_per_s(engine: Any, now_ns: int, lane: Lane, candidates: list[Any]) -> float:
    """Requests that the lane's devices could serve, each in full batches and for it alone."""
    until_ns, per_s = lane.capacity
    if now_ns >= until_ns:
        n = engine.models[lane.model].max_batch_size
        per_s = 0.0
        for c in candidates:
            per_s += float(c.full_batches_per_s(n, lane.work_mean(), engine.fleet[c.node].slots))
        lane.capacity = (add_ns(now_ns, CAPACITY_NS), per_s)
    return per_s
