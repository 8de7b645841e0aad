"""Bandwidth of a workload: on the device and on the wall, beside the device's own copy and PyTorch's own ways."""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from measuring import Clock, device_us, gb_per_s, n_sets, share, wall_us
from torch_ways import Way
from workloads import Turn, Workload

FREE_SHARE = 0.3  # of the device's free memory for sets of buffers; PyTorch's ways take as much again, and more


class Bench(NamedTuple):
    """Where is measured and how often."""

    device: Any  # of places.py
    clock: Clock
    l2_bytes: int
    free_bytes: int
    n_calls: int
    n_warm_up: int


class CopyTime(NamedTuple):
    """The device's own copy."""

    moved_bytes: int  # read and written
    us: float

    @property
    def gb_per_s(self) -> float:
        """Of what it reads and writes."""
        return gb_per_s(self.moved_bytes, self.us)


def copy_calls(device: Any, n_bytes: int, n: int) -> list[Callable[[], object]]:
    """Copies from one buffer to another, of n pairs."""
    return [partial(device.copy, device.block(n_bytes), device.block(n_bytes)) for _ in range(n)]


def copy_time(bench: Bench, floor_bytes: int) -> CopyTime | None:
    """A copy that moves as much as a workload; None where memory or the host does not suffice."""
    n_bytes = max(1, floor_bytes // 2)
    n = n_sets(2 * n_bytes, bench.l2_bytes, int(bench.free_bytes * FREE_SHARE))
    if not n:
        return None
    calls = copy_calls(bench.device, n_bytes, n)
    taken = device_us(bench.clock, calls, n_calls=bench.n_calls, n_warm_up=bench.n_warm_up)
    return taken and CopyTime(2 * n_bytes, taken.p50)


def alike(ours: Any, theirs: Any, tolerance: float) -> bool:
    """Whether PyTorch's answer is ours; several arrays are compared one by one."""
    if isinstance(ours, tuple):
        return len(ours) == len(theirs) and all(alike(a, b, tolerance) for a, b in zip(ours, theirs, strict=True))
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    if not tolerance:
        return bool((ours == theirs).all())
    return bool((abs(ours.double() - theirs.double()) <= tolerance * (1 + abs(ours.double()))).all())


def way_row(bench: Bench, workload: Workload, turns: Sequence[Turn], name: str) -> dict[str, Any]:
    """One of PyTorch's ways; an error of PyTorch's is told, and is none of ours."""
    calls: list[Way] = [turn.ways[name] for turn in turns]
    row: dict[str, Any] = {"name": name, "same": None, "device_us": None, "wall_us": None}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = calls[0]()
            row["same"] = alike(turns[0].call(), theirs, workload.tolerance)
            del theirs
            taken = device_us(bench.clock, calls, n_calls=bench.n_calls, n_warm_up=bench.n_warm_up)
            row["device_us"] = taken and taken.p50
            row["wall_us"] = wall_us(bench.clock, calls, n_calls=bench.n_calls)
    except (RuntimeError, NotImplementedError) as e:
        row["error"] = f"{type(e).__name__}: {e}".splitlines()[0]
    return row


def measured(bench: Bench, workload: Workload) -> dict[str, Any]:
    """A row of the JSON document. Where its times are missing, `left_out` says why."""
    row: dict[str, Any] = {
        "kind": "bandwidth",
        "op": workload.op,
        "case": workload.says,
        "backend": bench.device.backend,
        "size_bytes": workload.size_bytes,
        "floor_bytes": workload.floor_bytes,
        "left_out": None,
    }
    n = n_sets(workload.set_bytes, bench.l2_bytes, int(bench.free_bytes * FREE_SHARE))
    if not n:
        needed = math.ceil(2 * workload.set_bytes / FREE_SHARE)
        return row | {"left_out": f"needs {needed} bytes of free memory, there are {bench.free_bytes}"}
    try:
        return row | {"n_sets": n} | _times(bench, workload, n)
    except (RuntimeError, MemoryError) as e:  # PyTorch's and CuPy's when memory is short
        return row | {"left_out": f"{type(e).__name__}: {e}".splitlines()[0]}


def _times(bench: Bench, workload: Workload, n: int) -> dict[str, Any]:
    copied = copy_time(bench, workload.floor_bytes)
    turns = [workload.build(bench.device) for _ in range(n)]
    calls = [turn.call for turn in turns]
    taken = device_us(bench.clock, calls, n_calls=bench.n_calls, n_warm_up=bench.n_warm_up)
    wall = wall_us(bench.clock, calls, n_calls=bench.n_calls)
    ways = [way_row(bench, workload, turns, name) for name in turns[0].ways]
    for way in ways:
        way["device_ratio"] = way["device_us"] / taken.p50 if taken and way["device_us"] else None
        way["wall_ratio"] = way["wall_us"] / wall if way["wall_us"] else None
    share_of_copy = None
    if taken and copied:
        share_of_copy = share(workload.floor_bytes, taken.p50, copied.moved_bytes, copied.us)
    return {
        "device_us": taken and taken._asdict(),
        "wall_us": wall,
        "gb_per_s": taken and gb_per_s(workload.floor_bytes, taken.p50),
        "copy_us": copied and copied.us,
        "copy_gb_per_s": copied and copied.gb_per_s,
        "share_of_copy": share_of_copy,
        "ways": ways,
        "left_out": None if taken else "the host did not keep ahead of the device",
    }
