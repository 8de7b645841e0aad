"""cuda.cuh as a launch: which instantiation a plan needs, and its arguments."""

import numpy as np

from ..cuda_module import CudaLaunch
from .plan import N_THREADS, Plan

SOURCE = "block_table/cuda.cuh"


def kernel_name(plan: Plan) -> str:
    """The instantiation."""
    return f"infcore::kernels::fill_tables<{'true' if plan.wide else 'false'}>"


def cuda_launch(
    plan: Plan,
    *,
    base: int,
    row_offsets: int,
    cu_blocks: int,
    computed: int,
    query_start_loc: int,
    table: int,
    slots: int,
    starts: int,
) -> CudaLaunch:
    """The launch of a plan on these addresses."""
    return CudaLaunch(
        source=SOURCE,
        kernel=kernel_name(plan),
        grid=plan.grid,
        block=(N_THREADS, 1, 1),
        arguments=(
            *(base, row_offsets, cu_blocks, computed, query_start_loc, table, slots, starts),
            *map(np.int32, (plan.max_blocks, plan.block_size, plan.pad_block, plan.n_slots)),
        ),
    )
