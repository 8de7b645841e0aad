"""cuda.cuh as a launch: which instantiation a plan needs, and its arguments."""

import numpy as np

from ..cuda_module import CudaLaunch
from .plan import N_THREADS, Plan

SOURCE = "pack/cuda.cuh"
CPP_TYPES = {
    "float32": "float",
    "float16": "infcore::kernels::Half",
    "bfloat16": "infcore::kernels::BFloat16",
    "int64": "long long",
    "int32": "int",
    "int8": "signed char",
    "uint8": "unsigned char",
    "word1": "unsigned char",
    "word2": "unsigned short",
    "word4": "unsigned int",
    "word8": "unsigned long long",
}
# The order of the enumerations in cuda.cuh.
ROWS_FROM = ("table", "packed", "padded", "padded_left")
ROWS_TO = ("packed", "padded", "padded_left")


def cuda_launch(
    plan: Plan, *, base: int, row_offsets: int, cu_seqlens: int, out: int, cu_out: int, marks: int
) -> CudaLaunch:
    """The launch of a plan on these addresses; row_offsets, cu_out and marks may be 0 where they are not wanted."""
    wide = "true" if plan.wide else "false"
    return CudaLaunch(
        source=SOURCE,
        kernel=f"infcore::kernels::move_rows<{CPP_TYPES[plan.src]}, {CPP_TYPES[plan.dst]}, {wide}, {plan.tile_items}>",
        grid=plan.grid,
        block=(N_THREADS, 1, 1),
        arguments=(
            *(base, row_offsets, cu_seqlens, out, cu_out, marks),
            np.int32(plan.max_seqlen),
            np.int64(plan.step_items),
            np.int64(plan.tile_steps),
            np.uint64(plan.pad_bits),
            np.int32(ROWS_FROM.index(plan.rows_from)),
            np.int32(ROWS_TO.index(plan.rows_to)),
        ),
    )
