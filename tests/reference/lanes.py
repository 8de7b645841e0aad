"""What the reference engine keeps: requests, the lanes they wait in, the batches they go in."""

from dataclasses import dataclass, field
from typing import Any

from reference.batching import NEVER_NS

WINDOW_NS = 10_000_000


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
    lane: Any = None  # where it waits
    batch: Any = None  # or what it is a member of
    node: int | None = None  # that it is bound to, or was sent to
    bound_ns: int | None = None  # when it was bound to it
    reserved_s: float | None = None
    attempts: int = 0
    solo: bool = False  # runs alone: its batch failed
    doomed: str = ""  # why it was cancelled, while its inputs are copied


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
    expected_end_ns: int = 0
    joins_from_seq: int = 0  # whoever came before was not selected


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
    timer_ns: int = NEVER_NS
    capacity: tuple[int, float] = (-NEVER_NS, 0.0)  # good until, requests a second

    def front(self, now_ns: int, ageing_ns: int) -> Request:
        oldest = min(self.requests, key=lambda r: (r.arrival_ns, r.seq))
        if now_ns - oldest.arrival_ns >= ageing_ns:
            return oldest
        return min(self.requests, key=lambda r: (r.tier, r.deadline_ns, r.seq))

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
    known: bool = True
