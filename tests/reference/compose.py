"""What goes into a batch, readably. Called by reference.joint once a device and its share are chosen.

In the order of service as long as everybody is in time; where deadlines are in danger, the batching rule selects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reference.batching import NEVER_NS, Pending, Traffic, Waiting, to_ns
from reference.lanes import N_SHOWN_MAX, Batch, Lane, Request, add_ns, larger
from reference.like_work import is_like, like_work, matters_who_joins, preferred
from reference.tenants import units

CAPACITY_NS = 10_000_000  # how long a lane's capacity is believed


@dataclass
class Source:
    """A lane that a batch is filled from."""

    lane: Lane
    left: int  # of it the device may have


def open_batch(engine: Any, lane: Lane, id: int) -> Batch | None:
    """One that has room and whose members do not insist on running alone: of this lane, or of any other of the model
    that waits for no node in particular."""
    for batch in engine.batches[id]:
        same = batch.lane is lane or (batch.model == lane.model and batch.lane.bound is None and lane.bound is None)
        if batch.open and same and batch.shape[0] < engine.models[lane.model].max_batch_size:
            if not (batch.members and batch.members[0].solo):
                return batch
    return None


def serve(
    engine: Any, now_ns: int, sources: list[Source], c: Any, candidates: list[Any], listed: Sequence[Request] = ()
) -> str:
    """Joins the device's open batch, or opens one unless the batching rule would rather wait for more to come. It may
    not wait where more is there already and others do it sooner. The first source is the lane whose turn it is.
    listed: who should be in it, in that order, where it is chosen by work."""
    lane, n_share = sources[0].lane, sources[0].left
    n_before = len(lane.requests)
    latency = engine.latency.at(lane.model, c.node)
    if c.open is not None:
        n = preferred(engine, now_ns, sources, latency, c.joined + n_share)
        if n <= c.joined:
            return "refused"
        fill(engine, now_ns, sources, c, candidates, c.open, n - c.joined)
        c.open.expected_end_ns = add_ns(now_ns, to_ns(latency.service_s(*c.open.shape)))
        return "sent" if len(lane.requests) < n_before else "refused"
    n_all = min(sum(source.left for source in sources), engine.models[lane.model].max_batch_size)
    pending = pending_of(engine, now_ns, sources, c, n_all)
    n, wait_until_ns = engine.batching.close(now_ns, pending, latency)
    if n == 0 and n_share < n_before and lane.bound is None:
        n = n_all
    if n == 0:
        lane.timer_ns = min(lane.timer_ns, wait_until_ns)
        return "held"
    engine.n_batches += 1
    batch = Batch(engine.n_batches, lane, lane.model, now_ns)
    in_danger = pending.earliest_deadline_ns != NEVER_NS and pending.earliest_deadline_ns < ends_ns(
        now_ns, latency, (n, pending.work_max * n, pending.work_max)
    )  # somebody might be late, going by the mean work and the earliest deadline of all that wait
    picks = in_danger
    if not picks:
        n = preferred(engine, now_ns, sources, latency, n)
    done = not picks and bool(listed) and fill_suited(engine, now_ns, sources[0], c, batch, listed, n)
    picks = not done and (picks or matters_who_joins(engine, sources, latency))
    if picks or (not done and not fill(engine, now_ns, sources, c, candidates, batch, n)):
        choose(engine, now_ns, sources, c, candidates, batch, n)
    if batch.members:
        engine.batches[c.node].append(batch)
        engine.loads.follow_use(c.node)
    batch.expected_end_ns = add_ns(now_ns, to_ns(latency.service_s(*batch.shape)))
    return "sent" if len(lane.requests) < n_before or batch.members else "held"


def pending_of(engine: Any, now_ns: int, sources: list[Source], c: Any, n: int) -> Pending:
    lanes = [source.lane for source in sources]
    model = engine.models[lanes[0].model]
    work_pending = 0.0
    arrivals_per_s = 0.0
    for lane in lanes:
        work_pending += lane.work_pending
        arrivals_per_s += lane.arrivals_per_s(now_ns)
    mean = max(0.0, work_pending / sum(len(lane.requests) for lane in lanes))
    oldest_ns = min(r.arrival_ns for lane in lanes for r in lane.requests)
    return Pending(
        n_requests=n,
        work_sum=mean * n,
        work_max=mean,
        earliest_deadline_ns=min(lane.next_deadline_ns() for lane in lanes),
        held_since_ns=max(engine.free_since_ns[c.node], oldest_ns),
        arrivals_per_s=arrivals_per_s,
        max_batch_size=model.max_batch_size,
        delay_ns_max=model.batch_delay_ns_max,
    )


def ends_ns(now_ns: int, latency: Any, shape: tuple[int, float, float]) -> int:
    return add_ns(now_ns, to_ns(latency.upper_s(*shape)))


def late_on(now_ns: int, r: Request, c: Any) -> bool:
    """One that was idle for as long as it is believed to take may be tried, unless its curve was given; so may one that
    has seen fewer batches than its curve has terms."""
    alone_ns = to_ns(c.alone_s(r.work))
    if r.deadline_ns == NEVER_NS or add_ns(now_ns, alone_ns) <= r.deadline_ns:
        return False
    if not c.trusted:
        return False
    return c.tried_since_ns is None or add_ns(c.tried_since_ns, alone_ns) > now_ns


def too_late(now_ns: int, r: Request, candidates: list[Any]) -> bool:
    """No device could finish it in time even if it were free now."""
    return all(late_on(now_ns, r, c.as_busy() if c.loads else c) for c in candidates)


def fill(
    engine: Any, now_ns: int, sources: list[Source], c: Any, candidates: list[Any], batch: Batch, n_more: int
) -> bool:
    """Moves the most urgent into the batch; those of the lane whose turn it is that are too late are shed on the way.
    Nobody who is in time without one more is made late by it, itself included. False: whom it would begin with is late
    on this device and not on another."""
    lane = sources[0].lane
    latency = engine.latency.at(lane.model, c.node)
    slope_s = slope_of(latency, lane)
    n_wanted = batch.shape[0] + n_more
    in_time = [r for r in batch.members if r.deadline_ns >= ends_ns(now_ns, latency, batch.shape)]
    begins, asked = True, list(sources)
    while batch.shape[0] < n_wanted:
        asked = [source for source in asked if source.left and source.lane.requests]
        if not asked:
            break
        source = min(asked, key=lambda source: engine.urgency(now_ns, source.lane))
        r = source.lane.front(now_ns, engine.ageing_ns)
        if late_on(now_ns, r, c):
            if source.lane is lane and too_late(now_ns, r, candidates):
                shed(engine, now_ns, r, "deadline")
            else:  # it waits for a faster device, or for its own lane's turn
                asked.remove(source)
                begins = begins and bool(batch.members)
            continue
        refuses = batch.members and (r.solo or batch.members[0].solo or r.seq < batch.joins_from_seq)
        if refuses or (batch.members and not is_like(engine, batch, r.work, latency)):
            asked.remove(source)
            continue
        with_it_ns = ends_ns(now_ns, latency, larger(batch.shape, r.work))
        if any(with_it_ns > other.deadline_ns for other in in_time):
            break
        if with_it_ns <= r.deadline_ns:
            in_time.append(r)
        elif batch.members and ends_ns(now_ns, latency, (1, r.work, r.work)) <= r.deadline_ns:
            asked.remove(source)
            continue
        source.left -= 1
        take(engine, r, c, batch, latency, slope_s)
    return begins or bool(batch.members)


def fill_suited(
    engine: Any, now_ns: int, source: Source, c: Any, batch: Batch, listed: Sequence[Request], n_max: int
) -> bool:
    """The first of them, as far as they are in time on the device and go together; False: they would not be."""
    lane = source.lane
    latency = engine.latency.at(lane.model, c.node)
    chosen: list[Request] = []
    for r in listed:
        if len(chosen) == n_max:
            break
        if r.solo or late_on(now_ns, r, c) or (chosen and not is_like(engine, batch, r.work, latency)):
            continue
        batch.shape = larger(batch.shape, r.work)
        chosen.append(r)
    in_time = bool(chosen) and ends_ns(now_ns, latency, batch.shape) <= min(r.deadline_ns for r in chosen)
    batch.shape = (0, 0.0, 0.0)
    if not in_time:
        return False
    source.left -= len(chosen)
    slope_s = slope_of(latency, lane)
    for r in chosen:
        take(engine, r, c, batch, latency, slope_s)
    return True


def shed(engine: Any, now_ns: int, r: Request, reason: str) -> None:
    engine.leave_lane(r)
    engine.end(now_ns, r, "shed", reason)


def slope_of(latency: Any, lane: Lane) -> float:
    _, per_request, per_work, per_padded_work = latency.curve
    return per_request + (per_work + per_padded_work) * lane.work_mean()


def take(engine: Any, r: Request, c: Any, batch: Batch, latency: Any, slope_s: float) -> None:
    engine.leave_lane(r, 0 if r.charged else units(r.work))  # once, however often it is run
    r.charged = True
    engine.unreserve(r)
    r.batch, r.node = batch, c.node
    r.attempts += 1
    engine.reserve(r, slope_s + (0.0 if batch.members else latency.curve[0]))
    batch.shape = larger(batch.shape, r.work)
    batch.members.append(r)
    engine.models[batch.model].tried.add(c.node)
    engine.models[batch.model].n_taken += 1
    engine.act(r, "dispatch", "none", batch.shape[0] - 1)


def choose(
    engine: Any, now_ns: int, sources: list[Source], c: Any, candidates: list[Any], batch: Batch, n_max: int
) -> None:
    """Those who come first, if they are in time together after all, else whom the rule selects of the first that this
    device can do in time. Those that no device can are shed, those that another one can wait."""
    lane = sources[0].lane
    shown = show(engine, now_ns, sources, c, candidates)
    latency = engine.latency.at(lane.model, c.node)
    if not shown:
        return
    if matters_who_joins(engine, sources, latency):
        shown = like_work(shown, latency, engine.models[lane.model].length_buckets, n_max)
    first = shown[: min(n_max, len(shown))]
    shape = (0, 0.0, 0.0)
    for r in first:
        shape = larger(shape, r.work)
    if ends_ns(now_ns, latency, shape) <= min(r.deadline_ns for r in first):
        verdicts = ["take"] * preferred(engine, now_ns, sources, latency, len(first))
    else:
        shown = by_tenant(engine, now_ns, shown)
        waiting = [Waiting(r.deadline_ns, r.work, r.tier, is_aged(engine, now_ns, r), r.tenant) for r in shown]
        arrivals_per_s = 0.0
        for source in sources:
            arrivals_per_s += source.lane.arrivals_per_s(now_ns)
        traffic = Traffic(
            n_waiting=sum(len(source.lane.requests) for source in sources),
            max_batch_size=engine.models[lane.model].max_batch_size,
            arrivals_per_s=arrivals_per_s,
            capacity_per_s=capacity_per_s(engine, now_ns, lane, candidates),
            share=share_of_device(engine, [source.lane for source in sources], c.node),
        )
        verdicts = engine.batching.select(now_ns, waiting, len(first), traffic, latency)
        batch.joins_from_seq = engine.n_arrived
    slope_s = slope_of(latency, lane)
    for r, verdict in zip(shown, verdicts, strict=False):
        source = next(source for source in sources if source.lane is r.lane)
        if verdict == "take" and batch.shape[0] < len(first) and source.left > 0:
            source.left -= 1
            take(engine, r, c, batch, latency, slope_s)
        elif verdict == "drop" and r.lane is lane:  # another lane may have devices that the rule was not told of
            shed(engine, now_ns, r, "early_drop")


def is_aged(engine: Any, now_ns: int, r: Request) -> bool:
    return bool(now_ns - r.arrival_ns >= engine.ageing_ns)


def by_tenant(engine: Any, now_ns: int, shown: list[Request]) -> list[Request]:
    """In a tier each tenant's together, in the order in which their first ones stand."""
    classes = [(True, 0, 0) if is_aged(engine, now_ns, r) else (False, r.tier, r.tenant) for r in shown]
    return [r for _, r in sorted(zip(classes, shown, strict=True), key=lambda pair: classes.index(pair[0]))]


def show(engine: Any, now_ns: int, sources: list[Source], c: Any, candidates: list[Any]) -> list[Request]:
    queues = [source.lane.in_order(now_ns, engine.ageing_ns)[:N_SHOWN_MAX] for source in sources]
    waiting: list[Request] = []
    while any(queues) and len(waiting) < N_SHOWN_MAX:
        waiting.append(min((q for q in queues if q), key=lambda q: engine.urgency_of(now_ns, q[0])).pop(0))
    shown: list[Request] = []
    late_here = []
    for r in waiting:
        if late_on(now_ns, r, c):
            late_here.append(r)
        elif not r.solo:
            shown.append(r)
        elif not shown:  # it runs alone
            shown = [r]
            break
    for r in late_here:
        if r.lane is sources[0].lane and too_late(now_ns, r, candidates):
            shed(engine, now_ns, r, "deadline")
    return shown


def pending_s(engine: Any, lane: Lane, id: int) -> float:
    """Seconds that the device would take for all that waits in a lane, in batches as full as may be."""
    base, per_request, per_work, per_padded_work = engine.latency.at(lane.model, id).curve
    n, n_full = float(len(lane.requests)), float(engine.models[lane.model].max_batch_size)
    slope = per_request + (per_work + per_padded_work) * lane.work_mean()
    return float(max(max(1.0, n / n_full) * base + slope * n, 1e-9))


def share_of_device(engine: Any, lanes: list[Lane], id: int) -> float:
    """Of the device's time, what these lanes have where all that wait for it take turns by how much they bring."""
    own_s = all_s = 0.0
    for lane in engine.lanes:
        holds = lane.model in engine.fleet[id].models and engine.carries(id, lane.require)
        if not lane.requests or not (holds if lane.bound is None else lane.bound == id):
            continue
        s = pending_s(engine, lane, id)
        all_s += s
        own_s += s if any(lane is own for own in lanes) else 0.0
    return own_s / all_s if own_s > 0.0 else 1.0


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
