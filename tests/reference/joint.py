"""The joint choice of device and batch, readably. Called by reference.engine for one lane at a time.

Of the devices that take something, the one that would be done first with one more gets its share: the most requests
such that all devices together would not have finished everything before it is done with the last of them. Arithmetic
in float32 and in the order of csrc/infcore/engine/finish_times.hpp.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from reference.batching import to_ns
from reference.compose import Source, late_on, open_batch, serve
from reference.lanes import Batch, Lane, add_ns, larger
from reference.weighing import cheapest, has_prices, share_by_work, suited, untried

F = np.float32
STRICTLY = F(1 - 2**-16)  # finished before a time means by this much of it
SOURCES_MAX = 8  # lanes that one batch is filled from
LOOK_AGAIN = 0.125  # of what the first device that was passed over takes for one request


@dataclass
class Candidate:
    node: int
    free_in_s: Any
    base_s: Any
    per_request_s: Any
    per_work_s: Any
    work_mean: Any
    open: Batch | None  # that requests of this lane may still join
    takes: bool
    trusted: bool  # its curve was given, or its class's, or has seen enough, or it has no free slot to learn more
    tried_since_ns: int | None  # since when it is idle, if its curve was not given
    loads: bool = False  # it has no free slot because it loads a model, or is kept free for that

    @property
    def joined(self) -> int:
        return self.open.shape[0] if self.open else 0

    def batch_s(self, n: int) -> Any:
        return self.base_s + self.slope_s(self.work_mean) * F(n)

    def slope_s(self, work: Any) -> Any:
        return self.per_request_s + self.per_work_s * work

    def with_work(self, mean: Any) -> "Candidate":
        return replace(self, work_mean=mean)

    def as_busy(self) -> "Candidate":
        """One that is not to be tried."""
        return replace(self, trusted=True, tried_since_ns=None)

    def first_s(self) -> Any:
        return self.batch_s(self.joined + 1)

    def alone_s(self, work: float) -> float:
        return float(self.base_s + self.slope_s(F(work)) * F(1))

    def full_batches_per_s(self, n: int, work_mean: float, slots: int) -> Any:
        """Requests a second in batches of n, on all its slots."""
        return F(slots) * F(n) / (self.base_s + self.slope_s(F(work_mean)) * F(n))


def dispatch_from(engine: Any, now_ns: int, lane: Lane) -> bool:
    """Sends or joins one device's share at most; whether it did, so that it is asked again."""
    candidates = gather(engine, now_ns, lane)
    if lane.bound is None and engine.models[lane.model].runs_share:
        return dispatch_shared(engine, now_ns, lane, candidates)
    may_weigh = lane.bound is None and any(c.takes for c in candidates) and not any(c.open for c in candidates)
    if may_weigh and engine.weights.by_work:
        new = untried(engine, now_ns, lane, candidates)
        if new is not None:
            return serve(engine, now_ns, [Source(lane, 1)], new, candidates) == "sent"
    if may_weigh and engine.weights.price_us_per_usd > 0.0 and has_prices(engine):
        done = dispatch_costly(engine, now_ns, lane, candidates)
        if done is not None:
            return done
    for c in sorted((c for c in candidates if c.takes), key=lambda c: (c.first_s(), c.node)):
        listed: list[Any] = []
        if lane.bound is None and engine.weights.by_work and c.open is None and n_joint_lanes(engine, lane) == 1:
            listed = suited(engine, now_ns, lane, c, candidates)
        if listed:
            share = share_by_work(engine, now_ns, lane, c, candidates, listed, (finished_by, in_further_slots))
        elif lane.bound is None:
            share = share_of(engine, now_ns, lane, c, candidates)
        else:
            share = min(len(lane.requests), engine.models[lane.model].max_batch_size - c.joined)
        if share == 0:  # busy ones are sooner: look again when they should be done
            look_again(now_ns, lane, c.first_s())
            return False
        sources = [Source(lane, share)]
        if lane.bound is None and c.open is None:
            sources += riders(engine, now_ns, lane, c)
        served = serve(engine, now_ns, sources, c, candidates, listed)
        if served == "held":
            return lane.bound is None and dispatch_late(engine, now_ns, lane, c, candidates)
        if served == "sent":
            return True
    return False


def dispatch_late(engine: Any, now_ns: int, lane: Lane, passed: Candidate, candidates: list[Candidate]) -> bool:
    """The first, where the device that had its turn would be too late for it: to a free one that would not, or that may
    be tried. Not while a busy one would be in time, were it free."""
    head = lane.front(now_ns, engine.ageing_ns)
    if not late_on(now_ns, head, passed):
        return False
    fastest = min(candidates, key=lambda c: (c.alone_s(head.work), c.node))
    if add_ns(now_ns, to_ns(fastest.alone_s(head.work))) > head.deadline_ns:
        free = [c for c in candidates if engine.has_free(c.node)]
        fastest = next((c for c in free if not late_on(now_ns, head, c)), passed)
    if fastest is passed or fastest.open is not None or not fastest.takes:
        return False
    return serve(engine, now_ns, [Source(lane, 1)], fastest, candidates) == "sent"


def dispatch_costly(engine: Any, now_ns: int, lane: Lane, candidates: list[Candidate]) -> bool | None:
    """To where all that waits costs least, if that is free, else nowhere; None where nobody is in time for it."""
    best, n, first_s = cheapest(engine, now_ns, lane, candidates)
    if best is None:
        return None
    if not best.takes:
        look_again(now_ns, lane, first_s)
        return False
    sources = [Source(lane, n), *riders(engine, now_ns, lane, best)]
    return serve(engine, now_ns, sources, best, candidates) == "sent"


def n_joint_lanes(engine: Any, lane: Lane) -> int:
    """Sets of labels that its model was ever asked for with."""
    return sum(other.model == lane.model and other.bound is None for other in engine.lanes)


def look_again(now_ns: int, lane: Lane, seconds: Any) -> None:
    again_ns = add_ns(add_ns(now_ns, to_ns(LOOK_AGAIN * float(seconds))), 1)
    lane.timer_ns = min(lane.timer_ns, again_ns)


def dispatch_shared(engine: Any, now_ns: int, lane: Lane, candidates: list[Candidate]) -> bool:
    """To where it would be done first beside all that runs there; a few each to those whose curve nobody knows."""
    head = lane.front(now_ns, engine.ageing_ns)

    def cost(c: Candidate) -> tuple[int, float, int]:
        latency, there = engine.latency.at(lane.model, c.node), engine.occupied(c.node)
        if not latency.has_prior and latency.n_observed < 4:
            return 0 if there[0] < 4 else 2, there[0], c.node
        return 1, latency.service_s(*larger(there, head.work)), c.node

    takers = [c for c in candidates if c.takes and c.open is None]  # one whose member was cancelled is over soon
    if not takers:
        return False
    first = min(takers, key=cost)
    served = serve(engine, now_ns, [Source(lane, 1)], first, candidates)
    return dispatch_late(engine, now_ns, lane, first, candidates) if served == "held" else served == "sent"


def riders(engine: Any, now_ns: int, lane: Lane, c: Candidate) -> list[Source]:
    """What else waits for the model and may run there goes in the same batch, each lane up to its own share."""
    others = [
        other
        for other in engine.lanes
        if other is not lane and other.model == lane.model and other.bound is None and other.requests
    ]
    others = [other for other in others if engine.carries(c.node, other.require)]
    shares = []
    if len(others) > SOURCES_MAX - 1:
        others = sorted(others, key=lambda other: engine.urgency(now_ns, other))[: SOURCES_MAX - 1]
    for other in others:
        its = gather(engine, now_ns, other)
        share = share_of(engine, now_ns, other, next(d for d in its if d.node == c.node), its)
        shares.append(Source(other, share))
    return [source for source in shares if source.left]


def share_of(engine: Any, now_ns: int, lane: Lane, c: Candidate, candidates: list[Candidate]) -> int:
    """The most that it can have, at least what it does in the time that the first has waited already, if
    that is in time for it. Whoever can have n can have fewer, so the first that it can't have ends the search."""
    n_requests, max_batch_size = len(lane.requests), engine.models[lane.model].max_batch_size
    head = lane.front(now_ns, engine.ageing_ns)
    enough_s = min(F((now_ns - head.arrival_ns) * 1e-9), F((head.deadline_ns - now_ns) * 1e-9))
    for share in range(1, min(n_requests, max_batch_size - c.joined) + 1):
        by_s = c.batch_s(c.joined + share) * STRICTLY
        done = sum(finished_by(by_s, other, n_requests, max_batch_size) for other in candidates if other is not c)
        done += sum(
            in_further_slots(engine, now_ns, lane, by_s, other, n_requests, max_batch_size) for other in candidates
        )
        if done + share - 1 >= n_requests and by_s > enough_s:
            return share - 1
    return min(n_requests, max_batch_size - c.joined)


def finished_by(t_s: Any, c: Candidate, n_requests: int, max_batch_size: int) -> int:
    """How many more requests the device has finished by then, beside those in an open batch."""
    return max(0, finished_in(t_s - c.free_in_s, c, n_requests, max_batch_size) - c.joined)


def in_further_slots(
    engine: Any, now_ns: int, lane: Lane, t_s: Any, c: Candidate, n_requests: int, max_batch_size: int
) -> int:
    """The same of its slots without the one that is free first. Those that run another model will be wanted for it
    again, and where anything of another model waits none is to be counted on."""
    node = engine.fleet[c.node]
    if node.slots < 2 or any(
        o.requests and o.bound is None and o.model in node.models - {lane.model} for o in engine.lanes
    ):
        return 0
    running = sorted(engine.batches[c.node], key=lambda b: b.expected_end_ns)
    n_idle = max(0, node.slots - len(running))
    further = running if n_idle or engine.loads.loads_alone(c.node) else running[1:]
    ends_s = [abs(b.expected_end_ns * 1e-9 - now_ns * 1e-9) for b in further if b.model == lane.model]
    rooms_s = [t_s] * (n_idle - 1) + [t_s - F(s) for s in ends_s]
    return sum(finished_in(room_s, c, n_requests, max_batch_size) for room_s in rooms_s)


def finished_in(room_s: Any, c: Candidate, n_requests: int, max_batch_size: int) -> int:
    """How many a slot finishes in so long: whole full batches, and what a last one holds."""
    full_s = c.batch_s(max_batch_size)
    batches = int(min(max(room_s / full_s, F(0)), F(n_requests)))
    rest_s = room_s - F(batches) * full_s - c.base_s
    rest = int(min(max(rest_s / c.slope_s(c.work_mean), F(0)), F(max_batch_size)))
    return batches * max_batch_size + rest


def gather(engine: Any, now_ns: int, lane: Lane) -> list[Candidate]:
    holders = [node.id for node in engine.fleet if lane.model in node.models]
    return [
        candidate(engine, now_ns, lane, id)
        for id in holders
        if lane.bound in (None, id) and engine.fleet[id].state == "up" and engine.carries(id, lane.require)
    ]


def candidate(engine: Any, now_ns: int, lane: Lane, id: int) -> Candidate:
    base, per_request, per_work, per_padded_work = engine.latency.at(lane.model, id).curve
    batch, running = open_batch(engine, lane, id), engine.batches[id]
    free_in_s, takes = 0.0, True
    is_full = len(running) >= engine.fleet[id].slots
    loads = lane.bound is None and engine.loads.takes_nothing(id)
    if batch is None and (is_full or loads or engine.loads.is_reserved(id)):
        takes = False
        # One that is overdue is expected to take as long again as it is late.
        free_in_s = abs(engine.free_at_ns(id) * 1e-9 - now_ns * 1e-9)
    return Candidate(
        node=id,
        free_in_s=F(free_in_s),
        base_s=F(min(max(base, 1e-12), 1e9)),
        per_request_s=F(min(max(per_request, 1e-12), 1e9)),
        per_work_s=F(min(per_work + per_padded_work, 1e9)),
        work_mean=F(lane.work_mean()),
        open=batch,
        takes=takes,
        trusted=engine.latency.at(lane.model, id).has_prior
        or engine.latency.at(lane.model, id).n_observed >= 4
        or is_full,
        tried_since_ns=None if running or (lane.model, id) in engine.given else engine.free_since_ns[id],
        loads=loads,
    )
