"""Staged lists of KV cache blocks -> a padded table of them and a slot for each new token: cuda.cuh in Triton."""

from typing import Any

import triton
import triton.language as tl

from .. import triton_launch
from .plan import N_THREADS, TILE, Plan


@triton.jit
def fill_columns(ids, n_blocks, row, max_blocks, first, pad_block, CHUNK: tl.constexpr, TILE: tl.constexpr):
    """A tile of one row of the table. CHUNK: what max_blocks is a multiple of. A whole tile of ids is not masked: its
    loads would be parted into single ids."""
    at = first + tl.arange(0, TILE)
    if CHUNK > 1 and first + TILE <= n_blocks:
        tl.store(row + at, tl.load(ids + at))
    else:
        taken = tl.load(ids + at, mask=at < n_blocks, other=pad_block)
        tl.store(row + at, taken, mask=at // CHUNK < max_blocks // CHUNK)


# Not specialised on: one program serves all sizes.
@triton.jit(do_not_specialize=["tokens_at", "tables_at", "max_blocks", "block_size", "pad_block", "n_slots"])
def fill_tables(
    base, table, slots, starts, tokens_at: tl.int64, tables_at: tl.int64,
    max_blocks: tl.int32, block_size: tl.int32, pad_block: tl.int32, n_slots: tl.int32,
    CHUNK: tl.constexpr, TILE: tl.constexpr, N_LANES: tl.constexpr,
):  # fmt: skip
    """See cuda.cuh. Grid (requests + 1, tiles)."""
    row = tl.program_id(0)
    n_requests = tl.num_programs(0) - 1
    first = tl.program_id(1) * TILE
    computed = (base + tokens_at).to(tl.pointer_type(tl.int32), bitcast=True)
    query_start_loc = computed + n_requests
    start = tl.load(query_start_loc + row)
    tl.store(starts + row, start, mask=tl.program_id(1) == 0)
    if row == n_requests:
        at = start.to(tl.int64) + first + tl.arange(0, TILE)
        tl.store(slots + at, tl.full((TILE,), -1, tl.int64), mask=at < n_slots)
        return
    n_tokens = tl.load(query_start_loc + row + 1) - start
    if (first < max_blocks) | (first < n_tokens):
        row_offsets = (base + tables_at).to(tl.pointer_type(tl.int64), bitcast=True)
        ids = (base + tl.multiple_of(tl.load(row_offsets + row), 16)).to(tl.pointer_type(tl.int32), bitcast=True)
        if first < max_blocks:
            cu_blocks = (row_offsets + n_requests).to(tl.pointer_type(tl.int32), bitcast=True) + row
            n_blocks = tl.load(cu_blocks + 1) - tl.load(cu_blocks)
            table += row.to(tl.int64) * (max_blocks // CHUNK) * CHUNK
            fill_columns(ids, n_blocks, table, max_blocks, first, pad_block, CHUNK, TILE)
        if first < n_tokens:
            # Two axes, so that this is laid out by itself: a warp's load takes the ids of 32 tokens in a row, which are
            # few. One axis would share the table's layout, where a thread has four lanes: the ids of 128, four times.
            token = first + (tl.arange(0, TILE // N_LANES) * N_LANES)[:, None] + tl.arange(0, N_LANES)[None, :]
            is_token = token < n_tokens
            position = tl.load(computed + row) + token
            block = position // block_size
            ids_of = tl.load(ids + block, mask=is_token, other=0).to(tl.int64)
            tl.store(slots + start + token, ids_of * block_size + (position - block * block_size), mask=is_token)


OPTIONS = {"num_warps": N_THREADS // 32, "num_stages": 1, "enable_fp_fusion": False}


def constants(plan: Plan) -> dict[str, Any]:
    """The constexpr arguments of a plan's specialisation."""
    return {"CHUNK": 4 if plan.wide else 1, "TILE": TILE, "N_LANES": N_THREADS}


def launch(plan: Plan, memory: Any, tokens_at: int, tables_at: int, table: Any, slots: Any, starts: Any) -> None:
    """One launch on the current stream. Tensors are PyTorch's."""
    triton_launch.launch(
        fill_tables,
        plan.grid,
        (memory, table, slots, starts),
        (tokens_at, tables_at, plan.max_blocks, plan.block_size, plan.pad_block, plan.n_slots),
        which=plan.wide,
        constants=lambda: constants(plan),
        options=OPTIONS,
    )
