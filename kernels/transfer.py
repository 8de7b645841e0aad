"""Host memory and the way to a device: memory that a GPU reads by itself, and one copy of a whole batch on a stream."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import backends


def n_gpus(backend: str) -> int:
    """How many GPUs a back-end's library finds that it can use. Imports the library; may start its CUDA context."""
    if backend == "triton":
        import torch

        return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0
    import cupy

    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError:  # no driver
        return 0


def has_gpu(backend: str) -> bool:
    """Whether there is one."""
    return n_gpus(backend) > 0


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
    memory: NDArray[np.uint8], device: str, *, backend: str | None = None, stream: Any = None, event: Any = None
) -> tuple[Any, Any]:
    """Copies a batch to a device, once, on `stream`.

    memory    (bytes,) uint8, C-contiguous host memory; not to be changed until the event has happened
    device    "cuda", "cuda:N"; "cpu" gives a view without a copy (for interpreted kernels, so not of CuPy's)
    stream    the library's own stream or a CUstream's address; None is the current one
    event     the library's event to record behind the copy; None makes one
    Returns   (bytes,) uint8 on the device, and the event; None on the CPU, where there is nothing to wait for
    Raises    ValueError: a device that is none of these, or not there. What the library raises if memory is short
    Moves     len(memory) bytes over the bus, in the background if memory is pinned
    """
    if not isinstance(device, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ValueError(f"device is {device!r}, allowed are 'cuda', 'cuda:N' and 'cpu'")
    library = backends.arrays(backend)
    if device == "cpu":
        if library.name == "cupy":
            raise ValueError("device is 'cpu', but 'cupy' has arrays on GPUs alone; allowed are 'cuda' and 'cuda:N'")
        return library.adopt(memory), None
    there = n_gpus(library.name)
    if backends.device_index(device) >= there:
        allowed = f"'cpu' and 'cuda:0' to 'cuda:{there - 1}'" if there else "'cpu'"
        raise ValueError(f"device is {device!r}, but {library.name!r} finds {there or 'no'} GPU; allowed is {allowed}")
    with library.on(device, stream):
        if library.name == "triton":
            import torch

            arrived = torch.from_numpy(memory).to(device, non_blocking=True)
            event = torch.cuda.Event() if event is None else event
        else:
            import cupy

            arrived = cupy.empty(memory.shape, np.uint8)
            arrived.set(memory, stream=cupy.cuda.get_current_stream())
            event = cupy.cuda.Event(block=False, disable_timing=True) if event is None else event
        event.record()  # on the current stream, which is the copy's
    return arrived, event


def happened(event: Any) -> bool:
    """Whether the work before an event is done: True, where there was none to wait for."""
    if event is None:
        return True
    return bool(event.query() if hasattr(event, "query") else event.done)
