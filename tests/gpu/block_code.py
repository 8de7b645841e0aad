"""What of block_table is compiled ahead of time: plans as launch() makes them, and what each back-end is asked for."""

from gpu.ahead_of_time import TritonKernel

from infcore.kernels.block_table import cupy_kernel
from infcore.kernels.block_table.plan import Plan, plan
from infcore.kernels.cuda_module import CudaLaunch


def a_plan(max_blocks: int) -> Plan:
    sizes = {"n_requests": 4, "max_query": 8, "n_tokens": 32, "n_slots": 32, "block_size": 16, "pad_block": -1}
    return plan(max_blocks=max_blocks, aligned=True, **sizes)


EVERY = {"wide": a_plan(1024), "narrow": a_plan(1023)}


def triton_kernel(made: Plan, *, sass: bool) -> TritonKernel:
    """The specialisation that launch() asks for."""
    from infcore.kernels.block_table import triton_kernel

    return TritonKernel(
        module="infcore.kernels.block_table.triton_kernel",
        function="fill_tables",
        signature={"base": "*u8", "table": "*i32", "slots": "*i64", "starts": "*i32"}
        | dict.fromkeys(("tokens_at", "tables_at"), "i64")
        | dict.fromkeys(("max_blocks", "block_size", "pad_block", "n_slots"), "i32"),
        constants=triton_kernel.constants(made),
        options=triton_kernel.OPTIONS,
        aligned=("base", "table", "slots", "starts"),
        sass=sass,
    )


def cuda_launch(made: Plan) -> CudaLaunch:
    """The launch of a plan, on no memory."""
    addresses = ("base", "row_offsets", "cu_blocks", "computed", "query_start_loc", "table", "slots", "starts")
    return cupy_kernel.cuda_launch(made, **dict.fromkeys(addresses, 0))
