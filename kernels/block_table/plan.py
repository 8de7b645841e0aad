"""What one launch of block_table does, from plain numbers. Both back-ends launch the same plan."""

from typing import NamedTuple

N_THREADS = 128
TILE = N_THREADS * 4  # ids or tokens of a block: 4 ids are a load and a store of 128 bits
N_TILES_MAX = 65535  # CUDA's bound of a grid's second axis


class Plan(NamedTuple):
    """A launch: a row of blocks for each request, and one more for the slots that no token has."""

    wide: bool  # every row of the table begins at a multiple of 16 bytes, as each request's ids do
    n_requests: int
    max_blocks: int
    block_size: int
    pad_block: int
    n_slots: int
    grid: tuple[int, int, int]


def plan(
    *,
    n_requests: int,
    max_blocks: int,
    max_query: int,
    n_tokens: int,
    n_slots: int,
    block_size: int,
    pad_block: int,
    aligned: bool,
) -> Plan:
    """max_query: most new tokens of a request. aligned: the table begins at a multiple of 16 bytes.

    Raises  ValueError if a row has more tiles than a grid.
    """
    n_tiles = max(1, -(-max(max_blocks, max_query, n_slots - n_tokens) // TILE))
    if n_tiles > N_TILES_MAX:
        raise ValueError(
            f"max_blocks, the largest of query_lens and the padding of n_slots are {max_blocks}, {max_query}, "
            f"{n_slots - n_tokens}; allowed: at most {N_TILES_MAX * TILE} each"
        )
    wide = aligned and max_blocks % 4 == 0
    return Plan(wide, n_requests, max_blocks, block_size, pad_block, n_slots, (n_requests + 1, n_tiles, 1))
