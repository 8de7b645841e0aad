"""cuda.cuh as a launch: which instantiation a plan needs, and its arguments."""

import numpy as np

from ..cuda_module import CudaLaunch
from .plan import N_THREADS, Plan

SOURCE = "image_pack/cuda.cuh"
CPP_TYPES = {"float32": "float", "float16": "infcore::kernels::Half", "bfloat16": "infcore::kernels::BFloat16"}
PATHS = ("wide", "mixed", "narrow")  # the order of the enumeration in cuda.cuh


def kernel_name(plan: Plan) -> str:
    """The instantiation."""
    return f"infcore::kernels::pack_images<{CPP_TYPES[plan.dtype]}, {plan.channels}, {PATHS.index(plan.paths)}>"


def cuda_launch(plan: Plan, *, base: int, image_offsets: int, heights: int, widths: int, out: int) -> CudaLaunch:
    """The launch of a plan on these addresses."""
    spare = (np.float32(0),) * (4 - plan.channels)
    return CudaLaunch(
        source=SOURCE,
        kernel=kernel_name(plan),
        grid=plan.grid,
        block=(N_THREADS, 1, 1),
        arguments=(
            *(base, image_offsets, heights, widths, out),
            *map(np.int32, (plan.height, plan.width, plan.swapped)),
            *(*map(np.float32, plan.mean), *spare, *map(np.float32, plan.scale), *spare),
            np.float32(plan.pad_value),
        ),
    )
