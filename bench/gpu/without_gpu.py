"""What can be said without a GPU: the same kernels' answers, bytes counted, and what compilers make of them.

Built of the tests' own tools (tests/gpu): Triton's interpreter, the CUDA sources under the host shim, and compiling
ahead of time. Importing this module switches the interpreter on for the process.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import cpp_build
import numpy as np
from gpu import ahead_of_time, interpreter
from gpu.ahead_of_time import CAPABILITIES, Code
from gpu.host_arrays import HostArrays, pretended_cupy
from gpu.host_build import HostBuild
from numpy.typing import NDArray
from operations import OPERATIONS
from places import TorchDevice
from workloads import Workload

from infcore.kernels import backends

COUNTED_BYTES = 1 << 18  # of a batch whose accesses are counted: some hundred programs of the interpreter
N_CODES_SMOKE = 2


class HostDevice:
    """A place: the CUDA sources as C++, under sanitizers, launched by the same code that launches them on a GPU.

    Each array is a buffer by itself, and an access beside one ends the run: there is no need for guards.
    """

    backend = "cupy"
    where = "host shim"
    device = "cuda:0"

    def __init__(self, build: HostBuild) -> None:
        self._build = build
        self.arrays = HostArrays()

    @contextmanager
    def case(self) -> Iterator[list[str]]:
        with pretended_cupy(self._build) as self.arrays:
            yield []

    def array(self, values: NDArray[Any], misaligned_by: int = 0) -> Any:
        return self.arrays.array(np.ascontiguousarray(values), misaligned_by)

    def poisoned(self, shape: Sequence[int], dtype: str, misaligned_by: int = 0) -> Any:
        return self.arrays.empty(tuple(shape), dtype, self.device, misaligned_by)

    def numpy(self, array: Any, dtype: str) -> NDArray[Any]:
        return array.numpy()

    def moved(self, workload: Workload) -> tuple[int, int]:
        """Bytes that one call reads and writes."""
        with self.case():
            workload.build(self).call()
            counted = self.arrays.memory.counted
        return sum(c.read_bytes for c in counted), sum(c.written_bytes for c in counted)


class InterpretedDevice(TorchDevice):
    """A place: Triton's kernels, interpreted."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self._torch = interpreter.require()
        self._watch: interpreter.Watch | None = None

    def poisoned(self, shape: Sequence[int], dtype: str, misaligned_by: int = 0) -> Any:
        tensor = super().poisoned(shape, dtype, misaligned_by)
        if self._watch is not None:
            self._watch.allow(f"{dtype} {tuple(shape)}, the {len(self._watch.read_bytes)}th", tensor)
        return tensor

    def moved(self, workload: Workload) -> tuple[int, int]:
        """Bytes that one call reads and writes; an access beside the arrays fails."""
        with interpreter.watched(self._torch) as self._watch:
            workload.build(self).call()
            counted, self._watch = self._watch, None
        return sum(counted.read_bytes.values()), sum(counted.written_bytes.values())


def why_not(backend: str) -> str:
    """Why a back-end's kernels cannot even run here without a GPU, or nothing."""
    if backend == "triton":
        return "" if "triton" in backends.available() else "torch and triton are not both installed"
    return "" if shutil.which(cpp_build.CXX) else f"there is no C++ compiler {cpp_build.CXX} for the host shim"


def place_of(backend: str, op: str) -> Any:
    """Where that back-end's kernels run instead of a GPU."""
    if backend == "triton":
        return InterpretedDevice()
    return HostDevice(import_module(f"gpu.{OPERATIONS[op].tools}_rig").build())


def counted_rows(place: Any, op: str, *, smoke: bool) -> Iterator[dict[str, Any]]:
    """Bytes moved by each workload, at a small size, over the floor."""
    workloads = OPERATIONS[op].workloads(np.random.default_rng(0), COUNTED_BYTES)
    for workload in [next(workloads)] if smoke else workloads:
        read_bytes, written_bytes = place.moved(workload)
        yield {
            "kind": "bytes",
            "op": op,
            "case": workload.says,
            "backend": place.backend,
            "where": place.where,
            "floor_bytes": workload.floor_bytes,
            "read_bytes": read_bytes,
            "written_bytes": written_bytes,
            "of_floor": (read_bytes + written_bytes) / workload.floor_bytes,
        }


def code_rows(backend: str, op: str, *, smoke: bool) -> Iterator[dict[str, Any]]:
    """What a back-end's compiler makes of an operation's kernels, for each GPU."""
    codes = import_module(f"gpu.{OPERATIONS[op].tools}_code")
    plans = dict(list(codes.EVERY.items())[: N_CODES_SMOKE if smoke else None])
    if backend == "triton":
        made = ahead_of_time.triton_code([codes.triton_kernel(plan, sass=not smoke) for plan in plans.values()])
    else:
        launches = [codes.cuda_launch(plan) for plan in plans.values()]
        made = [
            [
                ahead_of_time.cuda_code(launch.source, launch.kernel, capability, not smoke)
                for capability in CAPABILITIES
            ]
            for launch in launches
        ]
    for name, each in zip(plans, made, strict=True):
        for capability, code in zip(CAPABILITIES, each, strict=True):
            yield _code_row(backend, OPERATIONS[op].package, name, capability, code)


def _code_row(backend: str, package: str, name: str, capability: int, code: Code) -> dict[str, Any]:
    return {
        "kind": "compile_time",
        "op": package,
        "case": name,
        "backend": backend,
        "capability": f"sm_{capability}",
        "registers": code.registers,
        "shared_bytes": code.shared_bytes,
        "stack_bytes": code.stack_bytes,
        "local_bytes": code.local_bytes,
        # Read in the machine code; where that was not read, a spill would still show as stack.
        "spills": code.spills if code.accesses else None,
        "load_bits": max(code.widths("LDG") or code.ptx_widths("ld"), default=0),
        "store_bits": max(code.widths("STG") or code.ptx_widths("st"), default=0),
    }


def code_unavailable(backend: str) -> str:
    """Why nothing can be compiled ahead of time for a back-end, or nothing."""
    return ahead_of_time.unavailable() if backend == "triton" else ahead_of_time.cuda_unavailable()
