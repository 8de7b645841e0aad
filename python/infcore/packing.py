"""Ragged rows into one batch and back: packed (end to end) or padded (dense)."""

from __future__ import annotations

from itertools import pairwise
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from infcore._core.device import Rows
from infcore.errors import InvalidArgument, InvalidType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Packed", "pack", "unpack"]


class Packed:
    """Rows in one array that belongs to the caller: it is never reused, and nothing else refers to it.

    data        packed: (sum of lengths, *trailing). padded: (n, max_seqlen, *trailing), the n at batch_axis.
                Scalar rows: (n,)
    cu_seqlens  (n + 1,) int32, cu_seqlens[0] == 0: in the packed layout row i is data[cu_seqlens[i]:cu_seqlens[i + 1]]
    max_seqlen  length of the longest row; a scalar row has length 1
    layout      "packed" or "padded"
    batch_axis  where the n stands in data; 0 when packed
    row_ndim    axes of a row, 0 for scalars
    """

    __slots__ = ("batch_axis", "cu_seqlens", "data", "layout", "max_seqlen", "row_ndim")

    def __init__(
        self,
        data: NDArray[Any],
        cu_seqlens: NDArray[np.int32],
        max_seqlen: int,
        *,
        layout: str = "packed",
        batch_axis: int = 0,
        row_ndim: int = 1,
    ) -> None:
        self.data = data
        self.cu_seqlens = cu_seqlens
        self.max_seqlen = max_seqlen
        self.layout = layout
        self.batch_axis = batch_axis
        self.row_ndim = row_ndim

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    @property
    def lengths(self) -> NDArray[np.int32]:
        """(n,) int32: how many steps each row has. Computed on each use."""
        return self.cu_seqlens[1:] - self.cu_seqlens[:-1]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(n, max_seqlen) bool: True where a padded row holds its own data. Computed on each use."""
        return np.arange(self.max_seqlen) < self.lengths[:, np.newaxis]

    def __repr__(self) -> str:
        return (
            f"Packed({len(self)} rows, layout={self.layout!r}, data={self.data.dtype}{list(self.data.shape)}, "
            f"max_seqlen={self.max_seqlen})"
        )


def pack(
    rows: Iterable[ArrayLike],
    *,
    layout: str = "packed",
    device: str = "cpu",
    pad_value: complex = 0,
    batch_axis: int = 0,
) -> Packed:
    """One array of many rows that differ in length.

    rows        n >= 1 arrays of one dtype (number or bool) and at most 8 axes, alike in all but the first; scalars too.
                Read only, not to be changed during the call. Rows that are not C-contiguous are copied twice
    layout      "packed": end to end, nothing added. "padded": filled up to the longest with pad_value
    device      "cpu"
    pad_value   padded only: a number that the dtype holds (a float dtype may round it)
    batch_axis  padded only: where the axis over rows goes, 0 to the axes of a row
    Returns     Packed; its data is the caller's
    Raises      InvalidArgument, InvalidType: naming the row, what it is and what is allowed
    Costs       each byte of input copied once; large batches without the GIL
    """
    if layout not in ("packed", "padded"):
        raise InvalidArgument(f"layout is {layout!r}; allowed: 'packed', 'padded'")
    if device != "cpu":
        raise InvalidArgument(f"device is {device!r}; allowed: 'cpu'")
    checked = Rows(rows)
    batch_axis = _checked_axis(batch_axis, 0 if layout == "packed" else checked.rank, layout)
    if layout == "packed":
        data = checked.packed()
    else:
        data = checked.padded(_pad_item(pad_value, checked.dtype), batch_axis)
    return Packed(
        data,
        checked.cu_seqlens(),
        checked.max_seqlen,
        layout=layout,
        batch_axis=batch_axis,
        row_ndim=checked.rank,
    )


def unpack(packed: Packed) -> list[NDArray[Any]]:
    """The rows of a Packed, in order.

    Returns  n arrays: views into packed.data, so nothing is copied and a change to one shows in the other
    Raises   InvalidType
    """
    if not isinstance(packed, Packed):
        raise InvalidType(f"packed is {type(packed).__name__}; allowed: what infcore.pack returns")
    bounds = packed.cu_seqlens.tolist()
    if packed.layout == "packed":
        if packed.row_ndim == 0:
            return [packed.data[i, ...] for i in range(len(packed))]
        return [packed.data[begin:end] for begin, end in pairwise(bounds)]
    data = np.moveaxis(packed.data, packed.batch_axis, 0)
    if packed.row_ndim == 0:
        return [data[i, ...] for i in range(len(packed))]
    return [data[i, : bounds[i + 1] - bounds[i]] for i in range(len(packed))]


def _checked_axis(batch_axis: int, axis_max: int, layout: str) -> int:
    try:
        axis = index(batch_axis)
    except TypeError:
        raise InvalidType(f"batch_axis is {type(batch_axis).__name__}; allowed: an integer") from None
    if not 0 <= axis <= axis_max:
        raise InvalidArgument(f"batch_axis is {axis}; allowed: 0 to {axis_max} for these rows, {layout}")
    return axis


def _pad_item(pad_value: complex, dtype: np.dtype[Any]) -> bytes:
    """The bytes of one padding item."""
    if type(pad_value) is int and pad_value == 0:
        return bytes(dtype.itemsize)
    given = np.asarray(pad_value)
    if given.ndim != 0 or given.dtype.kind not in "biufc":
        raise InvalidType(f"pad_value is {pad_value!r}; allowed: one number")
    fits = dtype.kind == "c" or given.dtype.kind != "c"
    if fits:
        with np.errstate(all="ignore"):
            item = given.astype(dtype)
        exact = bool(item == given) or bool(np.isnan(item) and np.isnan(given))
        rounded = dtype.kind in "fc" and bool(np.isfinite(item)) and bool(np.isfinite(given))
        fits = exact or rounded
    if not fits:
        raise InvalidArgument(f"pad_value is {pad_value!r}; allowed: a value that {dtype} holds")
    return item.tobytes()
