"""A batch on a GPU in two steps: bytes staged on the host and copied in one piece, then one launch."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from infcore.arena import Arena
from infcore.errors import InvalidArgument, InvalidType, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

_lock = threading.RLock()  # a row's own __array__ may pack, too
_arenas: list[Arena] = []


def on_device(
    device: str,
    stream: Any,
    n_bytes: int,
    stage: Callable[[NDArray[np.uint8]], Any],
    launch: Callable[[Any, Any, str], Any],
) -> Any:
    """What launch(region, what stage gave, back-end) gives on the device and stream.

    device   "cuda" or "cuda:N". With TRITON_INTERPRET=1 in the environment kernels are interpreted on the CPU, on
             PyTorch's tensors, and no GPU is needed
    stage    is given n_bytes of host memory to fill
    Raises   InvalidArgument where there is no such device, MissingExtra without a library that could use it
    """
    from infcore.kernels import backends

    if not backends.available():
        raise MissingExtra(f"device is {device!r}, which needs PyTorch or CuPy: pip install 'infcore[gpu]'")
    backend = backends.choose()
    where = "cpu" if backends.interpreted() and backend == "triton" else located(device, backend)
    with shared_arena() as arena:
        memory = arena.reserve(n_bytes)
        staged = stage(memory.array)
        region = arena.upload(memory, where, backend=backend, stream=stream)
    return launch(region, staged, backend)


@contextmanager
def shared_arena() -> Iterator[Arena]:
    """One arena for all calls: pinned memory is dear to get. Held while a batch is staged and its copy begins."""
    with _lock:
        if not _arenas:
            _arenas.append(Arena(pinned=True))
        yield _arenas[0]


def known(device: Any) -> str:
    """The name of a device, as far as its form goes.

    Raises  InvalidArgument, InvalidType.
    """
    if not isinstance(device, str):
        raise InvalidType(f"device is {device!r}; allowed: 'cpu', 'cuda', 'cuda:N'")
    if device != "cpu" and re.fullmatch(r"cuda(:\d{1,4})?", device) is None:
        raise InvalidArgument(f"device is {device!r}; allowed: 'cpu', 'cuda', 'cuda:N'")
    return device


def located(device: str, backend: str) -> str:
    """A GPU's name with its number; "cuda" is the current one.

    Raises  InvalidArgument if there is none of that number.
    """
    n_gpus, current = gpus(backend)
    number = current if device == "cuda" else int(device.partition(":")[2])
    if number >= n_gpus:
        allowed = "'cpu' alone, as there is no GPU" if n_gpus == 0 else f"'cpu', 'cuda:0' to 'cuda:{n_gpus - 1}'"
        raise InvalidArgument(f"device is {device!r}; allowed here: {allowed}")
    return f"cuda:{number}"


def gpus(backend: str) -> tuple[int, int]:
    """How many a back-end's library sees, and which is current."""
    if backend == "triton":
        import torch

        return (torch.cuda.device_count(), torch.cuda.current_device()) if torch.cuda.is_available() else (0, 0)
    import cupy

    try:
        return cupy.cuda.runtime.getDeviceCount(), cupy.cuda.Device().id
    except cupy.cuda.runtime.CUDARuntimeError:  # no driver, or no device
        return 0, 0
