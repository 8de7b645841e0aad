"""Launch and host overhead: what a call costs the host, on a batch so small that the device's part is nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bandwidth import Bench
from measuring import Spread, host_us, wall_us
from operations import OPERATIONS
from workloads import Workload

TARGET_US = 20.0
SMALL_BYTES = 1 << 14
N_CALLS = 1000
N_WARM_UP = 100


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


def host_times(call: Callable[[], object], host_us_of: Callable[[], float]) -> Spread:
    """Of calls that launch nothing."""
    for _ in range(N_WARM_UP):
        call()
    return host_us(_HostAlone(host_us_of), [call], n_calls=N_CALLS)


def without_gpu(ops: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The host's time up to the driver, by a program of its own; see dispatch.py. No target stands beside it."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    program = [sys.executable, str(Path(__file__).with_name("dispatch.py")), *ops]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(program)}\n{done.stderr}")
    for op, times in json.loads(done.stdout).items():
        yield _row(op, small(op).says, "triton", "cpu, nothing launched") | times
