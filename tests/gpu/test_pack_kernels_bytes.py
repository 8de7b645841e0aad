"""Bytes that pack moves, counted, against the floor: every input byte read once, every output byte written once."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from gpu import pack_rig
from gpu.host_arrays import pretended_cupy
from gpu.pack_rig import How
from numpy.typing import NDArray

from infcore.kernels import dtypes
from infcore.kernels.pack import launch

ALLOWED = 1.05


class Shape(NamedTuple):
    """Ragged rows as models take them."""

    lengths: list[int]
    trailing: tuple[int, ...]
    dtype: str
    how: How


EMBEDDINGS = [int(length) for length in np.linspace(4, 512, 32)]
SHAPES = {
    "embeddings": Shape(EMBEDDINGS, (384,), "float32", How()),
    "embeddings to float16": Shape(EMBEDDINGS, (384,), "float32", How(dtype="float16")),
    "embeddings padded": Shape(EMBEDDINGS, (384,), "float32", How(layout="padded")),
    "tokens": Shape(EMBEDDINGS, (), "int64", How(dtype="int32")),
    "tokens padded left": Shape(EMBEDDINGS, (), "int64", How(layout="padded", side="left")),
    "bytes": Shape([5_000, 1, 40_000], (), "uint8", How(layout="padded")),
    # The worst for a grid of rows x tiles: blocks of short rows leave at once, having read two entries of cu_seqlens.
    "one long row": Shape([100_000, *[1] * 200], (), "int64", How()),
}
# A program of the interpreter takes milliseconds: fewer rows, and as long.
INTERPRETED = {
    name: shape._replace(lengths=shape.lengths[::8] if name != "one long row" else [20_000, *[1] * 8])
    for name, shape in SHAPES.items()
}


def rows_of(shape: Shape) -> list[NDArray[Any]]:
    random = np.random.default_rng(4)
    return [random.integers(0, 100, (length, *shape.trailing)).astype(shape.dtype) for length in shape.lengths]


def floor_bytes(shape: Shape) -> int:
    """Rows and their tables in; data, cu_seqlens and position ids or mask out."""
    n, step = len(shape.lengths), int(np.prod(shape.trailing))
    target = dtypes.ITEM_BYTES[shape.how.dtype or shape.dtype]
    in_bytes = sum(shape.lengths) * step * dtypes.ITEM_BYTES[shape.dtype] + 8 * n + 4 * (n + 1)
    steps = sum(shape.lengths) if shape.how.layout == "packed" else n * max(shape.lengths)
    mark_bytes = 4 if shape.how.layout == "packed" else 1
    return in_bytes + steps * (step * target + mark_bytes) + 4 * (n + 1)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_bytes_moved(backend: str, name: str) -> None:
    shape = (INTERPRETED if backend == "triton" else SHAPES)[name]
    pack = pack_rig.pack_triton if backend == "triton" else pack_rig.pack_cuda
    _, moved = pack(rows_of(shape), shape.how)
    floor = floor_bytes(shape)
    assert floor <= moved.read_bytes + moved.written_bytes <= ALLOWED * floor
    assert moved.overwritten_bytes == 0


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_aligned_data_moves_in_128_bits(layout: str) -> None:
    rows = rows_of(SHAPES["embeddings"]._replace(lengths=[40, 0, 7]))
    n_bytes = sum(row.nbytes for row in rows)
    with pretended_cupy(pack_rig.build()) as arrays:
        memory, staged = pack_rig.staged(rows)
        region = arrays.array(memory)
        packed = launch.pack(region, staged, layout=layout, backend="cupy")
        assert region.counted.wide_reads * 16 == n_bytes
        assert packed.data.counted.wide_writes * 16 == packed.data.numpy().nbytes
