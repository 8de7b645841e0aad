"""Makes the same block tables by every back-end that runs without a GPU, and gives NumPy arrays."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from gpu import interpreter
from gpu.host_arrays import pretended_cupy
from gpu.host_build import HostBuild
from gpu.pack_rig import aligned
from numpy.typing import NDArray

from infcore.kernels.block_table import cupy_kernel, launch, staging
from infcore.kernels.block_table.reference import BlockTables

STAGED = ("computed", "query_lens", "block_size", "n_blocks")


class Moved(NamedTuple):
    """Bytes that a launch read and wrote."""

    read_bytes: int
    written_bytes: int
    overwritten_bytes: int
    wide_writes: int | None = None  # of 16 bytes; not known of interpreted kernels


@cache
def build() -> HostBuild:
    """Every instantiation that a plan can ask for."""
    return HostBuild(cupy_kernel.SOURCE, [f"infcore::kernels::fill_tables<{wide}>" for wide in ("false", "true")])


def staged(blocks: Any, options: dict[str, Any], at: int = 48) -> tuple[NDArray[np.uint8], staging.StagedBlocks]:
    """A region with room before the requests, where something else might be, and none after them."""
    memory = aligned(at + staging.staged_bytes(map(len, blocks)))
    return memory, staging.stage(blocks, memory, at, **{name: options[name] for name in STAGED if name in options})


def launched_with(options: dict[str, Any]) -> dict[str, Any]:
    """What launch() is told again, or at all."""
    return {name: value for name, value in options.items() if name not in STAGED or name == "block_size"}


def by_triton(blocks: Any, options: dict[str, Any]) -> tuple[BlockTables, Moved]:
    """By the interpreter, watched."""
    torch = interpreter.require()
    memory, place = staged(blocks, options)
    region = torch.from_numpy(memory)
    with interpreter.watched(torch) as watch:
        watch.allow("region", region[place.tokens_at :])
        made = launch.block_table(region, place, backend="triton", **launched_with(options))
    moved = Moved(sum(watch.read_bytes.values()), sum(watch.written_bytes.values()), watch.overwritten_bytes)
    return BlockTables(*(array.numpy() for array in made)), moved


def by_cuda(blocks: Any, options: dict[str, Any]) -> tuple[BlockTables, Moved]:
    """By the CUDA source on the host, through all of launch()."""
    with pretended_cupy(build()) as arrays:
        memory, place = staged(blocks, options)
        made = launch.block_table(arrays.array(memory), place, backend="cupy", **launched_with(options))
        counted = arrays.memory.counted
        read, written, overwritten = (
            sum(getattr(c, f"{kind}_bytes") for c in counted) for kind in ("read", "written", "overwritten")
        )
        moved = Moved(read, written, overwritten, made.table.counted.wide_writes)
        return BlockTables(*(array.numpy() for array in made)), moved
