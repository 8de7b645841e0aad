"""Batching rules, readably: when does a batch for a free device close? The compiled rules must decide the same.

`latency` is infcore's own model of the pair. Times are int nanoseconds, durations float seconds.
"""

from dataclasses import dataclass
from typing import Any

from reference.batch_plan import Traffic, Waiting, select_by_plan

NEVER_NS = 2**63 - 1


def to_ns(seconds: float) -> int:
    """Rounded towards zero; what does not fit in 64 bits is never."""
    return NEVER_NS if seconds * 1e9 >= 9.2e18 else int(seconds * 1e9)


@dataclass
class Pending:
    n_requests: int  # of the batch that would go now
    work_sum: float
    work_max: float
    earliest_deadline_ns: int  # NEVER_NS: none
    held_since_ns: int  # since when these requests and this free device have had each other
    arrivals_per_s: float
    max_batch_size: int
    delay_ns_max: int

    def shape(self) -> tuple[int, float, float]:
        return self.n_requests, self.work_sum, self.work_max


class Greedy:
    """Whatever waits goes at once."""

    def close(self, now_ns: int, pending: Pending, latency: Any) -> tuple[int, int]:
        """(how many go, else 0 and when to ask again)."""
        return pending.n_requests, now_ns

    def select(self, now_ns: int, waiting: list[Waiting], n_max: int, traffic: Traffic, latency: Any) -> list[str]:
        """What becomes of each: "take", "leave" or "drop"."""
        n = min(len(waiting), n_max, traffic.max_batch_size)
        return ["take"] * n + ["leave"] * (len(waiting) - n)


class Dynamic:
    """Wait for a larger batch only while that is worth it: see each condition."""

    def close(self, now_ns: int, pending: Pending, latency: Any) -> tuple[int, int]:
        go = (pending.n_requests, now_ns)
        if pending.n_requests >= pending.max_batch_size:
            return go  # full
        if latency.n_observed == 0 and not latency.has_prior:
            return go  # nothing is known: learn first
        expected_meanwhile = pending.arrivals_per_s * latency.service_s(*pending.shape())
        if pending.n_requests >= expected_meanwhile:
            return go  # sent now, the queue does not grow
        until_ns = self._hold_until_ns(pending, latency)
        if until_ns <= now_ns:
            return go  # held long enough, or the deadline presses
        if pending.arrivals_per_s * ((until_ns - now_ns) * 1e-9) < 1.0:
            return go  # nobody is expected to join
        return 0, until_ns

    def select(self, now_ns: int, waiting: list[Waiting], n_max: int, traffic: Traffic, latency: Any) -> list[str]:
        return select_by_plan(now_ns, waiting, n_max, traffic, latency)

    def _hold_until_ns(self, pending: Pending, latency: Any) -> int:
        """A quarter of what one batch less would save, at most the model's own bound, and in time for the deadline."""
        hold_ns = min(pending.delay_ns_max, to_ns(0.25 * latency.curve[0]))
        until_ns = min(pending.held_since_ns + hold_ns, NEVER_NS)
        if pending.earliest_deadline_ns != NEVER_NS:
            latest_ns = pending.earliest_deadline_ns - to_ns(latency.upper_s(*pending.shape()))
            until_ns = min(until_ns, latest_ns)
        return until_ns


def rule(name: str) -> Any:
    """The model of the registry's row `name`."""
    return {"greedy": Greedy, "dynamic": Dynamic}[name]()
