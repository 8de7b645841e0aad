"""What of pack is compiled ahead of time: plans as launch() makes them, and what each back-end is asked for."""

from typing import Any

from gpu import ahead_of_time
from gpu.ahead_of_time import TritonKernel

from infcore.kernels.cuda_module import CudaLaunch
from infcore.kernels.pack import cupy_kernel
from infcore.kernels.pack.plan import Plan, plan


def a_plan(src: str, dst: str, rows_from: str = "table", rows_to: str = "packed", alignment: int = 16) -> Plan:
    return plan(
        rows_from=rows_from,
        rows_to=rows_to,
        src=src,
        dst=dst,
        n_rows=32,
        max_seqlen=512,
        step_elements=384,
        alignment=alignment,
    )


ALIGNED = {
    "move": a_plan("float32", "float32"),
    "move to padded": a_plan("float16", "float16", rows_to="padded"),
    "narrow": a_plan("float32", "float16"),
    "narrow to padded left": a_plan("int64", "int32", rows_to="padded_left"),
    "widen": a_plan("uint8", "float32"),
    "widen most": a_plan("int8", "int64", rows_to="padded"),
    "bfloat16 back from padded": a_plan("bfloat16", "float32", rows_from="padded_left"),
}
EVERY = ALIGNED | {"move by words of 4 bytes": a_plan("float32", "float32", alignment=4)}


def triton_kernel(made: Plan, *, sass: bool) -> TritonKernel:
    """The specialisation that launch() asks for, with its marks where the target has any."""
    from infcore.kernels.pack import triton_kernel

    is_pack = made.rows_from == "table"
    constants: dict[str, Any] = triton_kernel.constants(made, has_cu_out=is_pack, has_marks=is_pack)
    marks = "*i32" if made.rows_to == "packed" else "*i1"
    numbers = {"tables_at": "i64", "max_seqlen": "i32", "step_items": "i64", "pad_bits": "i64"}
    return TritonKernel(
        module="infcore.kernels.pack.triton_kernel",
        function="move_rows",
        signature={"base": "*u8", "tables": "*u8", "out": "*u8", "cu_out": "*i32", "marks": marks} | numbers,
        constants={name: ahead_of_time.constant(value) for name, value in constants.items()},
        options=triton_kernel.OPTIONS,
        aligned=("base", "out"),  # as allocators give them, even where rows or steps are not: no leave to be wide
        sass=sass,
    )


def cuda_launch(made: Plan) -> CudaLaunch:
    """The launch of a plan, on no memory."""
    return cupy_kernel.cuda_launch(made, base=0, row_offsets=0, cu_seqlens=0, out=0, cu_out=0, marks=0)
