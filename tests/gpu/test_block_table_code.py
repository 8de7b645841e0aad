"""What Triton and NVRTC make of block_table's kernels for sm_80, sm_90 and sm_100; no GPU is asked."""

import pytest
from gpu import ahead_of_time
from gpu.ahead_of_time import CAPABILITIES, TritonKernel, cuda_code

from infcore.kernels.block_table import cupy_kernel
from infcore.kernels.block_table.plan import plan

REGISTERS_MAX = 64


def a_plan(max_blocks):
    sizes = {"n_requests": 4, "max_query": 8, "n_tokens": 32, "n_slots": 32, "block_size": 16, "pad_block": -1}
    return plan(max_blocks=max_blocks, aligned=True, **sizes)


EVERY = {"wide": a_plan(1024), "narrow": a_plan(1023)}


def triton_kernel(made):
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
        sass=True,
    )


@pytest.fixture(scope="module")
def triton_codes():
    if why := ahead_of_time.unavailable():
        pytest.skip(why)
    codes = ahead_of_time.triton_code([triton_kernel(made) for made in EVERY.values()])
    return {
        (name, capability): code
        for name, each in zip(EVERY, codes, strict=True)
        for capability, code in zip(CAPABILITIES, each, strict=True)
    }


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("backend", ["triton", "nvrtc"])
def test_no_spills_and_wide_rows(backend, name, capability, request):
    if backend == "triton":
        code = request.getfixturevalue("triton_codes")[name, capability]
    elif why := ahead_of_time.cuda_unavailable():
        pytest.skip(why)
    else:
        code = cuda_code(cupy_kernel.SOURCE, cupy_kernel.kernel_name(EVERY[name]), capability, True)
    assert (code.stack_bytes, code.local_bytes, code.spills) == (0, 0, 0)
    assert code.registers <= REGISTERS_MAX
    # A row's whole tile by 128 bits; slots are written one by one, since a request's begin anywhere.
    assert (128 in code.widths("LDG"), 128 in code.widths("STG")) == (EVERY[name].wide,) * 2
