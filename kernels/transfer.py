"""Host memory and the way to a device: memory that a GPU reads by itself, and one copy of a whole batch on a stream."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import backends


def has_gpu(backend: str) -> bool:
    """Whether a back-end's library finds a GPU that it can use. Imports the library; may start its CUDA context."""
    if backend == "triton":
        import torch

        return bool(torch.cuda.is_available())
    import cupy

    try:
        return int(cupy.cuda.runtime.getDeviceCount()) > 0
    except cupy.cuda.runtime.CUDARuntimeError:  # no driver
        return False


def host_memory(n_bytes: int, *, backend: str | None = None) -> Any:
    """A writable buffer of n_bytes: pinned where there is a GPU, so that copies run beside kernels; else ordinary."""
    chosen = backends.choose(backend)
    if not has_gpu(chosen):
        return np.empty(n_bytes, np.uint8)
    if chosen == "triton":
        import torch

        return torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True).numpy()
    import cupy

    return cupy.cuda.alloc_pinned_memory(n_bytes)


def upload(
    memory: NDArray[np.uint8], device: str, *, backend: str | None = None, stream: Any = None
) -> tuple[Any, Any]:
    """Copies a batch to a device, once, on `stream`.

    memory    (bytes,) uint8, C-contiguous host memory; not to be changed until the event has happened
    device    "cuda", "cuda:N"; "cpu" gives a view without a copy (for interpreted kernels)
    stream    the library's own stream or a CUstream's address; None is the current one
    Returns   (bytes,) uint8 on the device, and the library's event that is recorded behind the copy; None on the CPU
    Raises    ValueError: a device that is none of these, or there is no GPU. What the library raises if memory is short
    Moves     len(memory) bytes over the bus, in the background if memory is pinned
    """
    kind = device.partition(":")[0]
    if kind not in ("cuda", "cpu"):
        raise ValueError(f"device is {device!r}, allowed are 'cuda', 'cuda:N' and 'cpu'")
    library = backends.arrays(backend)
    if kind == "cpu":
        return library.adopt(memory), None
    if not has_gpu(library.name):
        raise ValueError(f"device is {device!r}, but {library.name!r} finds no GPU; allowed is 'cpu'")
    with library.on(device, stream):
        if library.name == "triton":
            import torch

            arrived = torch.from_numpy(memory).to(device, non_blocking=True)
            event: Any = torch.cuda.Event()
            event.record()
        else:
            import cupy

            arrived = cupy.empty(memory.shape, np.uint8)
            arrived.set(memory, stream=cupy.cuda.get_current_stream())
            event = cupy.cuda.Event(block=False, disable_timing=True)
            event.record()
    return arrived, event


def happened(event: Any) -> bool:
    """Whether the work before an event is done: True, where there was none to wait for."""
    if event is None:
        return True
    return bool(event.query() if hasattr(event, "query") else event.done)
