"""A GPU's clock and facts, as PyTorch or CuPy has them."""

import time
from typing import Any

import numpy as np


class TorchClock:
    """Events of PyTorch's current stream."""

    def record(self) -> Any:
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def reached(self, event: Any) -> bool:
        return bool(event.query())

    def elapsed_us(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end)) * 1e3

    def delay(self, us: float) -> None:
        import torch

        torch.cuda._sleep(int(us * CYCLES_PER_US))

    def synchronize(self) -> None:
        import torch

        torch.cuda.synchronize()

    def host_us(self) -> float:
        return perf_counter_us()


# No GPU's clock runs faster, so that a delay in cycles lasts at least as long as was asked.
CYCLES_PER_US = 3000
SPIN = r"""
extern "C" __global__ void spin(long long cycles) {
  const long long begin = clock64();
  while (clock64() - begin < cycles) {
  }
}
"""


class CupyClock:
    """Events of CuPy's current stream."""

    def __init__(self) -> None:
        import cupy

        self._spin = cupy.RawKernel(SPIN, "spin")

    def record(self) -> Any:
        import cupy

        event = cupy.cuda.Event()
        event.record()
        return event

    def reached(self, event: Any) -> bool:
        return bool(event.done)

    def elapsed_us(self, begin: Any, end: Any) -> float:
        import cupy

        return float(cupy.cuda.get_elapsed_time(begin, end)) * 1e3

    def delay(self, us: float) -> None:
        self._spin((1,), (1,), (np.int64(us * CYCLES_PER_US),))

    def synchronize(self) -> None:
        import cupy

        cupy.cuda.Device().synchronize()

    def host_us(self) -> float:
        return perf_counter_us()


def torch_facts() -> dict[str, Any]:
    """PyTorch's current GPU."""
    import torch

    of = torch.cuda.get_device_properties(torch.cuda.current_device())
    free_bytes, _ = torch.cuda.mem_get_info()
    return {
        "name": of.name,
        "id": f"GPU-{of.uuid}",
        "capability": f"{of.major}.{of.minor}",
        "multiprocessors": of.multi_processor_count,
        "memory_bytes": of.total_memory,
        "free_bytes": free_bytes,
        "l2_bytes": of.L2_cache_size,
    }


def cupy_facts() -> dict[str, Any]:
    """CuPy's current GPU."""
    import cupy

    number = cupy.cuda.runtime.getDevice()
    of = cupy.cuda.runtime.getDeviceProperties(number)
    free_bytes, total_bytes = cupy.cuda.runtime.memGetInfo()
    return {
        "name": of["name"].decode(),
        "id": cupy.cuda.runtime.deviceGetPCIBusId(number),
        "capability": f"{of['major']}.{of['minor']}",
        "multiprocessors": of["multiProcessorCount"],
        "memory_bytes": total_bytes,
        "free_bytes": free_bytes,
        "l2_bytes": of["l2CacheSize"],
    }


def perf_counter_us() -> float:
    """The host's clock."""
    return time.perf_counter() * 1e6


def thread_time_us() -> float:
    """This thread's time on a processor: what others do meanwhile is not in it."""
    return time.thread_time_ns() / 1e3
