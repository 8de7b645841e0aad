"""Packing in NumPy, one row at a time: what the kernels are held against."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import dtypes


class Packed(NamedTuple):
    """As launch.Packed, in host memory."""

    data: NDArray[Any]
    cu_seqlens: NDArray[np.int32]
    max_seqlen: int
    position_ids: NDArray[np.int32] | None
    mask: NDArray[np.bool_] | None


def pack(
    rows: Sequence[NDArray[Any]],
    *,
    layout: str = "packed",
    dtype: str | None = None,
    pad_value: float = 0,
    side: str = "right",
) -> Packed:
    """Rows end to end, or each in a row of its own as long as the longest."""
    lengths = [len(row) for row in rows]
    target = rows[0].dtype if dtype is None else dtypes.numpy_dtype(dtype)
    cast = [row.astype(target) for row in rows]
    cu_seqlens = np.cumsum([0, *lengths]).astype(np.int32)
    if layout == "packed":
        position_ids = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
        return Packed(np.concatenate(cast), cu_seqlens, max(lengths), position_ids, None)
    shape = (len(rows), max(lengths))
    data = np.full((*shape, *rows[0].shape[1:]), pad_value, target)
    mask = np.zeros(shape, bool)
    for i, row in enumerate(cast):
        begin = shape[1] - len(row) if side == "left" else 0
        data[i, begin : begin + len(row)] = row
        mask[i, begin : begin + len(row)] = True
    return Packed(data, cu_seqlens, max(lengths), None, mask)


def unpack(
    data: NDArray[Any],
    lengths: Sequence[int],
    *,
    layout: str = "packed",
    side: str = "right",
    dtype: str | None = None,
) -> list[NDArray[Any]]:
    """The rows of a packed or padded batch, each on its own."""
    target = data.dtype if dtype is None else dtypes.numpy_dtype(dtype)
    if layout == "packed":
        rows = np.split(data, np.cumsum(lengths)[:-1])
    elif side == "left":
        rows = [row[len(row) - length :] for row, length in zip(data, lengths, strict=True)]
    else:
        rows = [row[:length] for row, length in zip(data, lengths, strict=True)]
    return [row.astype(target) for row in rows]
