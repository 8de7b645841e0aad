"""Without a GPU: the host's time of a call, up to the driver. A program of its own, since Triton must not interpret.

Kernels are compiled for sm_90 and looked up by Triton as on a GPU; only the driver's part, loading and launching, does
nothing. Tensors are PyTorch's on the CPU, so choosing the GPU and its stream is not in it, and the CPU's allocator is.

    python bench/gpu/dispatch.py pack unpack    # prints a JSON object
"""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any
from unittest import mock

CAPABILITY = 90
MAX_SHARED_BYTES = 227 << 10  # sm_90's
MAX_THREADS = 1024


class _Loaded:
    """What Triton's driver does with a cubin."""

    def load_binary(self, *cubin: Any) -> tuple[int, int, int, int, int]:
        """(module, function, registers, spills, most threads of a block)."""
        return 1, 1, 32, 0, MAX_THREADS

    def unload_module(self, module: Any) -> None:
        """Nothing was loaded."""

    def get_device_properties(self, device: int) -> dict[str, int]:
        """What is asked of them."""
        return {"max_shared_mem": MAX_SHARED_BYTES}


class NoDriver:
    """A driver of Triton's that launches nothing."""

    utils = _Loaded()

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", CAPABILITY, 32)

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        return lambda *arguments: None


def measured(ops: list[str]) -> dict[str, dict[str, Any]]:
    """For each operation the times of our own Python alone, and with Triton's."""
    from triton.runtime import driver

    driver.set_active(NoDriver())
    import overhead
    from clocks import thread_time_us
    from operations import OPERATIONS
    from places import TorchDevice

    from infcore.kernels import backends

    rows = {}
    with mock.patch.object(backends, "interpreted", lambda: True):  # tensors of the CPU are let through
        for op in ops:
            call = overhead.small(op).build(TorchDevice("cpu")).call
            whole = overhead.host_times(call, thread_time_us)
            triton_kernel = import_module(f"infcore.kernels.{OPERATIONS[op].package}.triton_kernel")
            with mock.patch.object(triton_kernel, "launch", lambda *arguments: None):
                own = overhead.host_times(call, thread_time_us)
            rows[op] = {"own_us": own._asdict(), "host_us": whole._asdict()}
    return rows


if __name__ == "__main__":
    import run

    run.find_kernels()
    print(json.dumps(measured(sys.argv[1:])))
