"""When a late run is sent out once more, readably; and how often that may happen. Called by reference.engine.

A batch is late when it has taken a multiple of what was expected of it, the quantile of such multiples. A request of a
late batch goes to a second node if that is expected to answer sooner than the first is still to take, and in time.
"""

from dataclasses import dataclass, field
from typing import Any

from reference.batching import NEVER_NS, to_ns
from reference.lanes import Batch, Request, add_ns, larger
from reference.like_work import is_like

MULTIPLE_AT_START = 2.0
N_KEPT = 2048
N_BEYOND_MIN = 4
N_BUCKETS = 80  # eighths of an octave from 1/4 on
SEEN = ("device_failed", "device_lost")  # ends of one copy that a balancer in front of the node would see


def lower_end(bucket: int) -> float:
    octave, eighth = divmod(bucket, 8)
    return 0.25 * 2.0**octave * (1.0 + eighth / 8.0)


@dataclass
class Lateness:
    """Multiples of the expected time that a model's batches took."""

    counts: list[int] = field(default_factory=lambda: [0] * N_BUCKETS)

    @staticmethod
    def bucket(multiple: float) -> int:
        return max([b for b in range(N_BUCKETS) if lower_end(b) <= multiple], default=0)

    def observe(self, multiple: float) -> None:
        self.counts[self.bucket(multiple)] += 1
        if sum(self.counts) == N_KEPT:
            self.counts = [count // 2 for count in self.counts]

    def quantile(self, q: float) -> float:
        n_beyond = (1.0 - q) * sum(self.counts)
        if n_beyond < N_BEYOND_MIN:
            return MULTIPLE_AT_START
        return min(lower_end(b) for b in range(N_BUCKETS + 1) if sum(self.counts[b:]) <= n_beyond)

    def mean_excess(self, multiple: float) -> float:
        above = range(self.bucket(multiple) + 1, N_BUCKETS)
        n_above = sum(self.counts[b] for b in above)
        if n_above < N_BEYOND_MIN:
            return 0.0
        total = 0.0
        for b in above:
            total += self.counts[b] * (0.5 * (lower_end(b) + lower_end(b + 1)) - multiple)
        return total / n_above


@dataclass
class Budget:
    """A share of requests; what was not spent is kept, up to a bound."""

    share: float
    left: float
    most: float

    def earn(self) -> None:
        self.left = min(self.left + self.share, max(self.left, self.most))

    def spend(self) -> bool:
        if self.share == float("inf"):
            return True
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


@dataclass(eq=False)
class Copy:
    """Of a request that runs elsewhere: what the request says of its first run, said of the second."""

    batch: Batch
    node: int
    reserved_s: float | None
    bound_ns: int | None


def again_ns(now_ns: int, batch: Batch) -> int:
    return add_ns(now_ns, max(1, (now_ns - batch.start_ns) // 4))


def watch(engine: Any, now_ns: int, id: int, batch: Batch) -> None:
    """The batch begins to run."""
    config, latency = engine.models[batch.model], engine.latency.at(batch.model, id)
    known = latency.has_prior or latency.n_observed >= 4
    if not engine.hedge_quantile or not config.idempotent or config.runs_share or not known:
        return
    expected_ns = batch.expected_end_ns - now_ns
    multiple = max(1.0, engine.lateness[batch.model].quantile(engine.hedge_quantile))
    batch.late_ns = batch.look_ns = add_ns(now_ns, to_ns(multiple * (expected_ns * 1e-9)))
    if any(r is not None and r.deadline_ns < add_ns(batch.late_ns, expected_ns) for r in batch.members):
        batch.look_ns = batch.expected_end_ns
    engine.look_timer_ns[id] = min(engine.look_timer_ns[id], batch.look_ns)


def set_look(engine: Any, id: int) -> None:
    if engine.look_timer_ns[id] != NEVER_NS:
        engine.look_timer_ns[id] = min((b.look_ns for b in engine.batches[id]), default=NEVER_NS)


def look_at_late(engine: Any, now_ns: int) -> None:
    while (at_ns := min(engine.look_timer_ns.values(), default=NEVER_NS)) <= now_ns:
        id = min(id for id, its_ns in engine.look_timer_ns.items() if its_ns == at_ns)
        for batch in engine.batches[id]:
            if batch.running and batch.look_ns <= now_ns:
                batch.look_ns = hedge(engine, now_ns, id, batch)
        engine.look_timer_ns[id] = min((b.look_ns for b in engine.batches[id]), default=NEVER_NS)


def hedge(engine: Any, now_ns: int, id: int, batch: Batch) -> int:
    """Sends copies of those for whom it is time; when to look again."""
    expected_ns = max(1, batch.expected_end_ns - batch.start_ns)
    excess = engine.lateness[batch.model].mean_excess((now_ns - batch.start_ns) / expected_ns)
    left_s = max((expected_ns * 1e-9) * excess, (now_ns - batch.expected_end_ns) * 1e-9)
    next_ns, to = NEVER_NS, None
    for r in batch.members:
        if r is None or r.copy is not None or r.attempts >= engine.attempts_max:
            continue
        node, joined, takes_s = with_others(engine, now_ns, r, to) or (*second_node(engine, id, r),)
        again = again_ns(now_ns, batch)
        if node is not None:
            last_ns = NEVER_NS if r.deadline_ns == NEVER_NS else r.deadline_ns - to_ns(takes_s)
            due_ns = min(batch.late_ns, last_ns)
            if last_ns >= now_ns and now_ns < due_ns:
                again = due_ns
            elif last_ns >= now_ns and takes_s < left_s and engine.hedges[r.model].spend():
                to = node, send(engine, now_ns, r, node, joined, takes_s)
                continue
        next_ns = min(next_ns, again)
    return next_ns


def second_node(engine: Any, first: int, r: Request) -> tuple[int | None, None, float]:
    """Of the others with a free slot, who would be done first, going by curves that are to be trusted."""
    found = []
    for node in engine.fleet:
        latency = engine.latency.at(r.model, node.id)
        free = node.state == "up" and engine.has_free(node.id)
        fits = r.model in node.models and engine.carries(node.id, r.require)
        if node.id != first and free and fits and (latency.has_prior or latency.n_observed >= 4):
            found.append((latency.service_s(1, r.work, r.work), node.id))
    return (min(found)[1], None, min(found)[0]) if found else (None, None, 0.0)


def with_others(engine: Any, now_ns: int, r: Request, to: Any) -> tuple[int, Batch, float] | None:
    """Into the batch that was just opened for others of its own: where that is, and what it takes then."""
    if to is None:
        return None
    node, batch = to
    latency, shape = engine.latency.at(batch.model, node), larger(batch.shape, r.work)
    alone = r.solo or batch.members[0].solo or r.seq < batch.joins_from_seq
    if alone or batch.shape[0] >= engine.models[batch.model].max_batch_size:
        return None
    if not is_like(engine, batch, r.work, latency) or not engine.carries(node, r.require):
        return None
    end_ns = add_ns(now_ns, to_ns(latency.service_s(*shape)))
    if any(m.deadline_ns < end_ns for m in batch.members):
        return None
    return node, batch, latency.service_s(*shape)


def send(engine: Any, now_ns: int, r: Request, node: int, batch: Batch | None, takes_s: float) -> Batch:
    before_s = 0.0
    if batch is None:
        lane = engine.lane_for(r, None if engine.routing is None else node)
        engine.n_batches += 1
        batch = Batch(engine.n_batches, lane, r.model, now_ns)
        engine.batches[node].append(batch)
    else:
        before_s = engine.latency.at(r.model, node).service_s(*batch.shape)
    batch.members.append(r)
    batch.shape = larger(batch.shape, r.work)
    batch.expected_end_ns = add_ns(now_ns, to_ns(takes_s))
    engine.loads.follow_use(node)
    r.copy = Copy(batch, node, max(0.0, takes_s - before_s), None if engine.routing is None else now_ns)
    r.attempts += 1
    engine.actions.append(("hedge", r.cookie, node, batch.id, batch.shape[0] - 1, "none"))
    engine.fleet[node].add_credit(0, min(r.copy.reserved_s or 0.0, 1e6), 1)
    return batch


def swap(r: Request) -> None:
    copy = r.copy
    r.batch, copy.batch, r.node, copy.node = copy.batch, r.batch, copy.node, r.node
    r.reserved_s, copy.reserved_s, r.bound_ns, copy.bound_ns = copy.reserved_s, r.reserved_s, copy.bound_ns, r.bound_ns


def forget(engine: Any, r: Request) -> Copy:
    copy, r.copy = r.copy, None
    if copy.reserved_s is not None:
        engine.fleet[copy.node].add_credit(0, min(copy.reserved_s, 1e6), -1)
    return copy


def drop(engine: Any, r: Request) -> None:
    """It is not needed any more."""
    copy = forget(engine, r)
    if copy.batch.open:
        engine.leave_open(copy.batch, r)
    elif r in copy.batch.members:
        copy.batch.members[copy.batch.members.index(r)] = None


def goes_on(engine: Any, now_ns: int, r: Request, batch: Batch, reason: str) -> bool:
    """A batch of it is over without an answer; whether it goes on elsewhere."""
    if r.copy is None:
        return False
    if r.copy.batch is not batch:
        swap(r)
    r.attempts -= not batch.running
    gone = forget(engine, r)
    if gone.bound_ns is not None and reason in SEEN:
        engine.routing.observe(engine.fleet[gone.node], r.model, now_ns, (now_ns - gone.bound_ns) * 1e-9)
    if r.batch.running and r.batch.late_ns != NEVER_NS:
        r.batch.look_ns = min(r.batch.look_ns, again_ns(now_ns, r.batch))
        engine.look_timer_ns[r.node] = min(engine.look_timer_ns[r.node], r.batch.look_ns)
    return True


def learn(engine: Any, now_ns: int, id: int, batch: Batch) -> None:
    """The batch has ended."""
    if batch.late_ns != NEVER_NS:
        expected_s = max(1, batch.expected_end_ns - batch.start_ns) * 1e-9
        engine.lateness[batch.model].observe((now_ns - batch.start_ns) * 1e-9 / expected_s)
    set_look(engine, id)
