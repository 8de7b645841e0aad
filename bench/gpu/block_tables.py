"""block_table: cases, and what is measured of it: decode steps and prefills."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch_ways
from checking import Case, Output, Place
from numpy.typing import NDArray
from workloads import MIB, Turn, Workload, torch_rows

from infcore.kernels.block_table import launch, reference, staging

AT = 48  # where the tokens begin: something else may lie before them


class _Requests(NamedTuple):
    """Requests, and how their table is to look."""

    blocks: list[NDArray[np.int32]]
    computed: NDArray[np.int64]
    query_lens: NDArray[np.int64]
    block_size: int
    sizes: dict[str, Any]

    @property
    def tokens(self) -> dict[str, Any]:
        """What stage and the reference are told alike."""
        return {"computed": self.computed, "query_lens": self.query_lens, "block_size": self.block_size}

    def staged(self, at: int) -> tuple[NDArray[np.uint8], staging.StagedBlocks]:
        """In a region."""
        region = np.full(at + staging.staged_bytes([len(row) for row in self.blocks]), 0xEE, np.uint8)
        return region, staging.stage(self.blocks, region, at, **self.tokens)


def _drawn(rng: np.random.Generator, n: int, most: int, block_size: int) -> _Requests:
    """n requests of up to `most` blocks, some of none, some without new tokens."""
    n_blocks = rng.integers(0, most, n, endpoint=True) * rng.integers(0, 4, n).clip(0, 1)
    held = n_blocks * block_size
    query_lens = (rng.random(n) * (held + 1)).astype(np.int64)
    computed = (rng.random(n) * (held - query_lens + 1)).astype(np.int64)
    width = int(n_blocks.max())
    sizes = {
        "max_blocks": rng.choice(np.array([None, width, -(-(width + 1) // 4) * 4, width + 1], object)),
        "n_slots": rng.choice(np.array([None, int(query_lens.sum()) + 70], object)),
        "pad_block": int(rng.choice([-1, 0, 5])),
    }
    blocks = [rng.integers(0, 1 << 20, count).astype(np.int32) for count in n_blocks]
    return _Requests(blocks, computed, query_lens, block_size, sizes)


def _answer(place: Place, requests: _Requests, expected: reference.BlockTables) -> list[Output]:
    region, staged = requests.staged(AT)
    got = launch.block_table(
        place.array(region), staged, block_size=requests.block_size, **requests.sizes, backend=place.backend
    )
    return [
        Output("table", place.numpy(got.table, "int32"), expected.table),
        Output("slot_mapping", place.numpy(got.slot_mapping, "int64"), expected.slot_mapping),
        Output("query_start_loc", place.numpy(got.query_start_loc, "int32"), expected.query_start_loc),
    ]


def block_table_cases(rng: np.random.Generator, *, smoke: bool) -> Iterator[Case]:
    """Few and many requests, short and long lists, each block size."""
    shapes = [(1, 1), (1, 700), (3, 40), (7, 9)] if smoke else [(1, 1), (1, 5000), (3, 40), (40, 900), (500, 30)]
    for n, most in shapes:
        for block_size in (1, 16, 7) if smoke else (1, 2, 7, 16, 128):
            requests = _drawn(rng, n, most, block_size)
            expected = reference.block_table(requests.blocks, **requests.tokens, **requests.sizes)
            told = f"{n} requests of up to {most} blocks of {block_size}, {requests.sizes}"
            yield Case("block_table", told, partial(_answer, requests=requests, expected=expected))


class RequestsShape(NamedTuple):
    """Requests as an engine has them at one step."""

    says: str
    blocks_min: int
    blocks_max: int
    query_min: int
    query_max: int
    size_bytes_max: int = 64 * MIB  # ten times what engines have; PyTorch's way takes a tensor for each request


BLOCK_SIZE = 16
SHAPES = (
    RequestsShape("decode: 1 new token, 16 to 512 blocks of 16", 16, 512, 1, 1),
    RequestsShape("prefill: 256 to 4096 new tokens, up to 512 blocks of 16", 256, 512, 256, 4096),
)


def block_table_workload(rng: np.random.Generator, shape: RequestsShape, size_bytes: int) -> Workload:
    """Staged lists to a table and slots."""
    mean_bytes = 4 * shape.blocks_max + 8 * (shape.query_min + shape.query_max) // 2
    n = max(1, size_bytes // mean_bytes)
    n_blocks = rng.integers(shape.blocks_min, shape.blocks_max, n, endpoint=True)
    n_blocks[0] = shape.blocks_max
    query_lens = rng.integers(shape.query_min, shape.query_max, n, endpoint=True).clip(max=n_blocks * BLOCK_SIZE)
    blocks = [rng.integers(0, 1 << 20, count).astype(np.int32) for count in n_blocks]
    requests = _Requests(blocks, n_blocks * BLOCK_SIZE - query_lens, query_lens, BLOCK_SIZE, {})
    region, staged = requests.staged(0)
    total = int(query_lens.sum())
    written = 4 * n * shape.blocks_max + 8 * total

    def build(device: Any) -> Turn:
        memory = device.array(region)

        def call() -> tuple[Any, Any]:
            made = launch.block_table(memory, staged, block_size=BLOCK_SIZE, backend=device.backend)
            return made.table, made.slot_mapping

        if device.backend != "triton":
            return Turn(call, {})
        import torch

        rows = torch_rows(memory, staged.rows)
        on_device = [torch.from_numpy(each).to(memory.device) for each in (requests.computed, query_lens)]
        return Turn(call, torch_ways.block_table_ways(rows, *on_device, total, BLOCK_SIZE))

    return Workload(
        op="block_table",
        says=shape.says,
        size_bytes=written,
        floor_bytes=4 * int(n_blocks.sum()) + 12 * n + 2 * 4 * (n + 1) + written + 4 * (n + 1),
        set_bytes=region.nbytes + written,
        build=build,
    )


def block_table_workloads(rng: np.random.Generator, size_bytes: int) -> Iterator[Workload]:
    """Every shape that there is of this size."""
    return (block_table_workload(rng, shape, size_bytes) for shape in SHAPES if size_bytes <= shape.size_bytes_max)
