"""What Triton and NVRTC make of pack's kernels for sm_80, sm_90 and sm_100; no GPU is asked."""

from typing import Any

import pytest
from gpu import ahead_of_time
from gpu.ahead_of_time import CAPABILITIES, Code, TritonKernel, cuda_code

from infcore.kernels.pack import cupy_kernel
from infcore.kernels.pack.plan import Plan, plan

# With 64 registers a thread an SM still holds 1,024 of the 2,048 threads that it has room for.
REGISTERS_MAX = 64
# What is no data: loads of two entries of cu_seqlens and a row's offset; stores of two entries of cu_seqlens and the
# marks, of which NVRTC's kernel holds both kinds.
TABLE_LOADS_MAX = 3
TABLE_STORES_MAX = 4


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
SASS = {"move", "narrow", "widen"}  # of these the machine code is read; a spill shows as stack in all


def triton_kernel(name: str, made: Plan) -> TritonKernel:
    """The specialisation that launch() asks for, with its marks where the target has any."""
    from infcore.kernels.pack import triton_kernel

    is_pack = made.rows_from == "table"
    constants: dict[str, Any] = triton_kernel.constants(made, has_cu_out=is_pack, has_marks=is_pack)
    marks = "*i32" if made.rows_to == "packed" else "*u8"
    bytes_of = dict.fromkeys(("base", "row_offsets", "cu_seqlens", "out"), "*u8")
    return TritonKernel(
        module="infcore.kernels.pack.triton_kernel",
        function="move_rows",
        signature=bytes_of
        | {"cu_out": "*i32", "marks": marks, "max_seqlen": "i32", "step_items": "i64", "pad_bits": "i64"},
        constants={name: ahead_of_time.constant(value) for name, value in constants.items()},
        options=triton_kernel.OPTIONS,
        aligned=("base", "out") if made.wide else (),
        sass=name in SASS,
    )


@pytest.fixture(scope="module")
def triton_codes() -> dict[tuple[str, int], Code]:
    if why := ahead_of_time.unavailable():
        pytest.skip(why)
    codes = ahead_of_time.triton_code([triton_kernel(name, made) for name, made in EVERY.items()])
    return {
        (name, capability): code
        for name, each in zip(EVERY, codes, strict=True)
        for capability, code in zip(CAPABILITIES, each, strict=True)
    }


def code_by_nvrtc(name: str, capability: int) -> Code:
    if why := ahead_of_time.cuda_unavailable():
        pytest.skip(why)
    launch = cupy_kernel.cuda_launch(EVERY[name], base=0, row_offsets=0, cu_seqlens=0, out=0, cu_out=0, marks=0)
    return cuda_code(launch.source, launch.kernel, capability, name in SASS)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("backend", ["triton", "nvrtc"])
def test_no_spills_and_wide_accesses(backend: str, name: str, capability: int, request: pytest.FixtureRequest) -> None:
    if backend == "triton":
        code = request.getfixturevalue("triton_codes")[name, capability]
    else:
        code = code_by_nvrtc(name, capability)
    assert (code.stack_bytes, code.local_bytes, code.spills) == (0, 0, 0)
    assert code.registers <= REGISTERS_MAX
    assert not any(access.startswith(("LD.", "ST.")) for access in code.accesses), "an access of unknown space"
    made = EVERY[name]
    widths = [(code.ptx_widths("ld"), code.ptx_widths("st"))]
    if name in SASS:
        widths.append((code.widths("LDG"), code.widths("STG")))
    for loads, stores in widths:
        if made.wide:
            assert loads.pop(128) >= 2
            assert stores.pop(128) >= 2
            assert sum(loads.values()) <= TABLE_LOADS_MAX
            assert sum(stores.values()) <= (TABLE_STORES_MAX if backend == "nvrtc" or made.rows_from == "table" else 0)
        else:
            assert loads and stores
            assert 128 not in loads and 128 not in stores
