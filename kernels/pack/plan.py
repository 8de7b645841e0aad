"""What one launch moves: types, widths, tiles and grid, from plain numbers. Both back-ends launch the same plan."""

import math
from typing import NamedTuple

from .. import dtypes

N_THREADS = 256
WIDE_BYTES = 16
# Loads that a thread has under way: 64 bytes in 16-byte loads, and 8 items where a load is one item.
# Taken from how many bytes in flight hide a GPU's memory latency on paper; not run on a GPU.
BYTES_IN_FLIGHT = 64
ITEMS_IN_FLIGHT = 8
GRID_Y_MAX = 32768  # CUDA allows 65,535 in y and in z


class Plan(NamedTuple):
    """A launch of the row mover. Items are elements; of a move the widest words that every address is a multiple of."""

    rows_from: str  # "table" | "packed" | "padded" | "padded_left"
    rows_to: str  # "packed" | "padded" | "padded_left"
    src: str  # a dtype, or "word1" ... "word8" for moves
    dst: str
    wide: bool  # 128-bit loads and stores: every row, step and output begins at a multiple of 16 bytes
    n_rows: int
    max_seqlen: int
    step_items: int
    tile_items: int
    tile_steps: int  # a power of two
    grid: tuple[int, int, int]
    pad_bits: int  # of one element, repeated to 64 bits

    @property
    def tiles(self) -> int:
        """Tiles of the longest row."""
        return self.grid[1] * self.grid[2]


def item_bytes(name: str) -> int:
    """Bytes of an element or word."""
    return int(name.removeprefix("word")) if name.startswith("word") else dtypes.ITEM_BYTES[name]


def plan(
    *,
    rows_from: str,
    rows_to: str,
    src: str,
    dst: str,
    n_rows: int,
    max_seqlen: int,
    step_elements: int,
    alignment: int,
    longest: int | None = None,
    pad_bits: int = 0,
) -> Plan:
    """Choose width, tiles and grid.

    max_seqlen     steps of the longest row, or of a padded row where one side is padded
    longest        steps of the longest row where that is less, and the target is packed
    step_elements  elements of one step, the product of the trailing shape
    alignment      bytes, a power of two up to 16: what the addresses of all rows and of the target are multiples of;
                   each is one of its own element's size, which may be more
    """
    tiled = max_seqlen if longest is None or rows_to != "packed" else longest
    src_bytes, dst_bytes = dtypes.ITEM_BYTES[src], dtypes.ITEM_BYTES[dst]
    wide = math.gcd(alignment, step_elements * src_bytes, step_elements * dst_bytes, WIDE_BYTES) == WIDE_BYTES
    step_items = step_elements
    if src == dst or {src, dst} == {"int8", "uint8"}:  # no bit changes
        word = math.gcd(alignment, step_elements * src_bytes, 8)
        src = dst = f"word{word}"
        step_items = step_elements * src_bytes // word
        src_bytes = dst_bytes = word
    if wide:
        chunk = WIDE_BYTES // min(src_bytes, dst_bytes)
        widest = chunk * max(src_bytes, dst_bytes)
        tile_items = N_THREADS * chunk * max(1, BYTES_IN_FLIGHT // widest)
    else:
        tile_items = N_THREADS * ITEMS_IN_FLIGHT
    # Enough steps that a row's tiles cover its marks, too; a power of two, which Triton wants.
    tile_steps = 1 << (-(-tile_items // max(step_items, 1)) - 1).bit_length()
    n_tiles = max(1, -(-tiled * step_items // tile_items), -(-tiled // tile_steps))
    grid_y = min(n_tiles, GRID_Y_MAX)
    return Plan(
        rows_from=rows_from,
        rows_to=rows_to,
        src=src,
        dst=dst,
        wide=wide,
        n_rows=n_rows,
        max_seqlen=max_seqlen,
        step_items=step_items,
        tile_items=tile_items,
        tile_steps=tile_steps,
        grid=(n_rows, grid_y, -(-n_tiles // grid_y)),
        pad_bits=pad_bits,
    )
