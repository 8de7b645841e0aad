"""infcore.pack for a GPU: rows into pinned host memory, one copy, one launch that packs, casts and pads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from infcore._on_device import located, shared_arena
from infcore.errors import InvalidArgument, InvalidType, MissingExtra
from infcore.packing import Packed

if TYPE_CHECKING:
    from collections.abc import Sequence


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

    rows      of the host: of one of the dtypes that can be cast, with at least one axis. Or arrays that are on the
              device already, C-contiguous: then nothing is staged
    backend   "triton", "cupy", None: the better one that is installed. With "triton", TRITON_INTERPRET=1 in the
              environment and device="cpu" the same happens on PyTorch's CPU tensors
    """
    from infcore.kernels import staging
    from infcore.kernels.pack import launch

    chosen = _checked_backend(device, backend)
    if batch_axis != 0:
        raise InvalidArgument(f"batch_axis is {batch_axis!r}; allowed: 0 where device is {device!r}")
    is_sequence = isinstance(rows, list | tuple) or getattr(rows, "ndim", 0) > 0
    rows = rows if is_sequence else _listed(rows)
    there = len(rows) > 0 and _is_on_gpu(rows[0])
    memory: Any = None
    if layout == "packed":  # these are of no meaning there
        side, pad_value = "right", 0
    if there:
        rows = _checked_place(_listed(rows), device, chosen, stream)
    else:
        where = device if device == "cpu" else located(device, chosen)
        memory, rows = _staged(rows, lengths, where, chosen, stream)
    try:
        made = launch.pack(
            memory,
            rows,
            layout=layout,
            dtype=dtype,
            pad_value=pad_value,
            side=side,
            lengths=lengths if there else None,
            backend=chosen,
            stream=stream,
        )
    except TypeError as error:
        raise InvalidType(str(error)) from error
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    steps = staging.checked_lengths(lengths, rows) if there else rows.lengths
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


def _listed(rows: Any) -> list[Any]:
    try:
        return list(rows)
    except TypeError:
        raise InvalidType(f"rows is {type(rows).__name__}; allowed: a sequence of arrays") from None


def _is_on_gpu(row: Any) -> bool:
    """Whether an array says by DLPack that it is elsewhere than in host memory (1: CPU, 3: pinned for CUDA)."""
    return hasattr(row, "__dlpack_device__") and row.__dlpack_device__()[0] not in (1, 3)


def _checked_place(rows: Sequence[Any], device: str, backend: str, stream: Any) -> Sequence[Any]:
    """Rows as the back-end's own arrays, on the device that was asked for ("cuda": on any)."""
    from infcore.kernels import backends

    library = backends.arrays(backend)
    try:
        adopted = [library.adopt(row, stream) for row in rows]
    except TypeError as error:
        raise InvalidType(str(error)) from error
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    for i, row in enumerate(adopted):
        place = library.facts(row).device
        if device not in ("cuda", place):
            raise InvalidArgument(f"rows[{i}] is on {place}; allowed: {device}, as device says")
    return adopted


def _staged(rows: Any, lengths: Any, device: str, backend: str, stream: Any) -> tuple[Any, Any]:
    """The device's copy of the rows and their tables, under way on the stream, and what is where in it."""
    with shared_arena() as arena:
        staged = arena.stage(rows, lengths=lengths)
        return arena.upload(staged.region, device, backend=backend, stream=stream), staged.rows
