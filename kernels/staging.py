"""Staged rows: ragged rows in one region of host memory, so that one copy takes a whole batch to the device.

For each ragged tensor the region holds, from byte `tables_at` (a multiple of 16) on:

    row_offsets  int64[n]        bytes from the region's start to row i's first byte
    cu_seqlens   int32[n + 1]    directly after it: how many steps the rows before row i have; a step is one entry of
                                 the ragged first axis
    rows         each begins at a multiple of 16 bytes, C-contiguous, ragged in the first axis only

infcore's arena writes the same bytes from C++.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import dtypes

ALIGNMENT = 16  # bytes of the widest move of a GPU's thread
STEPS_MAX = 2**31 - 1  # cu_seqlens are int32, as flash-attention's varlen functions take them


class StagedRows(NamedTuple):
    """One ragged tensor of a region: where its tables are and what its rows look like. Plain data of the host."""

    tables_at: int
    n_rows: int
    dtype: str
    trailing: tuple[int, ...]  # shape of one step
    lengths: NDArray[np.int64]  # steps of each row

    @property
    def step_bytes(self) -> int:
        """Bytes of one step."""
        return math.prod(map(int, self.trailing)) * dtypes.ITEM_BYTES[self.dtype]

    @property
    def cu_seqlens_at(self) -> int:
        """The byte where cu_seqlens begin."""
        return self.tables_at + 8 * self.n_rows

    @property
    def n_bytes(self) -> int:
        """Bytes from tables_at to the end of the last row, were they laid without gaps; they cannot take less."""
        return staged_bytes(self.lengths, self.step_bytes)


def rounded_up(n_bytes: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def tables_bytes(n_rows: int) -> int:
    """Bytes of both tables, up to where the first row may begin."""
    return rounded_up(8 * n_rows + 4 * (n_rows + 1))


def staged_bytes(lengths: NDArray[np.int64] | Sequence[int], step_bytes: int) -> int:
    """Bytes that one ragged tensor needs from a multiple of 16 on; itself a multiple of 16.

    lengths     steps of each row
    step_bytes  bytes of one step
    """
    row_bytes = np.asarray(lengths, np.int64) * step_bytes
    return tables_bytes(len(row_bytes)) + int((-(-row_bytes // ALIGNMENT) * ALIGNMENT).sum())


def checked_lengths(lengths: Any, rows: Sequence[Any]) -> NDArray[np.int64]:
    """Steps of each row: all of them, or as many as lengths says.

    Raises    TypeError, ValueError: not integers, not one per row, more than the row has, negative.
    """
    whole = np.fromiter((row.shape[0] for row in rows), np.int64, len(rows))
    if lengths is None:
        return whole
    asked = as_lengths(lengths)
    if asked.shape != whole.shape:
        raise ValueError(f"lengths have shape {asked.shape}, allowed is one for each of {len(rows)} rows")
    wrong = np.flatnonzero((asked < 0) | (asked > whole))
    if wrong.size:
        i = int(wrong[0])
        raise ValueError(f"lengths[{i}] is {asked[i]}, allowed is 0 to its row's {whole[i]} steps")
    return asked


def as_lengths(lengths: Any) -> NDArray[np.int64]:
    """(n,) with n of at least 1.

    Raises    TypeError, ValueError: not integers, another shape.
    """
    given = np.asarray(lengths)
    if given.size and given.dtype.kind not in "iu":
        raise TypeError(f"lengths are {given.dtype}, allowed are integers")
    if given.ndim != 1 or not given.size:
        raise ValueError(f"lengths have shape {given.shape}, allowed is one for each of at least one row")
    return given.astype(np.int64, copy=False)


class Extent(NamedTuple):
    """Of all rows together."""

    shortest: int  # steps
    longest: int
    total: int


def extent_of(lengths: NDArray[np.int64]) -> Extent:
    """Lengths in short.

    Raises    ValueError if their sum is more than STEPS_MAX, or one is negative.
    """
    if len(lengths) <= 256:  # where Python is faster than three calls of NumPy
        values = lengths.tolist()
        extent = Extent(min(values), max(values), sum(values))
    else:
        extent = Extent(int(lengths.min()), int(lengths.max()), int(lengths.sum()))
        if extent.longest > STEPS_MAX or extent.shortest < -STEPS_MAX:  # int64 may have overflowed
            extent = extent._replace(total=sum(lengths.tolist()))
    if extent.shortest < 0:
        i = int(np.flatnonzero(lengths < 0)[0])
        raise ValueError(f"lengths[{i}] is {lengths[i]}, allowed is 0 or more")
    if extent.total > STEPS_MAX:
        raise ValueError(f"lengths sum to {extent.total} steps; cu_seqlens are int32, allowed are {STEPS_MAX}")
    return extent


def cu_seqlens_of(lengths: NDArray[np.int64]) -> NDArray[np.int32]:
    """(n + 1,): the steps before each row, and of all of them."""
    cu_seqlens = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    return cu_seqlens


def table_bytes_of(row_offsets: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Both tables as they lie in memory, (tables_bytes(n),) uint8."""
    table = np.zeros(tables_bytes(len(lengths)), np.uint8)
    n = len(lengths)
    table[: 8 * n] = row_offsets.view(np.uint8)
    table[8 * n : 8 * n + 4 * (n + 1)] = cu_seqlens_of(lengths).view(np.uint8)
    return table


def check_staged(rows: StagedRows, memory_bytes: int) -> Extent:
    """That a region of that size can hold the tensor that is said to be in it.

    Raises    TypeError, ValueError: a dtype that is none, negative shapes, lengths that are not one for each row,
              negative, or too many together; a place that is not aligned or not inside the region.
    """
    if rows.dtype not in dtypes.ITEM_BYTES:
        raise TypeError(f"rows.dtype is {rows.dtype!r}; allowed are {', '.join(dtypes.ITEM_BYTES)}")
    if any(extent < 0 for extent in rows.trailing):
        raise ValueError(f"rows.trailing is {rows.trailing}, allowed is 0 or more on each axis")
    if rows.tables_at < 0 or rows.tables_at % ALIGNMENT:
        raise ValueError(f"rows.tables_at is {rows.tables_at}, allowed is a multiple of {ALIGNMENT}")
    lengths = as_lengths(rows.lengths)
    if len(lengths) != rows.n_rows:
        raise ValueError(f"rows.lengths has {len(lengths)} entries, allowed is one for each of {rows.n_rows} rows")
    extent = extent_of(lengths)
    # With the most that each row can lose to alignment; exactly only where that is too much, and where int64 holds it.
    # Python's integers have no bound.
    least = tables_bytes(rows.n_rows) + extent.total * rows.step_bytes
    n_bytes = least + (ALIGNMENT - 1) * rows.n_rows
    if rows.tables_at + n_bytes > memory_bytes:
        n_bytes = rows.n_bytes if rows.tables_at + least <= memory_bytes else least
    if rows.tables_at + n_bytes > memory_bytes:
        raise ValueError(
            f"memory has {memory_bytes} bytes, but {rows.n_rows} rows of these lengths and their tables need "
            f"{n_bytes} from byte {rows.tables_at} on: lengths overrun the rows, or rows the table"
        )
    return extent


def check_alike(rows: Sequence[Any]) -> tuple[str, tuple[int, ...]]:
    """Name of the rows' common dtype, and their common shape behind axis 0. Works on arrays of any library.

    Raises    TypeError, ValueError: no rows, a scalar, a dtype or trailing shape unlike row 0's.
    """
    if not len(rows):
        raise ValueError("rows is empty, allowed is at least one row (its length may be 0)")
    first = rows[0]
    dtype = dtypes.name_of(first.dtype, argument="rows[0].dtype")
    if not len(first.shape):
        raise ValueError("rows[0] has no axis, allowed is at least one: the ragged one")
    trailing = tuple(first.shape[1:])
    for i, row in enumerate(rows):
        if row.dtype != first.dtype:
            raise TypeError(f"rows[{i}] is {row.dtype}, allowed is row 0's {first.dtype}")
        if len(row.shape) != len(trailing) + 1 or tuple(row.shape[1:]) != trailing:
            raise ValueError(
                f"rows[{i}] has shape {tuple(row.shape)}; only axis 0 may differ from row 0's {tuple(first.shape)}"
            )
    return dtype, trailing


def stage(
    rows: Sequence[NDArray[Any]], memory: NDArray[np.uint8], at: int = 0, lengths: Sequence[int] | None = None
) -> StagedRows:
    """Write ragged rows and their tables into host memory, as above.

    rows      arrays alike in dtype and in all axes but the first; read only
    memory    (bytes,) uint8, C-contiguous, written from byte `at` on, a multiple of 16
    lengths   steps to take of each row; None takes all
    Returns   where they are; it holds no reference to memory.
    Raises    TypeError, ValueError: see checked_lengths, extent_of and check_alike; rows that are not C-contiguous;
              memory too small.
    Moves     each row's bytes once, and 12 bytes a row of tables.
    """
    rows = list(rows)
    dtype, trailing = check_alike(rows)
    steps = checked_lengths(lengths, rows)
    extent_of(steps)
    for i, row in enumerate(rows):
        if not row.flags.c_contiguous:
            raise ValueError(f"rows[{i}] has strides {row.strides}, allowed is C-contiguous")
    if memory.dtype != np.uint8 or memory.ndim != 1 or not memory.flags.c_contiguous:
        raise ValueError(f"memory is {memory.dtype} of shape {memory.shape}, allowed is uint8, (bytes,), C-contiguous")
    if at < 0 or at % ALIGNMENT:
        raise ValueError(f"at is {at}, allowed is a multiple of {ALIGNMENT}")
    staged = StagedRows(at, len(rows), dtype, trailing, steps)
    if at + staged.n_bytes > memory.size:
        raise ValueError(f"memory has {memory.size} bytes, the rows need {staged.n_bytes} from byte {at} on")

    row_bytes = steps * staged.step_bytes
    ends = np.cumsum(-(-row_bytes // ALIGNMENT) * ALIGNMENT)
    row_offsets = at + tables_bytes(len(rows)) + np.concatenate([[0], ends[:-1]]).astype(np.int64)
    memory[at : at + tables_bytes(len(rows))] = table_bytes_of(row_offsets, steps)
    for row, begin, n_bytes in zip(rows, row_offsets.tolist(), row_bytes.tolist(), strict=True):
        if n_bytes:
            memory[begin : begin + n_bytes] = row.reshape(-1).view(np.uint8)[:n_bytes]
    return staged
