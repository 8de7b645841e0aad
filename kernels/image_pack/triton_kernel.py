"""Staged uint8 images -> a normalised batch in Triton: cuda.cuh's kernel, with a tile as one block of lanes.

A program takes 128 groups of 16 pixels. On the wide path a group is one lane of a tensor: its words come as tiles of
4 words, are parted by reshape and split, which move nothing, and the numbers are put together by join for the stores.
bfloat16 is stored by its bits, so that compiled and interpreted code round alike.
"""

from typing import Any

import triton
import triton.language as tl

from .. import triton_launch
from ..pack.triton_kernel import float_to_bfloat16
from .plan import GROUP_PIXELS, N_THREADS, Plan

# What is stored; bfloat16 as an integer of its size.
MEMORY_TYPES = {"float32": tl.float32, "float16": tl.float16, "bfloat16": tl.int16}


@triton.jit
def narrowed(values, DST: tl.constexpr, DST_TYPE: tl.constexpr):
    if DST == "bfloat16":
        return float_to_bfloat16(values)
    return values.to(DST_TYPE)


@triton.jit
def four_words(src, mask, N: tl.constexpr):
    """(N, 4) words, a tile of 128-bit loads, as four tensors of N."""
    pairs = tl.reshape(tl.load(src, mask=mask, other=0), (N, 2, 2))
    even, odd = tl.split(pairs)
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def pixel(words, INDEX: tl.constexpr, mean, scale):
    """Byte INDEX of a group, normalised."""
    byte = (words[INDEX // 4] >> (INDEX % 4 * 8)) & 0xFF
    return (byte.to(tl.float32) - mean) * scale


@triton.jit
def four_pixels(words, FIRST: tl.constexpr, STEP: tl.constexpr, mean, scale):
    """Bytes FIRST, FIRST + STEP, ... as (N, 2, 2); the last axis is the lowest bit of the index."""
    even = tl.join(pixel(words, FIRST, mean, scale), pixel(words, FIRST + 2 * STEP, mean, scale))
    odd = tl.join(pixel(words, FIRST + STEP, mean, scale), pixel(words, FIRST + 3 * STEP, mean, scale))
    return tl.join(even, odd)


@triton.jit
def store_channel(
    dst, words, group, inside, mask, mean, scale, pad_value,
    CHANNEL: tl.constexpr, CHANNELS: tl.constexpr, DST: tl.constexpr, DST_TYPE: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """A group's 16 numbers of one channel, in stores of 128 bits: 4 floats, or 8 of 16 bits."""
    if DST == "float32":
        for part in tl.static_range(4):
            values = four_pixels(words, CHANNEL + 4 * part * CHANNELS, CHANNELS, mean, scale)
            values = tl.where(inside[:, None], tl.reshape(values, (N, 4)), pad_value)
            at = (group * 16)[:, None] + (4 * part + tl.arange(0, 4))[None, :]
            tl.store(dst + at, values, mask=mask[:, None])
    else:
        for part in tl.static_range(2):
            even = four_pixels(words, CHANNEL + 8 * part * CHANNELS, 2 * CHANNELS, mean, scale)
            odd = four_pixels(words, CHANNEL + (8 * part + 1) * CHANNELS, 2 * CHANNELS, mean, scale)
            values = tl.where(inside[:, None], tl.reshape(tl.join(even, odd), (N, 8)), pad_value)
            at = (group * 16)[:, None] + (8 * part + tl.arange(0, 8))[None, :]
            tl.store(dst + at, narrowed(values, DST, DST_TYPE), mask=mask[:, None])


@triton.jit
def pack_wide(
    src, dst, image_height, image_width, height, width, first_plane, last_plane,
    mean0, mean1, mean2, mean3, scale0, scale1, scale2, scale3, pad_value,
    CHANNELS: tl.constexpr, DST: tl.constexpr, DST_TYPE: tl.constexpr, GROUP: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """A tile of an image that is whole groups; one as large as the batch is one row of them."""
    plane = height * width
    whole = (image_height == height) & (image_width == width)
    row_groups = tl.where(whole, plane, width) // GROUP
    image_groups = tl.where(whole, plane, image_width) // GROUP
    n_rows = tl.where(whole, 1, image_height)
    group = tl.program_id(0) * N + tl.arange(0, N)
    y = group // row_groups
    x = group - y * row_groups
    inside = (y < n_rows) & (x < image_groups)
    at = src.to(tl.pointer_type(tl.int32), bitcast=True) + ((y * image_groups + x) * (4 * CHANNELS))[:, None]
    at += tl.arange(0, 4)[None, :]
    words = four_words(at, inside[:, None], N)
    for part in tl.static_range(1, CHANNELS):
        words = words + four_words(at + 4 * part, inside[:, None], N)
    mask = group < plane // GROUP
    # Plane by plane; every plane is a multiple of the group.
    plane = tl.multiple_of(plane, GROUP)
    store_channel(dst + first_plane * plane, words, group, inside, mask, mean0, scale0, pad_value,
                  0, CHANNELS, DST, DST_TYPE, N)  # fmt: skip
    if CHANNELS > 1:
        store_channel(dst + plane, words, group, inside, mask, mean1, scale1, pad_value, 1, CHANNELS, DST, DST_TYPE, N)
        store_channel(dst + last_plane * plane, words, group, inside, mask, mean2, scale2, pad_value,
                      2, CHANNELS, DST, DST_TYPE, N)  # fmt: skip
    if CHANNELS > 3:
        store_channel(
            dst + 3 * plane, words, group, inside, mask, mean3, scale3, pad_value, 3, CHANNELS, DST, DST_TYPE, N
        )


@triton.jit
def pack_pixels(src, dst, inside, mask, mean, scale, pad_value, DST: tl.constexpr, DST_TYPE: tl.constexpr):
    byte = tl.load(src, mask=inside, other=0)
    values = tl.where(inside, (byte.to(tl.float32) - mean) * scale, pad_value)
    tl.store(dst, narrowed(values, DST, DST_TYPE), mask=mask)


@triton.jit
def pack_narrow(
    src, dst, image_height, image_width, height, width, first_plane, last_plane,
    mean0, mean1, mean2, mean3, scale0, scale1, scale2, scale3, pad_value,
    CHANNELS: tl.constexpr, DST: tl.constexpr, DST_TYPE: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """A tile of any image, byte by byte. CHUNK: what a plane's pixels are a multiple of; stores may still be wide."""
    plane = tl.multiple_of(height * width, CHUNK)
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    y = at // width
    x = at - y * width
    inside = (y < image_height) & (x < image_width)
    mask = at < plane
    src += (y * image_width + x) * CHANNELS
    dst += at
    pack_pixels(src, dst + first_plane * plane, inside, mask, mean0, scale0, pad_value, DST, DST_TYPE)
    if CHANNELS > 1:
        pack_pixels(src + 1, dst + plane, inside, mask, mean1, scale1, pad_value, DST, DST_TYPE)
        pack_pixels(src + 2, dst + last_plane * plane, inside, mask, mean2, scale2, pad_value, DST, DST_TYPE)
    if CHANNELS > 3:
        pack_pixels(src + 3, dst + 3 * plane, inside, mask, mean3, scale3, pad_value, DST, DST_TYPE)


# Not specialised on: one program serves all sizes.
@triton.jit(do_not_specialize=["tables_at", "height", "width", "swapped"])
def pack_images(
    base, out, tables_at: tl.int64, height: tl.int32, width: tl.int32, swapped: tl.int32,
    mean0: tl.float32, mean1: tl.float32, mean2: tl.float32, mean3: tl.float32,
    scale0: tl.float32, scale1: tl.float32, scale2: tl.float32, scale3: tl.float32, pad_value: tl.float32,
    PATHS: tl.constexpr, CHANNELS: tl.constexpr, DST: tl.constexpr, DST_TYPE: tl.constexpr,
    GROUP: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """See cuda.cuh. Grid (tiles of GROUP * N pixels, images)."""
    image = tl.program_id(1)
    image_offsets = (base + tl.multiple_of(tables_at, 16)).to(tl.pointer_type(tl.int64), bitcast=True)
    heights = (image_offsets + tl.num_programs(1)).to(tl.pointer_type(tl.int32), bitcast=True)
    image_height = tl.load(heights + image)
    image_width = tl.load(heights + tl.num_programs(1) + image)
    src = base + tl.multiple_of(tl.load(image_offsets + image), 16)
    dst = out.to(tl.pointer_type(DST_TYPE), bitcast=True)
    dst += image.to(tl.int64) * CHANNELS * (height.to(tl.int64) * width)
    # The first and the last of three channels change places; written by sums, which compile to selections.
    first_plane = swapped * 2
    last_plane = 2 - first_plane
    if PATHS != "narrow":
        whole = (image_height == height) & (image_width == width)
        is_wide = whole | ((image_width % GROUP == 0) & (width % GROUP == 0))
        if PATHS == "wide" or is_wide:
            pack_wide(src, tl.multiple_of(dst, 16), image_height, image_width, height, width, first_plane, last_plane,
                      mean0, mean1, mean2, mean3, scale0, scale1, scale2, scale3, pad_value,
                      CHANNELS, DST, DST_TYPE, GROUP, N)  # fmt: skip
        else:
            pack_narrow(src, dst, image_height, image_width, height, width, first_plane, last_plane,
                        mean0, mean1, mean2, mean3, scale0, scale1, scale2, scale3, pad_value,
                        CHANNELS, DST, DST_TYPE, GROUP * N, GROUP)  # fmt: skip
    else:
        pack_narrow(src, dst, image_height, image_width, height, width, first_plane, last_plane,
                    mean0, mean1, mean2, mean3, scale0, scale1, scale2, scale3, pad_value,
                    CHANNELS, DST, DST_TYPE, GROUP * N, 1)  # fmt: skip


OPTIONS = {"num_warps": N_THREADS // 32, "num_stages": 1, "enable_fp_fusion": False}


def constants(plan: Plan) -> dict[str, Any]:
    """The constexpr arguments of a plan's specialisation."""
    return {
        "PATHS": plan.paths,
        "CHANNELS": plan.channels,
        "DST": plan.dtype,
        "DST_TYPE": MEMORY_TYPES[plan.dtype],
        "GROUP": GROUP_PIXELS,
        "N": N_THREADS,
    }


def launch(plan: Plan, memory: Any, tables_at: int, out: Any) -> None:
    """One launch on the current stream. Tensors are PyTorch's."""
    spare = (0.0,) * (4 - plan.channels)
    triton_launch.launch(
        pack_images,
        plan.grid,
        (memory, out),
        (
            *(tables_at, plan.height, plan.width, int(plan.swapped)),
            *(*plan.mean, *spare, *plan.scale, *spare, plan.pad_value),
        ),
        which=(plan.paths, plan.channels, plan.dtype),
        constants=lambda: constants(plan),
        options=OPTIONS,
    )
