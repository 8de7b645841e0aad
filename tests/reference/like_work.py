"""Who goes with whom, readably: like work in padded batches, and preferred sizes. Called by reference.compose.

The groups are infcore's own, which tests/differential/test_length_groups.py holds against every way to cut.
"""

from bisect import bisect_left
from typing import Any

import numpy as np
from reference.batching import to_ns
from reference.lanes import Batch, Request, add_ns, larger

from infcore._core.batching import LengthGroups

WORTH_GROUPING = 0.9  # of the padded batch's seconds


def pads(latency: Any) -> bool:
    """The curve says that padding costs something."""
    return bool(latency.curve[3] > 0.0)


def matters_who_joins(engine: Any, sources: list[Any], latency: Any) -> bool:
    lanes = [source.lane for source in sources]
    least, most = min(lane.work_least for lane in lanes), max(lane.work_most for lane in lanes)
    if sum(len(lane.requests) for lane in lanes) < 2 or least == most:
        return False
    buckets = engine.models[lanes[0].model].length_buckets
    return pads(latency) or bisect_left(buckets, least) != bisect_left(buckets, most)


def is_like(engine: Any, batch: Batch, work: float, latency: Any) -> bool:
    """It may join: the batch gets no longer by it than it would take alone."""
    if work == batch.shape[2]:
        return True
    if pads(latency):
        alone_s = latency.service_s(1, work, work)
        return bool(latency.service_s(*larger(batch.shape, work)) <= latency.service_s(*batch.shape) + alone_s)
    buckets = engine.models[batch.model].length_buckets
    return bisect_left(buckets, work) == bisect_left(buckets, batch.shape[2])


def like_work(shown: list[Request], latency: Any, buckets: list[float], n_max: int) -> list[Request]:
    """Of those shown, what is of like work with the first."""
    if not pads(latency):
        bucket = bisect_left(buckets, shown[0].work)
        return [r for r in shown if bisect_left(buckets, r.work) == bucket]
    works = [r.work for r in shown]
    shape = (0, 0.0, 0.0)
    for work in works[:n_max]:
        shape = larger(shape, work)
    if groups_of(works[:n_max], latency, n_max)[1] > WORTH_GROUPING * seconds(latency.curve, shape):
        return shown
    group = next(group for group in groups_of(works, latency, n_max)[0] if 0 in group)
    return [r for r in shown if works[group[0]] <= r.work <= works[group[-1]]]


def seconds(curve: tuple[float, ...], shape: tuple[int, float, float]) -> float:
    n, work_sum, work_max = shape
    return curve[0] + curve[1] * n + curve[2] * work_sum + curve[3] * (n * work_max)


def groups_of(works: list[float], latency: Any, n_max: int) -> Any:
    return LengthGroups(len(works)).split(np.array(works), latency, max_batch_size=n_max)


def preferred(engine: Any, now_ns: int, sources: list[Any], latency: Any, n: int) -> int:
    """The largest preferred size within n, where the rest would be in time after that batch, and nobody is aged."""
    lanes = [source.lane for source in sources]
    sizes = [size for size in engine.models[lanes[0].model].preferred_batch_sizes if size <= n]
    if not sizes or sizes[-1] == n:
        return n
    waiting = [r for lane in lanes for r in lane.requests]
    if now_ns - min(r.arrival_ns for r in waiting) >= engine.ageing_ns:
        return n
    work_pending = 0.0
    for lane in lanes:
        work_pending += lane.work_pending
    mean = max(0.0, work_pending / len(waiting))
    first_s, rest_s = (latency.upper_s(k, mean * k, mean) for k in (sizes[-1], n - sizes[-1]))
    in_time = add_ns(now_ns, to_ns(first_s + rest_s)) <= min(lane.next_deadline_ns() for lane in lanes)
    return sizes[-1] if in_time else n
