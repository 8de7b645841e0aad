"""A staged batch as PyTorch tensors, packed or padded: by the C++ packer on the CPU, by the kernels on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from infcore.device import Arrays, DenseInput, StagedBatch
from infcore.errors import InvalidArgument, UnknownName
from infcore.packing import pack
from infcore.request import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from infcore.kernels.staging import StagedRows
    from infcore.request import Array, TensorSpec

__all__ = [
    "KERNEL_DTYPES",
    "HostRegion",
    "KernelRegion",
    "TorchBatch",
    "TorchRagged",
    "check_dtypes",
    "current_stream",
    "stage_arrays",
    "tables_ahead",
]

KERNEL_DTYPES = ("float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8")
# What the kernels do not know they move as another type of the same size, bit by bit.
_MOVED_AS = {
    "float64": "int64",
    "complex64": "int64",
    "uint64": "int64",
    "uint32": "int32",
    "int16": "float16",
    "uint16": "float16",
    "bool": "uint8",
}


class TorchRagged(NamedTuple):
    """One ragged input of a batch, whose rows have lengths of their own.

    lengths       (n,) int64 on the host: how many steps each row has, 0 included
    cu_seqlens    (n + 1,) int32 on the device: packed row i is steps cu_seqlens[i] to cu_seqlens[i + 1]
    max_seqlen    the longest row's length
    position_ids  packed: (sum of lengths,) int32 on the device, each step's index in its row. padded: None
    mask          padded: (n, max_seqlen) bool on the device, True where a row's own steps are. packed: None
    """

    lengths: NDArray[np.int64]
    cu_seqlens: Any
    max_seqlen: int
    position_ids: Any
    mask: Any


@dataclass(frozen=True, slots=True)
class TorchBatch:
    """What a module may be told of its batch.

    layout      "packed": rows end to end, (sum of lengths, ...). "padded": (n, max_seqlen, ...), filled up behind
    n_requests  n
    ragged      {input: TorchRagged}; the other inputs are (n, ...) in either layout
    """

    layout: str
    n_requests: int
    ragged: Mapping[str, TorchRagged]

    @property
    def first(self) -> TorchRagged | None:
        """The first ragged input of the Model: cu_seqlens, max_seqlen, position_ids and mask mean its."""
        return next(iter(self.ragged.values()), None)

    def told(self) -> dict[str, Any]:
        """Each of BATCH_WORDS, for the call; None where it has no meaning here."""
        of = self.first
        return {
            "batch": self,
            "layout": self.layout,
            "cu_seqlens": None if of is None else of.cu_seqlens,
            "max_seqlen": None if of is None else of.max_seqlen,
            "position_ids": None if of is None else of.position_ids,
            "mask": None if of is None else of.mask,
        }


class HostRegion:
    """A staged batch on the CPU: dense inputs are views of its memory, ragged ones are packed from it once, in C++."""

    def __init__(self, torch: Any, batch: StagedBatch) -> None:
        self._torch = torch
        self._batch = batch

    def ragged(
        self, rows: StagedRows, spec: TensorSpec, layout: str, dtype: Any, group: list[int] | None
    ) -> tuple[Any, TorchRagged]:
        """The rows of a group (None: of all requests) in a layout, as dtype (None: as they are)."""
        torch = self._torch
        fused = _fused_dtype(rows.dtype, dtype)
        packed = pack(
            _host_rows(self._batch.memory, rows, spec, group), layout=layout, dtype=fused, pad_value=spec.pad_value
        )
        # PyTorch and NumPy share no bfloat16; its bits they do.
        bits = packed.data.view(np.int16) if fused == "bfloat16" else packed.data
        data = torch.from_numpy(bits)
        if fused == "bfloat16":
            data = data.view(torch.bfloat16)
        elif dtype is not None and fused is None:
            data = data.to(dtype)
        positions, mask = packed.position_ids, packed.mask
        return data, TorchRagged(
            packed.lengths.astype(np.int64),
            torch.from_numpy(packed.cu_seqlens),
            packed.max_seqlen,
            None if positions is None else torch.from_numpy(positions),
            None if mask is None else torch.from_numpy(mask),
        )

    def dense(self, held: DenseInput, dtype: Any, group: list[int] | None) -> Any:
        """A dense input of a group."""
        array = _dense_view(self._batch.memory, held)
        data = self._torch.from_numpy(array if group is None else array[group])
        return data if dtype is None else data.to(dtype)


class KernelRegion:
    """A staged batch in the device's memory, packed there by infcore.kernels.

    memory  (bytes,) uint8 on the device: the batch's own memory from byte `at` on, what tables_ahead gave before it
    at      a multiple of 64
    groups  of the plan, or None
    """

    def __init__(self, torch: Any, batch: StagedBatch, memory: Any, at: int, groups: list[list[int]] | None) -> None:
        self._torch = torch
        self._batch = batch
        self._memory = memory
        self._at = at
        self._tables = dict(_tables_of(batch, groups)[0])

    def ragged(
        self, rows: StagedRows, spec: TensorSpec, layout: str, dtype: Any, group: list[int] | None
    ) -> tuple[Any, TorchRagged]:
        """As HostRegion.ragged, by one launch."""
        from infcore.kernels.pack.launch import pack as launch

        moved = _MOVED_AS.get(rows.dtype, rows.dtype)
        memory, lengths = self._memory, rows.lengths
        if group is None:
            memory = memory[self._at :]
            staged = rows._replace(dtype=moved)
        else:
            lengths = lengths[group]
            tables_at = self._tables[rows.tables_at, group[0]]
            staged = rows._replace(tables_at=tables_at, n_rows=len(group), dtype=moved, lengths=lengths)
        packed = launch(
            memory,
            staged,
            layout=layout,
            dtype=None if dtype is None or moved != rows.dtype else str(dtype).removeprefix("torch."),
            pad_value=_pad_moved(spec),
            stream=current_stream(self._torch, memory),
        )
        data, cu_seqlens, position_ids, mask = map(
            self._tensor, (packed.data, packed.cu_seqlens, packed.position_ids, packed.mask)
        )
        if moved != rows.dtype:
            data = data.view(getattr(self._torch, rows.dtype))
            data = data if dtype is None else data.to(dtype)
        return data, TorchRagged(lengths, cu_seqlens, packed.max_seqlen, position_ids, mask)

    def dense(self, held: DenseInput, dtype: Any, group: list[int] | None) -> Any:
        """As HostRegion.dense."""
        like = self._torch.from_numpy(np.empty(0, held.dtype)).dtype
        n_bytes = int(np.prod(held.shape)) * np.dtype(held.dtype).itemsize
        begin = self._at + held.at
        data = self._memory[begin : begin + n_bytes].view(like).view(held.shape)
        if group is not None:
            begin = self._tables[-1, group[0]]
            data = data.index_select(0, self._memory[begin : begin + 8 * len(group)].view(self._torch.int64))
        return data if dtype is None else data.to(dtype)

    def _tensor(self, array: Any) -> Any:
        """PyTorch's own; CuPy's where Triton is not installed, without a copy."""
        return array if array is None or isinstance(array, self._torch.Tensor) else self._torch.from_dlpack(array)


def check_dtypes(torch: Any, who: str, model: Model, dtype: Any) -> None:
    """That every array of a model can be a tensor, and every ragged input be packed by the kernels: on the CPU too, so
    that what runs there runs on a GPU.

    dtype     what floats are cast to, or None
    Raises    InvalidArgument.
    """
    known = [*KERNEL_DTYPES, *_MOVED_AS]
    for spec in (*model.inputs, *model.outputs):
        if not isinstance(getattr(torch, spec.dtype.name, None), torch.dtype):
            raise InvalidArgument(f"{who}: {spec.name!r} is {spec.dtype.name}; allowed: a dtype that PyTorch has")
    for spec in model.inputs:
        if spec.ragged != (0,):
            continue
        if spec.dtype.name not in known:
            raise InvalidArgument(f"{who}: {spec.name!r} is {spec.dtype.name}, ragged; allowed: {', '.join(known)}")
        cast = torch.tensor(spec.pad_value, dtype=dtype) if dtype is not None and spec.dtype.kind == "f" else None
        if cast is not None and bool(cast.isinf()) and not np.isinf(spec.pad_value):
            raise InvalidArgument(
                f"{who}: pad_value of {spec.name!r} is {spec.pad_value!r}; allowed: a number that {dtype} holds"
            )
        if spec.dtype.name in _MOVED_AS and np.isnan(_pad_moved(spec)):
            raise InvalidArgument(
                f"{who}: pad_value of {spec.name!r} is {spec.pad_value!r}; allowed for "
                f"{spec.dtype.name}: a value whose bits are no NaN of float16, as 0"
            )


def stage_arrays(model: Model, inputs: Arrays) -> StagedBatch:
    """A batch of arrays (n, ...), each row as long as its array, staged as an engine would. Copies them."""
    from infcore.kernels.staging import stage, staged_bytes

    names = [spec.name for spec in model.inputs]
    if sorted(inputs) != sorted(names):
        raise UnknownName(f"inputs of model {model.name!r} are {sorted(inputs)}; allowed: exactly {names}")
    arrays = {spec.name: _checked_array(model, spec, inputs[spec.name]) for spec in model.inputs}
    n = len(arrays[names[0]])
    for name, array in arrays.items():
        if n == 0 or len(array) != n:
            raise InvalidArgument(
                f"inputs[{name!r}] of model {model.name!r} has shape {array.shape}; allowed: at least one row, as "
                f"many as inputs[{names[0]!r}]"
            )
    works = np.array([model.work_of({name: array[i] for name, array in arrays.items()}) for i in range(n)], np.float64)
    places, end = [], 0
    for spec in model.inputs:
        array = arrays[spec.name]
        places.append((spec, array, end))
        step_bytes = int(np.prod(array.shape[2:])) * array.itemsize
        n_bytes = staged_bytes([array.shape[1]] * n, step_bytes) if spec.ragged == (0,) else array.nbytes
        end += -(-n_bytes // 64) * 64
    memory = np.empty(end, np.uint8)
    staged: dict[str, StagedRows | DenseInput] = {}
    for spec, array, at in places:
        dtype = spec.dtype.name
        if spec.ragged == (0,):
            rows = list(array.view(_MOVED_AS.get(dtype, dtype)))
            staged[spec.name] = stage(rows, memory, at)._replace(dtype=dtype)
        else:
            memory[at : at + array.nbytes] = array.reshape(-1).view(np.uint8)
            staged[spec.name] = DenseInput(at, array.shape, dtype)
    return StagedBatch(memory, staged, works)


def _checked_array(model: Model, spec: TensorSpec, given: Any) -> Array:
    """A batch's array of one input, C-contiguous."""
    array: Array = np.asarray(given, order="C")
    fits = array.dtype == spec.dtype and array.ndim == len(spec.shape) + 1
    if not fits or any(want not in (None, there) for want, there in zip(spec.shape, array.shape[1:], strict=True)):
        shape = ", ".join(["n", *("any" if length is None else str(length) for length in spec.shape)])
        raise InvalidArgument(
            f"inputs[{spec.name!r}] of model {model.name!r} is {array.dtype} of shape {array.shape}; allowed: "
            f"{spec.dtype} of shape ({shape})"
        )
    return array


def tables_ahead(batch: StagedBatch, groups: list[list[int]]) -> NDArray[np.uint8]:
    """What goes before a batch's memory so that the kernels find the rows of each group.

    The tables inside that memory are those of the whole batch; a group has its own, whose row_offsets count from where
    these begin.
    """
    places, n_bytes = _tables_of(batch, groups)
    ahead = np.zeros(n_bytes, np.uint8)
    inputs = {held.tables_at: held for held in batch.inputs.values() if not isinstance(held, DenseInput)}
    for (of, first), at in places:
        group = next(group for group in groups if group[0] == first)
        if of < 0:
            ahead[at : at + 8 * len(group)].view(np.int64)[:] = group
            continue
        offsets = _row_offsets(batch.memory, inputs[of])[group] + n_bytes
        ahead[at : at + offsets.nbytes].view(np.int64)[:] = offsets
        cu_seqlens = np.fromiter(accumulate(inputs[of].lengths[group], initial=0), np.int32, len(group) + 1)
        ahead[at + offsets.nbytes : at + offsets.nbytes + cu_seqlens.nbytes].view(np.int32)[:] = cu_seqlens
    return ahead


def _tables_of(batch: StagedBatch, groups: list[list[int]] | None) -> tuple[list[tuple[tuple[int, int], int]], int]:
    """[((an input's tables_at or -1 for the row indices, a group's first row), where its table begins)], and the bytes
    of all: a multiple of 64, so that the batch's memory keeps its alignment behind them."""
    places: list[tuple[tuple[int, int], int]] = []
    at = 0
    ragged = [held.tables_at for held in batch.inputs.values() if not isinstance(held, DenseInput)]
    for group in groups or ():
        for of in (-1, *ragged):
            places.append(((of, group[0]), at))
            at += -(-(8 * len(group) + (0 if of < 0 else 4 * (len(group) + 1))) // 16) * 16
    return places, -(-at // 64) * 64


def _pad_moved(spec: TensorSpec) -> float:
    """The pad value as the type that the kernels move it as."""
    moved = _MOVED_AS.get(spec.dtype.name)
    if moved is None:
        return spec.pad_value
    value: float = np.array([spec.pad_value], spec.dtype).view(moved)[0].item()
    return value


def current_stream(torch: Any, memory: Any) -> int | None:
    """PyTorch's current stream as the kernels' launchers take it, whichever library launches."""
    return int(torch.cuda.current_stream(memory.device).cuda_stream) if memory.is_cuda else None


def _fused_dtype(source: str, dtype: Any) -> str | None:
    """The name of the dtype that infcore.pack casts to as it copies; None: it does not, and PyTorch does it after."""
    name = str(dtype).removeprefix("torch.")
    if dtype is None or source not in KERNEL_DTYPES:
        return None
    return None if name == "bfloat16" and not _numpy_has_bfloat16() else name


@cache
def _numpy_has_bfloat16() -> bool:
    return find_spec("ml_dtypes") is not None


def _row_offsets(memory: NDArray[np.uint8], rows: StagedRows) -> NDArray[np.int64]:
    return memory[rows.tables_at : rows.tables_at + 8 * rows.n_rows].view(np.int64)


def _host_rows(memory: NDArray[np.uint8], rows: StagedRows, spec: TensorSpec, group: list[int] | None) -> list[Array]:
    """Views of the rows as they lie in host memory."""
    step_bytes = spec.dtype.itemsize * int(np.prod(rows.trailing))
    offsets, lengths = _row_offsets(memory, rows).tolist(), rows.lengths.tolist()
    return [
        memory[offsets[i] : offsets[i] + lengths[i] * step_bytes].view(spec.dtype).reshape(lengths[i], *rows.trailing)
        for i in (range(rows.n_rows) if group is None else group)
    ]


def _dense_view(memory: NDArray[np.uint8], held: DenseInput) -> Array:
    dtype = np.dtype(held.dtype)
    n_bytes = int(np.prod(held.shape)) * dtype.itemsize
    return memory[held.at : held.at + n_bytes].view(dtype).reshape(held.shape)
