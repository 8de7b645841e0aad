"""What of image_pack is compiled ahead of time: plans as launch() makes them, and what each back-end is asked for."""

from collections.abc import Sequence

import numpy as np
from gpu import ahead_of_time
from gpu.ahead_of_time import TritonKernel

from infcore.kernels.cuda_module import CudaLaunch
from infcore.kernels.image_pack import cupy_kernel
from infcore.kernels.image_pack.plan import Plan, plan
from infcore.kernels.image_pack.staging import StagedImages, checked_form


def a_plan(dtype: str = "float32", channels: int = 3, sizes: Sequence[tuple[int, int]] = ((64, 64),)) -> Plan:
    heights, widths = np.array(sizes, np.int32).T
    form = checked_form(sizes, channels, 0, 1, dtype=dtype)
    return plan(StagedImages(0, channels, heights, widths), form, aligned=True)


EVERY = {
    "3 channels to float32": a_plan(),
    "3 channels to float16": a_plan("float16"),
    "3 channels to bfloat16": a_plan("bfloat16"),
    "1 channel to float16": a_plan("float16", 1),
    "4 channels to float16": a_plan("float16", 4),
    "mixed": a_plan(sizes=((64, 64), (63, 50))),
    "narrow": a_plan(sizes=((63, 63),)),
}


def triton_kernel(made: Plan, *, sass: bool) -> TritonKernel:
    """The specialisation that launch() asks for."""
    from infcore.kernels.image_pack import triton_kernel

    numbers = [f"{kind}{c}" for kind in ("mean", "scale") for c in range(4)]
    out = {"float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16"}[made.dtype]
    return TritonKernel(
        module="infcore.kernels.image_pack.triton_kernel",
        function="pack_images",
        signature={"base": "*u8", "out": out, "tables_at": "i64"}
        | dict.fromkeys(("height", "width", "swapped"), "i32")
        | dict.fromkeys((*numbers, "pad_value"), "fp32"),
        constants={key: ahead_of_time.constant(value) for key, value in triton_kernel.constants(made).items()},
        options=triton_kernel.OPTIONS,
        aligned=("base", "out"),
        sass=sass,
    )


def cuda_launch(made: Plan) -> CudaLaunch:
    """The launch of a plan, on no memory."""
    return cupy_kernel.cuda_launch(made, base=0, image_offsets=0, heights=0, widths=0, out=0)
