"""Ragged rows into one batch and back: packed (end to end) or padded (dense)."""

from __future__ import annotations

from itertools import pairwise
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from infcore._core.rows import Rows, is_bfloat16, item_names
from infcore.errors import InvalidArgument, InvalidType, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["Packed", "pack", "unpack"]


class Packed:
    """Rows in one array that belongs to the caller: it is never reused, and nothing else refers to it.

    data          packed: (sum of lengths, *trailing). padded: (n, max_seqlen, *trailing), the n at batch_axis.
                  Scalar rows: (n,). NumPy, or a tensor (PyTorch, CuPy) where it was packed on a device
    cu_seqlens    (n + 1,) int32, beside data, cu_seqlens[0] == 0: packed, row i is
                  data[cu_seqlens[i]:cu_seqlens[i + 1]]
    max_seqlen    length of the longest row; a scalar row has length 1
    layout        "packed" or "padded"
    side          padded: where the padding is, "right" (after a row) or "left" (before it)
    batch_axis    where the n stands in data; 0 when packed
    row_ndim      axes of a row, 0 for scalars
    mask          padded: (n, max_seqlen) bool, True where a row holds its own data. None when packed
    position_ids  packed: (sum of lengths,) int32, each step's place in its row. None when padded
    lengths       (n,) int32, how many steps each row has: NumPy
    """

    __slots__ = (
        "_bounds",
        "_mask",
        "_position_ids",
        "batch_axis",
        "cu_seqlens",
        "data",
        "layout",
        "max_seqlen",
        "row_ndim",
        "side",
    )

    def __init__(
        self,
        data: Any,
        cu_seqlens: Any,
        max_seqlen: int,
        *,
        layout: str = "packed",
        batch_axis: int = 0,
        row_ndim: int = 1,
        side: str = "right",
        mask: Any = None,
        position_ids: Any = None,
        host_cu_seqlens: NDArray[np.int32] | None = None,
    ) -> None:
        self.data = data
        self.cu_seqlens = cu_seqlens
        self.max_seqlen = max_seqlen
        self.layout = layout
        self.batch_axis = batch_axis
        self.row_ndim = row_ndim
        self.side = side
        self._mask = mask
        self._position_ids = position_ids
        self._bounds: NDArray[np.int32] = cu_seqlens if host_cu_seqlens is None else host_cu_seqlens

    def __len__(self) -> int:
        return len(self._bounds) - 1

    @property
    def lengths(self) -> NDArray[np.int32]:
        """(n,) int32: how many steps each row has. Computed on each use."""
        return self._bounds[1:] - self._bounds[:-1]

    @property
    def mask(self) -> Any:
        """Padded: (n, max_seqlen) bool, True where a row holds its own data. On the CPU computed on each use."""
        if self._mask is not None or self.layout == "packed":
            return self._mask
        lengths = self.lengths[:, np.newaxis]
        steps = np.arange(self.max_seqlen, dtype=np.int32)
        return steps < lengths if self.side == "right" else steps >= self.max_seqlen - lengths

    @property
    def position_ids(self) -> Any:
        """Packed: (sum of lengths,) int32, each step's place in its row. On the CPU computed on each use."""
        if self._position_ids is not None or self.layout == "padded":
            return self._position_ids
        return np.arange(self._bounds[-1], dtype=np.int32) - np.repeat(self._bounds[:-1], self.lengths)

    def __repr__(self) -> str:
        dtype = str(self.data.dtype).removeprefix("torch.")
        return (
            f"Packed({len(self)} rows, layout={self.layout!r}, data={dtype}{list(self.data.shape)}, "
            f"max_seqlen={self.max_seqlen})"
        )


def pack(
    rows: Iterable[ArrayLike],
    *,
    lengths: ArrayLike | None = None,
    layout: str = "packed",
    device: str = "cpu",
    dtype: DTypeLike | None = None,
    pad_value: complex = 0,
    side: str = "right",
    batch_axis: int = 0,
    stream: Any = None,
) -> Packed:
    """One array of many rows that differ in length.

    rows        n >= 1 arrays of one dtype (number or bool) and at most 8 axes, alike in all but the first; scalars too;
                or one array, whose first axis is that over rows. Read only, not to be changed during the call. Rows
                that are not C-contiguous are copied twice
    lengths     n integers: row i counts for its first lengths[i] steps alone; None: all of them
    layout      "packed": end to end, nothing added. "padded": filled up to the longest with pad_value
    device      "cpu", or "cuda", "cuda:N" for device tensors: extra [gpu], PyTorch's where it is installed, else CuPy's
    dtype       None: the rows'. Else one of float32, float16, bfloat16, int64, int32, int8, uint8, to which rows of one
                of them are cast as NumPy's astype does, in the pass that copies; a float outside an integer's range
                gives some number
    pad_value   padded only: a number that the dtype holds (a float dtype may round it)
    side        padded only: where the padding is, "right" (after a row) or "left" (before it)
    batch_axis  padded only: where the axis over rows goes, 0 to the axes of a row
    stream      device only: the stream (torch.cuda.Stream, cupy.cuda.Stream) that the work is put on; None: the current
                one. The batch is valid for what comes after on that stream
    Returns     Packed; its data is the caller's
    Raises      InvalidArgument, InvalidType: naming the row, what it is and what is allowed; MissingExtra
    Costs       each byte of input copied once (device: once more, to it); large batches without the GIL
    """
    if layout != "packed" and layout != "padded":
        raise InvalidArgument(f"layout is {layout!r}; allowed: 'packed', 'padded'")
    if side != "right" and side != "left":
        raise InvalidArgument(f"side is {side!r}; allowed: 'right', 'left'")
    if device != "cpu":
        from infcore.packing_device import _pack_on_device

        return _pack_on_device(
            rows,
            lengths=lengths,
            layout=layout,
            device=device,
            dtype=dtype,
            pad_value=pad_value,
            side=side,
            batch_axis=batch_axis,
            stream=stream,
        )
    if stream is not None:
        raise InvalidArgument(f"stream is {stream!r}; allowed: None, as device is 'cpu'")
    checked = Rows(rows, lengths)
    target = checked.dtype if dtype is None else _dtype(dtype)
    if layout == "packed":
        axis = _checked_axis(batch_axis, 0, layout)
        data = checked.packed(target)
    else:
        axis = _checked_axis(batch_axis, checked.rank, layout)
        data = checked.padded(target, _pad_item(pad_value, target), axis, side == "left")
    return Packed(
        data,
        checked.cu_seqlens,
        checked.max_seqlen,
        layout=layout,
        batch_axis=axis,
        row_ndim=checked.rank,
        side=side,
    )


def unpack(packed: Packed) -> list[NDArray[Any]]:
    """The rows of a Packed, in order.

    Returns  n arrays (tensors, where packed.data is one): views into it, so nothing is copied and a change to one
             shows in the other
    Raises   InvalidType
    """
    if not isinstance(packed, Packed):
        raise InvalidType(f"packed is {type(packed).__name__}; allowed: what infcore.pack returns")
    bounds = packed._bounds.tolist()
    if packed.layout == "packed":
        if packed.row_ndim == 0:
            return [packed.data[i, ...] for i in range(len(packed))]
        return [packed.data[begin:end] for begin, end in pairwise(bounds)]
    rows = packed.data
    if packed.batch_axis:
        rows = np.moveaxis(rows, packed.batch_axis, 0)
    if packed.row_ndim == 0:
        return [rows[i, ...] for i in range(len(packed))]
    if packed.side == "left":
        longest = packed.max_seqlen
        return [rows[i, longest - (end - begin) :] for i, (begin, end) in enumerate(pairwise(bounds))]
    return [rows[i, : end - begin] for i, (begin, end) in enumerate(pairwise(bounds))]


def _dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """What NumPy makes of a dtype; bfloat16 by name, which ml_dtypes knows."""
    if isinstance(dtype, str) and dtype == "bfloat16":
        try:
            import ml_dtypes
        except ModuleNotFoundError as missing:
            raise MissingExtra(
                "dtype 'bfloat16' needs the package 'ml_dtypes': pip install 'infcore[gpu]'"
            ) from missing
        dtype = ml_dtypes.bfloat16
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise InvalidType(f"dtype is {dtype!r}; allowed: None, {', '.join(item_names)}") from None
    return found


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
        rounded = (dtype.kind in "fc" or is_bfloat16(dtype)) and bool(np.isfinite(item)) and bool(np.isfinite(given))
        fits = exact or rounded
    if not fits:
        raise InvalidArgument(f"pad_value is {pad_value!r}; allowed: a value that {dtype} holds")
    return item.tobytes()
