"""KV cache blocks of many requests as block tables and slot mappings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from infcore._core.blocks import BlockRows, query_start_loc
from infcore._on_device import known, on_device
from infcore.errors import InfcoreError, InvalidArgument, InvalidType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["BlockTables", "block_table"]


class BlockTables(NamedTuple):
    """What attention over a paged cache takes, in vLLM's layouts; arrays of NumPy, or of the GPU's library.

    table            (n, max_blocks) int32: each request's block ids, then pad_block
    slot_mapping     (n_slots,) int64: for each new token its block's id * block_size + its offset there, then -1
    query_start_loc  (n + 1,) int32: request i has new tokens query_start_loc[i] to query_start_loc[i + 1]
    """

    table: Any
    slot_mapping: Any
    query_start_loc: Any


def block_table(
    blocks: Iterable[Sequence[int] | NDArray[np.int32]],
    *,
    computed: Sequence[int] | NDArray[Any],
    query_lens: Sequence[int] | NDArray[Any],
    block_size: int,
    n_blocks: int | None = None,
    max_blocks: int | None = None,
    n_slots: int | None = None,
    pad_block: int = -1,
    device: str = "cpu",
    stream: Any = None,
) -> BlockTables:
    """Block tables and slot mappings of requests that differ in length.

    blocks       n >= 1 lists of int, or C-contiguous int32 arrays: the blocks that hold request i's positions, in order
    computed     (n,) integers: how many positions request i has computed, its first new token's position
    query_lens   (n,) integers: its new tokens
    block_size   positions of a block
    n_blocks     blocks of the cache; where given, an id must be below it
    max_blocks   width of the table; None: the longest of blocks
    n_slots      length of the slot mapping; None: the sum of query_lens. A captured CUDA graph wants a fixed one
    pad_block    what fills the table; vLLM itself has 0 there
    device       "cpu", "cuda" or "cuda:N"
    stream       of the GPU, that of the library which runs it (PyTorch, else CuPy); None: its current one
    Returns      BlockTables, the caller's
    Raises       InvalidArgument, InvalidType: naming the argument, what it is and what is allowed; before any launch
    Costs        each id read twice and written once, 8 bytes written a token; large batches without the GIL
    Source       vllm/v1/worker/block_table.py (Apache-2.0) for the layouts
    """
    from infcore.kernels.block_table import staging

    try:
        if known(device) != "cpu":
            sizes = {"max_blocks": max_blocks, "n_slots": n_slots, "pad_block": pad_block}
            rows = staging.checked_blocks(blocks, n_blocks)
            return _on_device(rows, computed, query_lens, block_size, sizes, device, stream)
        ids_end = None if n_blocks is None else staging.integer("n_blocks", n_blocks, 0, 2**31)
        checked = BlockRows(blocks, ids_end)
        first, new, size = staging.checked_tokens(checked.lengths(), computed, query_lens, block_size)
        n_tokens = int(new.sum(dtype=np.int64))
        width, slots, pad = staging.checked_sizes(checked.longest, n_tokens, max_blocks, n_slots, pad_block)
    except InfcoreError:
        raise
    except ValueError as wrong:
        raise InvalidArgument(*wrong.args) from None
    except TypeError as wrong:
        raise InvalidType(*wrong.args) from None
    if stream is not None:
        raise InvalidArgument(f"stream is {stream!r}; allowed: None on the CPU")
    tables = BlockTables(np.empty((len(checked), width), np.int32), np.empty(slots, np.int64), query_start_loc(new))
    checked.table_into(tables.table, pad)
    checked.slots_into(tables.slot_mapping, first, new, size)
    return tables


def _on_device(
    rows: list[NDArray[np.int32]],
    computed: Any,
    query_lens: Any,
    block_size: int,
    sizes: dict[str, Any],
    device: str,
    stream: Any,
) -> BlockTables:
    from infcore.kernels.block_table import launch, staging

    def stage(memory: NDArray[np.uint8]) -> Any:
        return staging.stage(rows, memory, computed=computed, query_lens=query_lens, block_size=block_size)

    def launched(region: Any, staged: Any, backend: str) -> Any:
        return launch.block_table(region, staged, block_size=block_size, backend=backend, stream=stream, **sizes)

    n_bytes = staging.staged_bytes(len(row) for row in rows)
    return BlockTables(*on_device(device, stream, n_bytes, stage, launched))
