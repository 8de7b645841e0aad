"""pack and unpack on a device: every check, then one launch."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import backends, dtypes, staging
from ..backends import ArrayFacts, Arrays
from ..staging import Extent, StagedRows
from .plan import Plan, plan


class Packed(NamedTuple):
    """A dense batch on the device; arrays are PyTorch's or CuPy's, as the back-end has it."""

    data: Any  # packed: (sum(lengths), *trailing); padded: (n_rows, max_seqlen, *trailing)
    cu_seqlens: Any  # (n_rows + 1,) int32: row i is steps cu_seqlens[i] .. cu_seqlens[i + 1]
    max_seqlen: int
    position_ids: Any | None  # packed: (sum(lengths),) int32, each step's place in its row
    mask: Any | None  # padded: (n_rows, max_seqlen) bool, True where there is data


class Unpacked(NamedTuple):
    """The answers of a batch: one packed array, and a view of it for each row."""

    data: Any  # (sum(lengths), *trailing)
    rows: list[Any]


class _Source(NamedTuple):
    """Rows somewhere on a device, as a kernel finds them."""

    base: Any  # what offsets count from, or the dense batch itself
    tables: Any  # memory that holds row_offsets, where rows are not dense, and directly behind them cu_seqlens
    tables_at: int  # from this byte on
    dtype: str
    trailing: tuple[int, ...]
    lengths: NDArray[np.int64]
    extent: Extent  # of the lengths
    device: str
    alignment: int  # bytes that every row's address is a multiple of, at most 16
    held: Any = None  # whose memory must not be given out again before the launch: rows that only we refer to


def pack(
    memory: Any,
    rows: StagedRows | Sequence[Any],
    *,
    layout: str = "packed",
    dtype: str | None = None,
    pad_value: float = 0,
    side: str = "right",
    lengths: Sequence[int] | None = None,
    backend: str | None = None,
    stream: Any = None,
    out: Any = None,
) -> Packed:
    """Ragged rows -> one dense batch, cast on the way.

    memory    (bytes,) uint8 on the device, a staged region; None where rows are arrays on the device
    rows      which tensor of the region, or arrays (length, *trailing) of one dtype, C-contiguous, on one device
    layout    "packed": end to end; "padded": a row each, max(lengths) long, filled with pad_value
    dtype     a name of dtypes.py; None keeps the rows'. As NumPy's astype: nearest, ties to even; float to integer
              truncates, out of range is unspecified
    side      where padded data lies: "right" pads on the right, "left" on the left
    lengths   steps to take of each array; a staged tensor has its own
    out       (as .data) array to write to; None makes one
    Returns   arrays owned by the caller, valid once `stream` reaches this point; none refers to memory or rows
    Stream    a stream of the back-end's library, or a CUstream's address; None is the current one. Rows must not
              change before it has reached this point.
    Raises    TypeError, ValueError before anything is launched: a value that is not allowed; arrays of the wrong dtype,
              shape, layout or device; lengths that overrun their rows or sum to more than int32; a region too small
    Moves     each source byte and each target byte once, and 8 bytes a row and tile of tables. Same bits as
              reference.pack.
    """
    library = backends.arrays(backend)
    rows_to = _rows_to(layout, side)
    if isinstance(rows, StagedRows):
        if lengths is not None:
            raise ValueError("lengths is given, but staged rows have their own; allowed is None")
        source = _staged(library, memory, rows, stream)
    else:
        if memory is not None:
            raise ValueError(f"memory is a {type(memory).__name__}, but rows are arrays; allowed is None")
        source = _separate(library, rows, lengths, stream)
    target = source.dtype if dtype is None else dtypes.name_of(dtype)
    pad_bits = dtypes.value_bits(pad_value, target)
    max_seqlen = source.extent.longest
    steps = (source.extent.total,) if layout == "packed" else (len(source.lengths), max_seqlen)
    if out is not None:
        out = library.adopt(out, stream)
        _check_out(library.facts(out), (*steps, *source.trailing), target, source.device)
    with library.on(source.device, stream):
        cu_seqlens = library.empty((len(source.lengths) + 1,), "int32", source.device)
        marks = library.empty(steps, "int32" if layout == "packed" else "bool", source.device)
        data = library.empty((*steps, *source.trailing), target, source.device) if out is None else out
        made = plan(
            rows_from="table",
            rows_to=rows_to,
            src=source.dtype,
            dst=target,
            n_rows=len(source.lengths),
            max_seqlen=max_seqlen,
            step_elements=math.prod(source.trailing),
            alignment=math.gcd(source.alignment, library.address(data)),
            pad_bits=pad_bits,
        )
        _launch(library, made, source, data, cu_seqlens, marks)
    return Packed(data, cu_seqlens, max_seqlen, *((marks, None) if layout == "packed" else (None, marks)))


def unpack(
    data: Any,
    lengths: Sequence[int],
    *,
    cu_seqlens: Any = None,
    layout: str = "packed",
    side: str = "right",
    dtype: str | None = None,
    backend: str | None = None,
    stream: Any = None,
    out: Any = None,
) -> Unpacked:
    """A packed or padded batch -> packed, perhaps in another dtype, and a view for each row.

    data        (sum(lengths), *trailing) packed, or (n_rows, at least max(lengths), *trailing) padded; on the device,
                C-contiguous, a dtype of dtypes.py
    lengths     steps of each row, on the host
    cu_seqlens  (n_rows + 1,) int32 on the device, of the same lengths, as pack gave it: what it holds is believed, as a
                look would wait for the device. None copies it there
    out         (sum(lengths), *trailing) to write to; None makes one, or takes data itself where that is the answer:
                packed, in the dtype asked for
    Others, returns, stream, raises: as pack. Moves each row's bytes in and out once.
    """
    library = backends.arrays(backend)
    _rows_to(layout, side)
    source = _dense(library, data, lengths, cu_seqlens, layout, stream)
    target = source.dtype if dtype is None else dtypes.name_of(dtype)
    shape = (source.extent.total, *source.trailing)
    if out is None and layout == "packed" and target == source.dtype:
        return Unpacked(source.base, library.split(source.base, source.lengths.tolist()))
    if out is not None:
        out = library.adopt(out, stream)
        _check_out(library.facts(out), shape, target, source.device)
    with library.on(source.device, stream):
        packed = library.empty(shape, target, source.device) if out is None else out
        padded = "padded_left" if side == "left" else "padded"
        made = plan(
            rows_from="packed" if layout == "packed" else padded,
            rows_to="packed",
            src=source.dtype,
            dst=target,
            n_rows=len(source.lengths),
            max_seqlen=0 if layout == "packed" else library.facts(source.base).shape[1],
            longest=source.extent.longest,
            step_elements=math.prod(source.trailing),
            alignment=math.gcd(source.alignment, library.address(packed)),
        )
        _launch(library, made, source, packed, None, None)
    return Unpacked(packed, library.split(packed, source.lengths.tolist()))


def _rows_to(layout: str, side: str) -> str:
    if layout not in ("packed", "padded"):
        raise ValueError(f"layout is {layout!r}, allowed are 'packed' and 'padded'")
    if side not in ("right", "left"):
        raise ValueError(f"side is {side!r}, allowed are 'right' and 'left'")
    if layout == "packed" and side == "left":
        raise ValueError("side is 'left', but layout 'packed' has no padding; allowed is 'right', the default")
    return layout if side == "right" else "padded_left"


def _staged(library: Arrays, memory: Any, rows: StagedRows, stream: Any) -> _Source:
    memory = library.adopt(memory, stream)
    facts = library.facts(memory)
    backends.check_device(facts, "memory")
    if facts.dtype != "uint8" or len(facts.shape) != 1 or not facts.contiguous:
        raise ValueError(f"memory is {facts.dtype} of shape {facts.shape}, allowed is uint8, (bytes,), C-contiguous")
    if facts.address % staging.ALIGNMENT:
        raise ValueError(f"memory begins at address {facts.address:#x}, allowed is a multiple of {staging.ALIGNMENT}")
    extent = staging.check_staged(rows, facts.shape[0])
    return _Source(
        memory,
        memory,
        rows.tables_at,
        rows.dtype,
        rows.trailing,
        rows.lengths,
        extent,
        facts.device,
        staging.ALIGNMENT,
    )


def _separate(library: Arrays, rows: Sequence[Any], lengths: Sequence[int] | None, stream: Any) -> _Source:
    """Arrays that lie on the device already: their tables are made here and copied there."""
    rows = [library.adopt(row, stream) for row in rows]
    dtype, trailing = staging.check_alike(rows)
    steps = staging.checked_lengths(lengths, rows)
    extent = staging.extent_of(steps)
    facts = [library.facts(row) for row in rows]
    for i, fact in enumerate(facts):
        backends.check_device(fact, f"rows[{i}]", None if i == 0 else facts[0].device)
        backends.check_contiguous(fact, f"rows[{i}]")
    addresses = np.array([fact.address for fact in facts], np.int64)
    _check_item_aligned(int(np.bitwise_or.reduce(addresses)), dtype, "rows")
    device = facts[0].device
    with library.on(device, stream):
        tables = library.empty((staging.tables_bytes(len(rows)),), "uint8", device)
        base = library.address(tables)
        # Relative to the tables, which are aligned, so that a row is aligned where its offset is.
        library.fill(tables, staging.table_bytes_of(addresses - base, steps))
    alignment = math.gcd(int(np.bitwise_or.reduce(addresses)), base, staging.ALIGNMENT)
    return _Source(tables, tables, 0, dtype, trailing, steps, extent, device, alignment, rows)


def _dense(library: Arrays, data: Any, lengths: Sequence[int], cu_seqlens: Any, layout: str, stream: Any) -> _Source:
    """A packed or padded batch as rows."""
    data = library.adopt(data, stream)
    facts = library.facts(data)
    backends.check_device(facts, "data")
    backends.check_contiguous(facts, "data")
    dtype = dtypes.name_of(facts.dtype, argument="data.dtype")
    steps = staging.as_lengths(lengths)
    extent = staging.extent_of(steps)
    n_lead = 1 if layout == "packed" else 2
    if len(facts.shape) < n_lead:
        raise ValueError(f"data has shape {facts.shape}, layout {layout!r} has at least {n_lead} axes")
    if layout == "packed" and facts.shape[0] != extent.total:
        raise ValueError(f"lengths sum to {extent.total}, allowed are data's {facts.shape[0]} steps")
    if layout == "padded" and (facts.shape[0] != len(steps) or facts.shape[1] < extent.longest):
        raise ValueError(
            f"lengths are {len(steps)}, up to {extent.longest}, but data has shape {facts.shape}: "
            "allowed is one for each row, at most its steps"
        )
    _check_item_aligned(facts.address, dtype, "data")
    if cu_seqlens is None:
        with library.on(facts.device, stream):
            cu_seqlens = library.empty((4 * (len(steps) + 1),), "uint8", facts.device)
            library.fill(cu_seqlens, staging.cu_seqlens_of(steps).view(np.uint8))
    else:
        cu_seqlens = library.adopt(cu_seqlens, stream)
        _check_out(library.facts(cu_seqlens), (len(steps) + 1,), "int32", facts.device, "cu_seqlens")
    trailing = facts.shape[n_lead:]
    alignment = math.gcd(facts.address, staging.ALIGNMENT)
    return _Source(data, cu_seqlens, 0, dtype, trailing, steps, extent, facts.device, alignment)


def _check_item_aligned(address: int, dtype: str, argument: str) -> None:
    if address % dtypes.ITEM_BYTES[dtype]:
        raise ValueError(f"{argument} begins at address {address:#x}, allowed is a multiple of one {dtype}'s size")


def _check_out(facts: ArrayFacts, shape: tuple[int, ...], dtype: str, device: str, argument: str = "out") -> None:
    if facts.shape != shape:
        raise ValueError(f"{argument} has shape {facts.shape}, allowed is {shape}")
    if facts.dtype != dtype:
        raise TypeError(f"{argument} is {facts.dtype}, allowed is {dtype}")
    backends.check_contiguous(facts, argument)
    backends.check_device(facts, argument, device)
    _check_item_aligned(facts.address, dtype, argument)


def _launch(library: Arrays, made: Plan, source: _Source, out: Any, cu_out: Any, marks: Any) -> None:
    """One launch on the current device and stream."""
    if library.name == "triton":
        from . import triton_kernel

        triton_kernel.launch(made, source.base, source.tables, source.tables_at, out, cu_out, marks)
        return
    from .. import cuda_module
    from . import cupy_kernel

    row_offsets = library.address(source.tables) + source.tables_at
    launch = cupy_kernel.cuda_launch(
        made,
        base=library.address(source.base),
        row_offsets=row_offsets,
        cu_seqlens=row_offsets + (8 * made.n_rows if made.rows_from == "table" else 0),
        out=library.address(out),
        cu_out=0 if cu_out is None else library.address(cu_out),
        marks=0 if marks is None else library.address(marks),
    )
    cuda_module.run(launch, device=backends.device_index(source.device))
