"""What is measured of pack and unpack: long and short rows, packed and padded, moved and cast."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch_ways
from checking import known_dtypes
from numpy.typing import NDArray
from torch_ways import Way
from workloads import MIB, Turn, Workload, random_block, torch_dtype, torch_rows

from infcore.kernels import dtypes, staging
from infcore.kernels.pack import launch


class RowsShape(NamedTuple):
    """Ragged rows."""

    says: str
    layout: str
    side: str
    src: str
    dst: str
    trailing: tuple[int, ...]
    steps_min: int
    steps_max: int
    size_bytes_max: int = 1 << 40  # PyTorch's ways take a tensor for each row, of which there can be too many


PACK_SHAPES = (
    RowsShape("float16 x 1024", "packed", "right", "float16", "float16", (1024,), 4, 512),
    RowsShape("float16 x 1024", "padded", "right", "float16", "float16", (1024,), 4, 512),
    RowsShape("float16 x 1024", "padded", "left", "float16", "float16", (1024,), 4, 512),
    RowsShape("float32 x 384 to bfloat16", "packed", "right", "float32", "bfloat16", (384,), 4, 512),
    RowsShape("float32 x 384", "padded", "right", "float32", "float32", (384,), 4, 512),
    RowsShape("tokens int64", "packed", "right", "int64", "int64", (), 4, 4096, 256 * MIB),
    RowsShape("tokens int64 to int32", "padded", "right", "int64", "int32", (), 4, 4096, 256 * MIB),
    RowsShape("short rows float16 x 64", "packed", "right", "float16", "float16", (64,), 1, 16, 64 * MIB),
    RowsShape("short rows float16 x 64", "padded", "right", "float16", "float16", (64,), 1, 16, 64 * MIB),
)
UNPACK_SHAPES = (
    RowsShape("float16 x 1024", "padded", "right", "float16", "float16", (1024,), 4, 512),
    RowsShape("float32 x 384 to float16", "padded", "right", "float32", "float16", (384,), 4, 512),
    RowsShape("short rows float16 x 64", "padded", "right", "float16", "float16", (64,), 1, 16, 64 * MIB),
)


def measurable(shape: RowsShape, size_bytes: int) -> bool:
    """Whether there is that shape at that size."""
    return size_bytes <= shape.size_bytes_max and shape.src in known_dtypes()


def lengths_for(rng: np.random.Generator, shape: RowsShape, size_bytes: int) -> NDArray[np.int64]:
    """Rows whose batch is of about that size in its own layout; at least one."""
    n_steps = max(1, size_bytes // (math.prod(shape.trailing) * dtypes.ITEM_BYTES[shape.dst]))
    if shape.layout == "padded":
        lengths = rng.integers(shape.steps_min, shape.steps_max, max(1, n_steps // shape.steps_max), endpoint=True)
        lengths[0] = shape.steps_max
        return lengths
    lengths = rng.integers(shape.steps_min, shape.steps_max, n_steps // shape.steps_min + 1, endpoint=True)
    ends = np.cumsum(lengths)
    n_rows = int(np.searchsorted(ends, n_steps)) + 1
    lengths[n_rows - 1] -= ends[n_rows - 1] - n_steps
    return lengths[:n_rows]


def pack_workload(rng: np.random.Generator, shape: RowsShape, size_bytes: int) -> Workload:
    """Staged rows to a batch."""
    lengths = lengths_for(rng, shape, size_bytes)
    n = len(lengths)
    step_items = math.prod(shape.trailing)
    src_bytes, dst_bytes = (step_items * dtypes.ITEM_BYTES[name] for name in (shape.src, shape.dst))
    block = random_block(rng, shape.src, shape.steps_max * step_items).reshape(shape.steps_max, *shape.trailing)
    region = np.empty(staging.staged_bytes(lengths, src_bytes), np.uint8)
    placed = staging.stage([block[:length] for length in lengths], region)
    total = int(lengths.sum())
    steps = (total,) if shape.layout == "packed" else (n, int(lengths.max()))
    n_steps = math.prod(steps)
    marks_bytes = n_steps * (4 if shape.layout == "packed" else 1)

    def build(device: Any) -> Turn:
        memory = device.array(region)
        out = device.poisoned((*steps, *shape.trailing), shape.dst)

        def call() -> Any:
            return launch.pack(
                memory, placed, layout=shape.layout, side=shape.side, dtype=shape.dst, backend=device.backend, out=out
            ).data

        return Turn(call, _pack_ways(memory, placed, shape) if device.backend == "triton" else {})

    return Workload(
        op="pack",
        says=_says(shape),
        size_bytes=n_steps * dst_bytes,
        floor_bytes=total * src_bytes + n_steps * dst_bytes + marks_bytes + 8 * n + 2 * 4 * (n + 1),
        set_bytes=region.nbytes + n_steps * dst_bytes + marks_bytes,
        build=build,
    )


def _says(shape: RowsShape) -> str:
    padded = f" on the {shape.side}" if shape.layout == "padded" else ""
    return f"{shape.layout}{padded}, {shape.says}, {shape.steps_min} to {shape.steps_max} steps"


def _pack_ways(memory: Any, placed: staging.StagedRows, shape: RowsShape) -> dict[str, Way]:
    rows = torch_rows(memory, placed)
    target = torch_dtype(shape.dst)
    if shape.layout == "packed":
        return torch_ways.packed_ways(rows, target)
    return torch_ways.padded_ways(rows, target, side=shape.side, lengths=placed.lengths)


def unpack_workload(rng: np.random.Generator, shape: RowsShape, size_bytes: int) -> Workload:
    """A padded batch of answers back to rows end to end."""
    lengths = lengths_for(rng, shape._replace(layout="packed"), size_bytes)
    longest, n, total = int(lengths.max()), len(lengths), int(lengths.sum())
    step_items = math.prod(shape.trailing)
    src_bytes, dst_bytes = (step_items * dtypes.ITEM_BYTES[name] for name in (shape.src, shape.dst))
    padded = random_block(rng, shape.src, n * longest * step_items).reshape(n, longest, *shape.trailing)

    def build(device: Any) -> Turn:
        data = device.array(padded)
        cu_seqlens = device.array(staging.cu_seqlens_of(lengths))
        out = device.poisoned((total, *shape.trailing), shape.dst)

        def call() -> Any:
            return launch.unpack(
                data,
                lengths,
                cu_seqlens=cu_seqlens,
                layout="padded",
                dtype=shape.dst,
                backend=device.backend,
                out=out,
            ).data

        target = torch_dtype(shape.dst) if device.backend == "triton" else None
        return Turn(call, torch_ways.unpacked_ways(data, lengths, target) if target is not None else {})

    return Workload(
        op="unpack",
        says=_says(shape),
        size_bytes=total * dst_bytes,
        floor_bytes=total * (src_bytes + dst_bytes) + 4 * (n + 1),
        set_bytes=padded.nbytes + total * dst_bytes,
        build=build,
    )


def pack_workloads(rng: np.random.Generator, size_bytes: int) -> Iterator[Workload]:
    """Every shape that there is of this size."""
    return (pack_workload(rng, shape, size_bytes) for shape in PACK_SHAPES if measurable(shape, size_bytes))


def unpack_workloads(rng: np.random.Generator, size_bytes: int) -> Iterator[Workload]:
    """Every shape that there is of this size."""
    return (unpack_workload(rng, shape, size_bytes) for shape in UNPACK_SHAPES if measurable(shape, size_bytes))
