"""What a GPU alone runs: the PTX of what is under __CUDA_ARCH__, and the numbers that Triton's launcher is handed."""

import re
from itertools import product

import pytest
from gpu import ahead_of_time, interpreter

from infcore.kernels import cuda_module, dtypes, triton_launch
from infcore.kernels.pack import launch
from infcore.kernels.pack.cupy_kernel import CPP_TYPES
from infcore.kernels.pack.plan import item_bytes, plan

# As NumPy's astype: to the nearest, ties to even; float to integer cuts off. int8 and uint8 are of int32's low bits.
CONVERSIONS = {
    ("float32", "float16"): {"cvt.rn.f16.f32"},
    ("float16", "float32"): {"cvt.f32.f16"},
    ("float32", "int32"): {"cvt.rzi.s32.f32"},
    ("float32", "int64"): {"cvt.rzi.s64.f32"},
    ("float32", "uint8"): {"cvt.rzi.s32.f32"},
    ("float16", "int8"): {"cvt.f32.f16", "cvt.rzi.s32.f32"},
    ("int64", "float32"): {"cvt.rn.f32.s64"},
    ("int32", "float32"): {"cvt.rn.f32.s32"},
    ("int64", "float16"): {"cvt.rn.f32.s64", "cvt.rn.f16.f32"},
    ("bfloat16", "float32"): set(),  # shifts
    ("float32", "bfloat16"): set(),
}


def ptx_of(code: str) -> str:
    """NVRTC's PTX of code that may include what is in kernels/."""
    if why := ahead_of_time.cuda_unavailable():
        pytest.skip(why)
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(code, "code.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*cuda_module.COMPILE_OPTIONS, f"-I{cuda_module.SOURCES}", "-arch=compute_80"))
        return nvrtc.getPTX(program).decode()
    finally:
        nvrtc.destroyProgram(program)


@pytest.mark.parametrize(("src", "dst"), CONVERSIONS)
def test_conversions_round_as_numpy_does(src: str, dst: str) -> None:
    ptx = ptx_of(f"""
#include "cuda/moves.cuh"
#include "cuda/numbers.cuh"
using namespace infcore::kernels;
extern "C" __global__ void convert({CPP_TYPES[dst]}* to, const {CPP_TYPES[src]}* from) {{
  *to = converted<{CPP_TYPES[dst]}>(*from);
}}""")
    found = set(re.findall(r"\bcvt\.\S*f(?:16|32)\S*", ptx))
    assert found == CONVERSIONS[src, dst]  # and no .ftz, which would lose subnormal numbers


def test_a_wide_move_keeps_the_order_of_its_words() -> None:
    ptx = ptx_of("""
#include "cuda/moves.cuh"
using namespace infcore::kernels;
extern "C" __global__ void move(uint4* to, const uint4* from) { write(to, read(from)); }""")
    (loaded,) = re.findall(r"ld\.global\.nc\.v4\.u32 \{([^}]*)\}", ptx)
    (stored,) = re.findall(r"st\.global\.v4\.u32 \[[^\]]*\], \{([^}]*)\}", ptx)
    assert loaded.split(", ") == stored.split(", ") and len(set(loaded.split(", "))) == 4


@pytest.mark.parametrize(
    ("pad_value", "dtype", "bits"),
    [(-1, "int64", -1), (-2, "int8", -0x0101010101010102), (-0.0, "float32", -0x7FFFFFFF80000000), (7, "int64", 7)],
)
def test_a_pad_value_is_the_signed_number_that_tritons_launcher_takes(
    pad_value: float, dtype: str, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = interpreter.require()
    seen = []
    monkeypatch.setattr(triton_launch, "launch", lambda function, grid, tensors, numbers, **_: seen.append(numbers[-1]))
    launch.pack(None, [torch.ones(2)], layout="padded", dtype=dtype, pad_value=pad_value, backend="triton")
    assert seen == [bits]


@pytest.mark.parametrize("step_elements", [0, 1, 3, 8, 16])
def test_what_triton_is_told_of_multiples_is_true(step_elements: int) -> None:
    """It is believed by the compiler alone: an access that is wide where it may not be faults on a GPU."""
    interpreter.require()
    from infcore.kernels.pack import triton_kernel

    for src, dst, alignment in product(dtypes.ITEM_BYTES, dtypes.ITEM_BYTES, (1, 2, 4, 8, 16)):
        made = plan(
            rows_from="table", rows_to="padded_left", src=src, dst=dst, n_rows=3, max_seqlen=9,
            step_elements=step_elements, alignment=alignment,
        )  # fmt: skip
        chunk = triton_kernel.constants(made, has_cu_out=True, has_marks=True)["CHUNK"]
        if chunk > 1:
            assert alignment == 16
            assert made.step_items % chunk == made.tile_items % chunk == 0
            assert chunk * min(item_bytes(made.src), item_bytes(made.dst)) == 16
