"""Ragged rows -> packed or padded, and back, in Triton: cuda.cuh's kernel, with a tile as one block of lanes.

Types are constexpr names of plan.py. bfloat16 is moved as 16-bit integers and converted by its bits, so that compiled
and interpreted code round alike (the interpreter's own conversion truncates). Conversions are as in cuda/numbers.cuh.
"""

from typing import Any

import triton
import triton.language as tl

from .. import triton_launch
from .plan import N_THREADS, WIDE_BYTES, Plan, item_bytes

# What is loaded and stored; bfloat16 and words are integers of their size.
MEMORY_TYPES = {
    "float32": tl.float32,
    "float16": tl.float16,
    "bfloat16": tl.int16,
    "int64": tl.int64,
    "int32": tl.int32,
    "int8": tl.int8,
    "uint8": tl.uint8,
    "word1": tl.int8,
    "word2": tl.int16,
    "word4": tl.int32,
    "word8": tl.int64,
}
BITS_TYPES = {1: tl.int8, 2: tl.int16, 4: tl.int32, 8: tl.int64}


@triton.jit
def bfloat16_to_float(values):
    return (values.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def float_to_bfloat16(values):
    bits = values.to(tl.int32, bitcast=True)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    kept = tl.where(values != values, bits | 0x400000, rounded)
    return (kept >> 16).to(tl.int16)


@triton.jit
def converted(values, SRC: tl.constexpr, DST: tl.constexpr, DST_TYPE: tl.constexpr):
    """SRC's values as DST's, as loaded and to be stored."""
    SRC_FLOAT: tl.constexpr = SRC == "float32" or SRC == "float16" or SRC == "bfloat16"
    DST_FLOAT: tl.constexpr = DST == "float32" or DST == "float16" or DST == "bfloat16"
    if SRC == DST:
        result = values
    elif SRC_FLOAT or DST_FLOAT:
        if SRC == "bfloat16":
            wide = bfloat16_to_float(values)
        else:
            wide = values.to(tl.float32)
        if DST == "bfloat16":
            result = float_to_bfloat16(wide)
        elif DST_FLOAT or DST == "int64":
            result = wide.to(DST_TYPE)
        else:
            result = wide.to(tl.int32).to(DST_TYPE)
    else:
        result = values.to(DST_TYPE)
    return result


@triton.jit
def write_marks(marks, first_step, first, n_steps, lead, length, TILE_STEPS: tl.constexpr, ROWS_TO: tl.constexpr):
    """TILE_STEPS of one row's position ids or mask, from `first` on; the row's are at first_step in the whole."""
    step = first + tl.arange(0, TILE_STEPS)
    if ROWS_TO == "packed":
        tl.store(marks + first_step + step, step.to(tl.int32), mask=step < n_steps)
    else:
        is_data = (step >= lead) & (step < lead + length)
        mask = marks.to(tl.pointer_type(tl.uint8), bitcast=True)
        tl.store(mask + first_step + step, is_data.to(tl.uint8), mask=step < n_steps)


@triton.jit
def within(items, CHUNK: tl.constexpr, TILE_ITEMS: tl.constexpr):
    """A place as a lane of the tile; still a multiple of CHUNK, which lets masked accesses stay wide."""
    return tl.multiple_of(tl.minimum(tl.maximum(items, 0), TILE_ITEMS).to(tl.int32), CHUNK)


@triton.jit
def row_of_source(
    base,
    tables,
    row,
    begin,
    length,
    max_seqlen,
    step_items,
    SRC_TYPE: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS_FROM: tl.constexpr,
):
    """Where the row's first step is read."""
    if ROWS_FROM == "table":
        row_at = tl.load(tables.to(tl.pointer_type(tl.int64), bitcast=True) + row)
        if CHUNK > 1:
            row_at = tl.multiple_of(row_at, 16)
        src = (base + row_at).to(tl.pointer_type(SRC_TYPE), bitcast=True)
    else:
        if ROWS_FROM == "packed":
            step = begin.to(tl.int64)
        elif ROWS_FROM == "padded":
            step = row * max_seqlen
        else:
            step = row * max_seqlen + (max_seqlen - length)
        src = base.to(tl.pointer_type(SRC_TYPE), bitcast=True) + tl.multiple_of(step * step_items, CHUNK)
    return src


# Sizes are not specialised on: a batch of other lengths compiles nothing anew.
@triton.jit(do_not_specialize=["tables_at", "max_seqlen", "step_items", "pad_bits"])
def move_rows(
    base,
    tables,
    out,
    cu_out,
    marks,
    tables_at: tl.int64,
    max_seqlen: tl.int32,
    step_items: tl.int64,
    pad_bits: tl.int64,
    SRC: tl.constexpr,
    DST: tl.constexpr,
    SRC_TYPE: tl.constexpr,
    DST_TYPE: tl.constexpr,
    DST_BITS: tl.constexpr,
    CHUNK: tl.constexpr,
    TILE_ITEMS: tl.constexpr,
    TILE_STEPS: tl.constexpr,
    ROWS_FROM: tl.constexpr,
    ROWS_TO: tl.constexpr,
    HAS_CU_OUT: tl.constexpr,
    HAS_MARKS: tl.constexpr,
):
    """See cuda.cuh. CHUNK: what every item count is a multiple of (1, or a wide load's and store's items together).

    At byte tables_at of tables are row_offsets (with ROWS_FROM "table" alone) and, directly behind, cu_seqlens.
    """
    tables += tables_at
    cu_seqlens = tables + (8 * tl.num_programs(0).to(tl.int64) if ROWS_FROM == "table" else 0)
    cu_seqlens = cu_seqlens.to(tl.pointer_type(tl.int32), bitcast=True)
    row = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1).to(tl.int64) + tl.program_id(2).to(tl.int64) * tl.num_programs(1)
    begin = tl.load(cu_seqlens + row)
    end = tl.load(cu_seqlens + row + 1)
    length = end - begin
    if HAS_CU_OUT:
        tl.store(cu_out + row, begin, mask=tile == 0)
        tl.store(cu_out + row + 1, end, mask=(tile == 0) & (row + 1 == tl.num_programs(0)))
    n_steps = length if ROWS_TO == "packed" else max_seqlen
    first_step = begin.to(tl.int64) if ROWS_TO == "packed" else row * max_seqlen  # of the row, in the target
    lead = max_seqlen - length if ROWS_TO == "padded_left" else 0

    if HAS_MARKS:
        if tile * TILE_STEPS < n_steps:
            write_marks(marks, first_step, tile * TILE_STEPS, n_steps, lead, length, TILE_STEPS, ROWS_TO)

    first = tile * TILE_ITEMS
    n_items = tl.multiple_of(n_steps * step_items, CHUNK)
    if first < n_items:
        src = row_of_source(base, tables, row, begin, length, max_seqlen, step_items, SRC_TYPE, CHUNK, ROWS_FROM)
        dst = out.to(tl.pointer_type(DST_TYPE), bitcast=True) + tl.multiple_of(first_step * step_items, CHUNK)
        data_begin = lead * step_items
        data_end = data_begin + length * step_items
        # Item k of the row's target is item k - data_begin of its source.
        src += tl.multiple_of(first - data_begin, CHUNK)
        dst += first
        lanes = tl.arange(0, TILE_ITEMS)
        if (first >= data_begin) & (first + TILE_ITEMS <= data_end):
            tl.store(dst + lanes, converted(tl.load(src + lanes), SRC, DST, DST_TYPE))
        else:
            is_data = (lanes >= within(data_begin - first, CHUNK, TILE_ITEMS)) & (
                lanes < within(data_end - first, CHUNK, TILE_ITEMS)
            )
            taken = converted(tl.load(src + lanes, mask=is_data, other=0), SRC, DST, DST_TYPE)
            if ROWS_TO != "packed":
                padding = pad_bits.to(DST_BITS).to(DST_TYPE, bitcast=True)
                taken = tl.where(is_data, taken, padding)
            tl.store(dst + lanes, taken, mask=lanes < within(n_items - first, CHUNK, TILE_ITEMS))


def constants(plan: Plan, *, has_cu_out: bool, has_marks: bool) -> dict[str, Any]:
    """The constexpr arguments of a plan's specialisation."""
    src_bytes, dst_bytes = item_bytes(plan.src), item_bytes(plan.dst)
    return {
        "SRC": plan.src,
        "DST": plan.dst,
        "SRC_TYPE": MEMORY_TYPES[plan.src],
        "DST_TYPE": MEMORY_TYPES[plan.dst],
        "DST_BITS": BITS_TYPES[dst_bytes],
        "CHUNK": WIDE_BYTES // min(src_bytes, dst_bytes) if plan.wide else 1,
        "TILE_ITEMS": plan.tile_items,
        "TILE_STEPS": plan.tile_steps,
        "ROWS_FROM": plan.rows_from,
        "ROWS_TO": plan.rows_to,
        "HAS_CU_OUT": has_cu_out,
        "HAS_MARKS": has_marks,
    }


# Left to itself ptxas 13.1 takes 32 registers for uint8 -> float32 and spills; 64 still leave room for 1,024 threads.
OPTIONS = {"num_warps": N_THREADS // 32, "num_stages": 1, "enable_fp_fusion": False, "maxnreg": 64}


def launch(plan: Plan, base: Any, tables: Any, tables_at: int, out: Any, cu_out: Any, marks: Any) -> None:
    """One launch on the current stream. Tensors are PyTorch's; cu_out and marks may be None."""
    has_cu_out, has_marks = cu_out is not None, marks is not None
    triton_launch.launch(
        move_rows,
        plan.grid,
        (base, tables, out, cu_out if has_cu_out else tables, marks if has_marks else tables),
        (tables_at, plan.max_seqlen, plan.step_items, signed(plan.pad_bits)),
        which=(
            *(plan.src, plan.dst, plan.wide, plan.tile_items, plan.tile_steps, plan.rows_from, plan.rows_to),
            *(has_cu_out, has_marks),
        ),
        constants=lambda: constants(plan, has_cu_out=has_cu_out, has_marks=has_marks),
        options=OPTIONS,
    )


def signed(bits: int) -> int:
    """64 bits as Triton takes them."""
    return bits - (1 << 64) if bits >> 63 else bits
