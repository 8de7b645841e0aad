"""What the reference engine keeps: requests, the lanes they wait in, the batches they go in."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from reference.batching import NEVER_NS
from reference.tenants import Tenants

WINDOW_NS = 10_000_000
N_SHOWN_MAX = 256  # requests that a batching rule is shown


def add_ns(a: int, b: int) -> int:
    return min(a + b, NEVER_NS)


@dataclass(eq=False)
class Request:
    cookie: int
    model: int
    work: float
    tier: int
    deadline_ns: int
    arrival_ns: int
    require: dict[str, str]
    seq: int
    tenant: int = 0
    lane: Any = None  # where it waits
    batch: Any = None  # or what it is a member of
    node: int | None = None  # that it is bound to, or was sent to
    bound_ns: int | None = None  # when it was bound to it
    reserved_s: float | None = None
    attempts: int = 0
    solo: bool = False  # runs alone: its batch failed
    doomed: str = ""  # why it was cancelled, while its inputs are copied
    charged: bool = False  # its tenant was, for its work
    copy: Any = None  # reference.hedging.Copy: where it was sent as well


@dataclass(eq=False)
class Batch:
    id: int
    lane: Any
    model: int
    opened_ns: int
    members: list[Request | None] = field(default_factory=list)  # None: ended before its batch
    shape: tuple[int, float, float] = (0, 0.0, 0.0)  # n, sum of work, largest work
    open: bool = True
    running: bool = False
    start_ns: int = 0
    beside: tuple[int, float, float] = (0, 0.0, 0.0)  # all that its node had when it started
    expected_end_ns: int = 0
    joins_from_seq: int = 0  # whoever came before was not selected
    late_ns: int = NEVER_NS  # when it is late; never: it is not hedged
    look_ns: int = NEVER_NS  # when to look whether it is to be


def larger(shape: tuple[int, float, float], work: float) -> tuple[int, float, float]:
    return shape[0] + 1, shape[1] + work, max(shape[2], work)


@dataclass(eq=False)
class Lane:
    """What waits for one model under one set of labels, or for one model on one node."""

    index: int
    model: int
    require: dict[str, str]
    bound: int | None
    requests: list[Request] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)
    work_pending: float = 0.0
    work_least: float = 0.0  # of all since it was empty
    work_most: float = 0.0
    n_untold: int = 0  # that came since reference.weighing.note_fastest was last told of one
    timer_ns: int = NEVER_NS
    capacity: tuple[int, float] = (-NEVER_NS, 0.0)  # good until, requests a second
    tenants: defaultdict[int, Tenants] = field(default_factory=lambda: defaultdict(Tenants))  # by tier

    def front(self, now_ns: int, ageing_ns: int) -> Request:
        oldest = min(self.requests, key=lambda r: (r.arrival_ns, r.seq))
        if now_ns - oldest.arrival_ns >= ageing_ns:
            return oldest
        served = {tier: tenants.served for tier, tenants in self.tenants.items()}
        return min(self.requests, key=lambda r: (r.tier, served[r.tier][r.tenant], r.deadline_ns, r.seq))

    def in_order(self, now_ns: int, ageing_ns: int) -> list[Request]:
        """As they are shown: the aged, then by tier the first of each tenant, then the second of each."""
        aged = [r for r in self.requests if now_ns - r.arrival_ns >= ageing_ns]
        listed = sorted(aged, key=lambda r: (r.arrival_ns, r.seq))
        for tier in sorted({r.tier for r in self.requests}):
            by_tenant: dict[int, list[Request]] = {}
            for r in sorted(self.requests, key=lambda r: (r.deadline_ns, r.seq)):
                if r.tier == tier:
                    by_tenant.setdefault(r.tenant, []).append(r)
            served = self.tenants[tier].served
            flows = sorted(by_tenant, key=lambda t: (served[t], by_tenant[t][0].deadline_ns, by_tenant[t][0].seq))
            flows = flows[:N_SHOWN_MAX]
            n_each = -(-N_SHOWN_MAX // len(flows))
            younger = [[r for r in by_tenant[tenant] if r not in aged][:n_each] for tenant in flows]
            listed += [items[rank] for rank in range(n_each) for items in younger if rank < len(items)]
        return listed

    def work_mean(self) -> float:
        return max(0.0, self.work_pending / max(1, len(self.requests)))

    def next_deadline_ns(self) -> int:
        return min((r.deadline_ns for r in self.requests), default=NEVER_NS)

    def arrivals_per_s(self, now_ns: int) -> float:
        """Those of the present 10 ms, and of the 10 ms before as many as a window that ends now would still cover."""
        window = now_ns // WINDOW_NS
        now, before = (sum(at // WINDOW_NS == w for at in self.arrivals) for w in (window, window - 1))
        left = float((window + 1) * WINDOW_NS - now_ns) / float(WINDOW_NS)
        return (now + before * left) / (WINDOW_NS * 1e-9)


@dataclass
class ModelState:
    max_batch_size: int
    batch_delay_ns_max: int
    idempotent: bool
    runs_share: bool = False  # a node's slots share it, and its latency model is about all that runs there
    length_buckets: list[float] = field(default_factory=list)
    preferred_batch_sizes: list[int] = field(default_factory=list)
    known: bool = True
    tried: set[int] = field(default_factory=set)  # nodes that were ever given something of it
    n_taken: int = 0
    n_tries: int = 0
