"""infcore.pack for a GPU: rows into pinned host memory, one copy, one launch that packs, casts and pads."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from infcore.errors import InvalidArgument, InvalidType, MissingExtra
from infcore.packing import Packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infcore.kernels.staging import StagedRows


class _InFlight:
    """Host memory that a device still copies from, kept until the event behind the copy has happened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[tuple[Any, Any]] = []

    def keep(self, event: Any, memory: Any) -> None:
        """Also lets go of what has arrived since the last call."""
        from infcore.kernels import transfer

        with self._lock:
            self._held = [held for held in self._held if not transfer.happened(held[0])]
            if not transfer.happened(event):
                self._held.append((event, memory))


_in_flight = _InFlight()


def _pack_on_device(
    rows: Any,
    *,
    lengths: Any,
    layout: str,
    device: str,
    dtype: Any,
    pad_value: Any,
    side: str,
    batch_axis: int,
    stream: Any,
    backend: str | None = None,
) -> Packed:
    """What infcore.pack does where device is not "cpu"; its arguments are described there.

    rows      of the host: C-contiguous, of one of the dtypes that can be cast, with at least one axis. Or arrays that
              are on the device already: nothing is copied but the rows themselves
    backend   "triton", "cupy", None: the better one that is installed. With "triton", TRITON_INTERPRET=1 in the
              environment and device="cpu" the same happens on PyTorch's CPU tensors
    """
    from infcore.kernels import staging, transfer
    from infcore.kernels.pack import launch

    chosen = _checked_backend(device, backend)
    if batch_axis != 0:
        raise InvalidArgument(f"batch_axis is {batch_axis!r}; allowed: 0 where device is {device!r}")
    options = {
        "layout": layout,
        "dtype": dtype,
        "pad_value": pad_value,
        "side": side,
        "backend": chosen,
        "stream": stream,
    }
    try:
        rows = list(rows)
    except TypeError:
        raise InvalidType(f"rows is {type(rows).__name__}; allowed: a sequence of arrays") from None
    try:
        if rows and _is_on_gpu(rows[0]):
            steps = staging.checked_lengths(lengths, rows)
            made = launch.pack(None, rows, lengths=lengths, **options)
        else:
            memory, staged = _staged([np.asarray(row) for row in rows], lengths, chosen)
            steps = staged.lengths
            arrived, event = transfer.upload(memory, device, backend=chosen, stream=stream)
            _in_flight.keep(event, memory)
            made = launch.pack(arrived, staged, **options)
    except TypeError as error:
        raise InvalidType(str(error)) from error
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    return Packed(
        made.data,
        made.cu_seqlens,
        made.max_seqlen,
        layout=layout,
        row_ndim=made.data.ndim - (layout == "padded"),
        side=side,
        mask=made.mask,
        position_ids=made.position_ids,
        host_cu_seqlens=staging.cu_seqlens_of(steps),
    )


def _checked_backend(device: str, backend: str | None) -> str:
    """The back-end's name, where its packages and a GPU are there."""
    from infcore.kernels import backends, transfer

    interpreted = device == "cpu" and backend == "triton" and backends.interpreted()
    if not interpreted and not (isinstance(device, str) and re.fullmatch(r"cuda(:\d+)?", device)):
        raise InvalidArgument(f"device is {device!r}; allowed: 'cpu', 'cuda', 'cuda:N'")
    try:
        chosen: str = backends.choose(backend)
    except ValueError as error:
        raise MissingExtra(
            f"device {device!r} needs the packages 'torch' and 'triton', or 'cupy': pip install 'infcore[gpu]'"
        ) from error
    if not interpreted and not transfer.has_gpu(chosen):
        library = "torch" if chosen == "triton" else chosen
        raise InvalidArgument(f"device is {device!r}; allowed: 'cpu', as {library} finds no GPU here")
    return chosen


def _is_on_gpu(row: Any) -> bool:
    """Whether an array says by DLPack that it is elsewhere than in host memory (1: CPU, 3: pinned for CUDA)."""
    return hasattr(row, "__dlpack_device__") and row.__dlpack_device__()[0] not in (1, 3)


def _staged(rows: Sequence[Any], lengths: Any, backend: str) -> tuple[Any, StagedRows]:
    """Rows and their tables in new host memory, pinned where there is a GPU."""
    from infcore.kernels import dtypes, staging, transfer

    name, trailing = staging.check_alike(rows)
    steps = staging.checked_lengths(lengths, rows)
    step_bytes = dtypes.ITEM_BYTES[name] * int(np.prod(trailing, dtype=np.int64))
    n_bytes = staging.staged_bytes(steps, step_bytes)
    memory = np.frombuffer(transfer.host_memory(n_bytes, backend=backend), np.uint8, n_bytes)
    return memory, staging.stage(rows, memory, lengths=lengths)
