"""Packs and unpacks the same rows by every back-end that runs without a GPU, and gives NumPy arrays."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from gpu import interpreter
from gpu.host_arrays import HostArrays, pretended_cupy
from gpu.host_build import HostBuild
from numpy.typing import NDArray

from infcore.kernels import dtypes, staging
from infcore.kernels.pack import cupy_kernel, launch, reference
from infcore.kernels.pack.plan import plan


class How(NamedTuple):
    """The arguments of pack, and where things lie."""

    layout: str = "packed"
    side: str = "right"
    dtype: str | None = None
    pad_value: float = 0
    staged: bool = True  # in one region; else arrays of their own
    row_shift: int = 0  # items past a multiple of 16 bytes at which rows of their own begin
    out_shift: int = 0  # the same of out

    @property
    def arguments(self) -> dict[str, Any]:
        return {"layout": self.layout, "side": self.side, "dtype": self.dtype, "pad_value": self.pad_value}


class Moved(NamedTuple):
    """Bytes that a launch read and wrote, tables included."""

    read_bytes: int
    written_bytes: int
    overwritten_bytes: int


@cache
def build() -> HostBuild:
    """Every instantiation that a plan can ask for."""
    names = set()
    for src in dtypes.ITEM_BYTES:
        for dst in dtypes.ITEM_BYTES:
            for alignment in (1, 2, 4, 8, 16):
                chosen = plan(
                    rows_from="table",
                    rows_to="packed",
                    src=src,
                    dst=dst,
                    n_rows=1,
                    max_seqlen=1,
                    step_elements=16,
                    alignment=max(alignment, dtypes.ITEM_BYTES[src]) if src == dst else alignment,
                )
                names.add(
                    cupy_kernel.cuda_launch(
                        chosen, base=0, row_offsets=0, cu_seqlens=0, out=0, cu_out=0, marks=0
                    ).kernel
                )
    return HostBuild(cupy_kernel.SOURCE, sorted(names))


def staged(rows: list[NDArray[Any]], at: int = 32) -> tuple[NDArray[np.uint8], staging.StagedRows]:
    """A region with room before the rows, where something else might be, and none after them."""
    lengths = [len(row) for row in rows]
    step_bytes = int(np.prod(rows[0].shape[1:])) * rows[0].dtype.itemsize
    # From an aligned address: NumPy promises 16 bytes only for its own larger arrays.
    memory = aligned(at + staging.staged_bytes(lengths, step_bytes))
    return memory, staging.stage(rows, memory, at)


def aligned(n_bytes: int, shift_bytes: int = 0) -> NDArray[np.uint8]:
    """Poisoned host memory, shift_bytes past a multiple of 16."""
    memory = np.full(n_bytes + 32, 0xEE, np.uint8)
    begin = -memory.ctypes.data % 16 + shift_bytes
    return memory[begin : begin + n_bytes]


def to_torch(torch: Any, values: NDArray[Any], shift_items: int = 0) -> Any:
    """A tensor with those values, shift_items past a multiple of 16 bytes."""
    memory = aligned(values.nbytes, shift_items * values.dtype.itemsize)
    memory[:] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return torch.from_numpy(memory).view(getattr(torch, str(values.dtype))).view(values.shape)


def from_torch(tensor: Any) -> NDArray[Any]:
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    item = np.dtype(bool) if name == "bool" else dtypes.numpy_dtype(name)
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().view(item).reshape(tensor.shape)


def out_shape(rows: list[NDArray[Any]], how: How) -> tuple[int, ...]:
    lengths = [len(row) for row in rows]
    steps = (sum(lengths),) if how.layout == "packed" else (len(rows), max(lengths))
    return (*steps, *rows[0].shape[1:])


def pack_triton(rows: list[NDArray[Any]], how: How) -> tuple[reference.Packed, Moved]:
    """By the interpreter, watched."""
    torch = interpreter.require()
    with interpreter.watched(torch) as watch:
        if how.staged:
            memory, place = staged(rows)
            region = torch.from_numpy(memory)
            watch.allow("region", region[place.tables_at :])
            given: tuple[Any, Any] = (region, place)
        else:
            given = (None, [to_torch(torch, row, how.row_shift) for row in rows])
            for i, tensor in enumerate(given[1]):
                watch.allow(f"row {i}", tensor)
        target = how.dtype or str(rows[0].dtype)
        out = to_torch(torch, np.zeros(out_shape(rows, how), dtypes.numpy_dtype(target)), how.out_shift)
        out.view(-1).view(torch.uint8).fill_(0xA5)
        watch.allow("out", out)
        got = launch.pack(*given, **how.arguments, backend="triton", out=out)
    moved = Moved(sum(watch.read_bytes.values()), sum(watch.written_bytes.values()), watch.overwritten_bytes)
    return _host(got, from_torch), moved


def pack_cuda(rows: list[NDArray[Any]], how: How) -> tuple[reference.Packed, Moved]:
    """By the CUDA source on the host, through all of launch()."""
    with pretended_cupy(build()) as arrays:
        if how.staged:
            memory, place = staged(rows)
            given: tuple[Any, Any] = (arrays.array(memory), place)
        else:
            given = (None, [arrays.array(row, how.row_shift * row.dtype.itemsize) for row in rows])
        target = how.dtype or str(rows[0].dtype)
        shift = how.out_shift * dtypes.ITEM_BYTES[target]
        out = arrays.empty(out_shape(rows, how), target, "cuda:0", misaligned_by=shift)
        got = launch.pack(*given, **how.arguments, backend="cupy", out=out)
        (_,) = arrays.launches
        return _host(got, lambda array: array.numpy()), moved_by(arrays)


def unpack_triton(
    data: NDArray[Any], lengths: list[int], shift: int = 0, out_shift: int = 0, **arguments: Any
) -> list[NDArray[Any]]:
    """By the interpreter, watched; data begins `shift` items past a multiple of 16 bytes.

    So does out by out_shift; where that is 0 there is none.
    """
    torch = interpreter.require()
    with interpreter.watched(torch) as watch:
        tensor = to_torch(torch, data, shift)
        watch.allow("data", tensor)
        if out_shift:
            target = dtypes.numpy_dtype(arguments["dtype"] or str(data.dtype))
            arguments["out"] = to_torch(torch, np.ones(unpacked_shape(data, lengths, arguments), target), out_shift)
            watch.allow("out", arguments["out"])
        got = launch.unpack(tensor, lengths, **arguments, backend="triton")
        assert watch.overwritten_bytes == 0
    return [from_torch(row) for row in got.rows]


def unpack_cuda(
    data: NDArray[Any], lengths: list[int], shift: int = 0, out_shift: int = 0, **arguments: Any
) -> list[NDArray[Any]]:
    """By the CUDA source on the host, through all of launch()."""
    with pretended_cupy(build()) as arrays:
        array = arrays.array(data, shift * data.dtype.itemsize)
        if out_shift:
            target = arguments["dtype"] or str(data.dtype)
            shape = unpacked_shape(data, lengths, arguments)
            arguments["out"] = arrays.empty(shape, target, "cuda:0", out_shift * dtypes.ITEM_BYTES[target])
        got = launch.unpack(array, lengths, **arguments, backend="cupy")
        assert moved_by(arrays).overwritten_bytes == 0
        return [row.numpy() for row in got.rows]


def unpacked_shape(data: NDArray[Any], lengths: list[int], arguments: dict[str, Any]) -> tuple[int, ...]:
    return (sum(lengths), *data.shape[1 if arguments["layout"] == "packed" else 2 :])


def moved_by(arrays: HostArrays) -> Moved:
    """What the last launch did to all memory."""
    counted = arrays.memory.counted
    return Moved(
        sum(each.read_bytes for each in counted),
        sum(each.written_bytes for each in counted),
        sum(each.overwritten_bytes for each in counted),
    )


def _host(got: Any, numpy_of: Any) -> reference.Packed:
    position_ids = None if got.position_ids is None else numpy_of(got.position_ids)
    mask = None if got.mask is None else numpy_of(got.mask)
    return reference.Packed(numpy_of(got.data), numpy_of(got.cu_seqlens), got.max_seqlen, position_ids, mask)
