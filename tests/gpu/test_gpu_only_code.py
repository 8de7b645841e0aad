"""What a GPU alone runs, and no host build: the PTX of conversions and wide moves that are under __CUDA_ARCH__."""

import re

import pytest
from gpu import ahead_of_time

from infcore.kernels import cuda_module
from infcore.kernels.pack.cupy_kernel import CPP_TYPES

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
