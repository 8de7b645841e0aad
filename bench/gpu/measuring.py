"""How a launch is timed. Arithmetic alone: the device's events and the host's clock are handed in.

A device time is taken between two events with one call between them, while the device is still held up by a delay that
was queued before: so the host's time is not in it, however short the kernel. If the device got through the delay before
all was queued, the times are thrown away and the delay is doubled; where that does not help (a way that launches
thousands of kernels fills the queue), there is no device time, only the wall's.
"""

import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

# Memory that other buffers take before one's turn comes again, in L2 caches: one may keep part of what it saw before.
TURN_OVER = 2
CALLS_QUEUED = 32  # between two waits; a device's queue takes about a thousand launches
N_DOUBLED = 6  # how often the delay is doubled before giving up: a factor of 64
DELAY_US_MIN = 200.0


class HostClock(Protocol):
    """The host's time, and waiting for the device."""

    def synchronize(self) -> None:
        """Waits until all that was queued is done."""

    def host_us(self) -> float:
        """The host's clock."""


class Clock(HostClock, Protocol):
    """Events on a device's current stream, too."""

    def record(self) -> Any:
        """An event that the device reaches once all that was queued before is done."""

    def reached(self, event: Any) -> bool:
        """Whether the device has reached it; does not wait."""

    def elapsed_us(self, begin: Any, end: Any) -> float:
        """Between two events that have been reached."""

    def delay(self, us: float) -> None:
        """Queues work that takes the device at least so long."""


class Spread(NamedTuple):
    """Of many times: the median, the quartiles, the least, and how many."""

    p50: float
    p25: float
    p75: float
    least: float
    n: int


def spread(times: Sequence[float]) -> Spread:
    """Of at least two times."""
    p25, p50, p75 = statistics.quantiles(times, n=4, method="inclusive")
    return Spread(p50, p25, p75, min(times), len(times))


def n_sets(set_bytes: int, l2_bytes: int, free_bytes: int) -> int:
    """How many sets of buffers take turns, so that a set has left the L2 cache before its turn comes again.

    Returns   at least 2, or 0 where memory does not hold two.
    """
    wanted = 1 + -(-TURN_OVER * l2_bytes // set_bytes)
    n_held = free_bytes // set_bytes
    return 0 if n_held < 2 else max(2, min(wanted, n_held))


def _queued(clock: Clock, calls: Sequence[Callable[[], object]], delay_us: float) -> list[float] | None:
    """The device's time of each call; None if the device did not wait for all of them to be queued."""
    clock.delay(delay_us)
    events = [clock.record()]
    for call in calls:
        call()
        events.append(clock.record())
    late = clock.reached(events[0])
    clock.synchronize()
    return None if late else [clock.elapsed_us(begin, end) for begin, end in pairwise(events)]


def device_us(clock: Clock, calls: Sequence[Callable[[], object]], *, n_calls: int, n_warm_up: int) -> Spread | None:
    """Each call's time on the device, without the host's; the calls take turns. None: the host could not keep ahead."""
    turns = [calls[k % len(calls)] for k in range(max(n_calls, 2))]
    for k in range(n_warm_up):
        calls[k % len(calls)]()
    clock.synchronize()
    begin = clock.host_us()
    calls[0]()
    delay_us = max(DELAY_US_MIN, 2 * CALLS_QUEUED * (clock.host_us() - begin))
    clock.synchronize()
    times: list[float] = []
    n_doubled = 0
    while len(times) < len(turns):
        taken = _queued(clock, turns[len(times) : len(times) + CALLS_QUEUED], delay_us)
        if taken is not None:
            times += taken
            continue
        if n_doubled == N_DOUBLED:
            return None
        n_doubled += 1
        delay_us *= 2
    return spread(times)


def wall_us(clock: HostClock, calls: Sequence[Callable[[], object]], *, n_calls: int) -> float:
    """Time per call, back to back, until the device has done them all: what a loop of nothing else takes."""
    clock.synchronize()
    begin = clock.host_us()
    for k in range(n_calls):
        calls[k % len(calls)]()
    clock.synchronize()
    return (clock.host_us() - begin) / n_calls


def host_us(clock: HostClock, calls: Sequence[Callable[[], object]], *, n_calls: int) -> Spread:
    """The host's time in each call; the device is waited for between some of them, outside of the times."""
    times = []
    for k in range(n_calls):
        if k % CALLS_QUEUED == 0:
            clock.synchronize()
        begin = clock.host_us()
        calls[k % len(calls)]()
        times.append(clock.host_us() - begin)
    clock.synchronize()
    return spread(times)


def gb_per_s(n_bytes: int, us: float) -> float:
    """10**9 bytes a second."""
    return n_bytes / us / 1e3


def share(moved_bytes: int, us: float, copy_moved_bytes: int, copy_us: float) -> float:
    """A bandwidth over that of the device's own copy; each counts what it reads and what it writes."""
    return gb_per_s(moved_bytes, us) / gb_per_s(copy_moved_bytes, copy_us)
