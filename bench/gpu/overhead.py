"""Launch and host overhead: what a call costs the host, on a batch so small that the device's part is nothing."""

from collections.abc import Callable
from importlib import import_module
from typing import Any
from unittest import mock

import numpy as np
from bandwidth import Bench
from measuring import host_us, wall_us
from operations import OPERATIONS
from workloads import Workload

TARGET_US = 20.0
SMALL_BYTES = 1 << 14
N_CALLS = 400
N_WARM_UP = 40


def small(op: str) -> Workload:
    """The operation's first shape, tiny."""
    return next(OPERATIONS[op].workloads(np.random.default_rng(0), SMALL_BYTES))


def _row(op: str, says: str, backend: str, where: str) -> dict[str, Any]:
    return {"kind": "overhead", "op": op, "case": says, "backend": backend, "where": where}


def measured(bench: Bench, op: str) -> dict[str, Any]:
    """A call's time on the host, and calls back to back with a wait at the end, on a GPU."""
    workload = small(op)
    call = workload.build(bench.device).call
    for _ in range(N_WARM_UP):
        call()
    host = host_us(bench.clock, [call], n_calls=N_CALLS)
    wall = wall_us(bench.clock, [call], n_calls=N_CALLS)
    return _row(op, workload.says, bench.device.backend, "gpu") | {
        "host_us": host._asdict(),
        "wall_us": wall,
        "target_us": TARGET_US,
        "target_met": wall <= TARGET_US,
    }


class _HostAlone:
    """A clock where nothing is launched, and so nothing is to be waited for."""

    def __init__(self, host_us_of: Callable[[], float]) -> None:
        self.host_us = host_us_of

    def synchronize(self) -> None:
        """Nothing."""


def own_part(device: Any, op: str, host_us_of: Callable[[], float]) -> dict[str, Any]:
    """Without a GPU: our own Python up to where Triton would be called, on tensors of the CPU.

    Triton's launch, and choosing the GPU and its stream, come on top; that is why no target stands beside it.
    """
    workload = small(op)
    call = workload.build(device).call
    triton_kernel = import_module(f"infcore.kernels.{OPERATIONS[op].package}.triton_kernel")
    with mock.patch.object(triton_kernel, "launch", lambda *arguments: None):
        for _ in range(N_WARM_UP):
            call()
        taken = host_us(_HostAlone(host_us_of), [call], n_calls=N_CALLS)
    return _row(op, workload.says, device.backend, "cpu, nothing launched") | {"host_us": taken._asdict()}
