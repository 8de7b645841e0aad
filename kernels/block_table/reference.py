"""block_table in NumPy, one token at a time: what the kernels must give, to the bit.

The layouts are vLLM's (vllm/v1/worker/block_table.py at 01edfd0): a row of block ids for each request, int32; a slot
for each new token, int64, block id * block_size + offset in the block, and -1 for the rest. vLLM fills the rest of a
row of ids with 0, which pad_block=0 does here; -1, where a wrong read shows, is our default.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .staging import checked_blocks, checked_sizes, checked_tokens

PAD_SLOT = -1  # vLLM's PAD_SLOT_ID: caches skip the token


class BlockTables(NamedTuple):
    """table (n, max_blocks) int32, slot_mapping (n_slots,) int64, query_start_loc (n + 1,) int32."""

    table: Any
    slot_mapping: Any
    query_start_loc: Any


def block_table(
    blocks: Any,
    *,
    computed: Any,
    query_lens: Any,
    block_size: int,
    n_blocks: int | None = None,
    max_blocks: int | None = None,
    n_slots: int | None = None,
    pad_block: int = -1,
) -> BlockTables:
    """Arguments as those of staging.stage and staging.checked_sizes."""
    rows = checked_blocks(blocks, n_blocks)
    lengths = np.array([len(row) for row in rows], np.int64)
    first, new, size = checked_tokens(lengths, computed, query_lens, block_size)
    width, slots, pad = checked_sizes(int(lengths.max()), int(new.sum(dtype=np.int64)), max_blocks, n_slots, pad_block)
    table = np.full((len(rows), width), pad, np.int32)
    slot_mapping: NDArray[np.int64] = np.full(slots, PAD_SLOT, np.int64)
    query_start_loc = np.zeros(len(rows) + 1, np.int32)
    token = 0
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
        for position in range(int(first[i]), int(first[i]) + int(new[i])):
            slot_mapping[token] = int(row[position // size]) * size + position % size
            token += 1
        query_start_loc[i + 1] = token
    return BlockTables(table, slot_mapping, query_start_loc)
