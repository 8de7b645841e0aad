"""What Triton and NVRTC make of image_pack's kernels for sm_80, sm_90 and sm_100; no GPU is asked."""

from pathlib import Path

import pytest
from gpu import ahead_of_time
from gpu.ahead_of_time import CAPABILITIES, cuda_code
from gpu.image_code import EVERY, a_plan, cuda_launch, triton_kernel

from infcore.kernels.image_pack import cupy_kernel
from infcore.kernels.image_pack.staging import CHANNELS

README = Path(__file__).parents[2] / "kernels" / "README.md"
# A block of 128 threads: with 64 registers a thread a multiprocessor holds 8 blocks, as cuda.cuh asks for.
REGISTERS_MAX = 64
# Triton has all 48 single bytes of a thread under way where it reads byte by byte.
REGISTERS_MAX_NARROW = 128
# An image's offset, height and width.
TABLE_LOADS = 3
SASS = {"3 channels to float32", "3 channels to float16"}  # of these the machine code is read, too


@pytest.fixture(scope="module")
def triton_codes():
    if why := ahead_of_time.unavailable():
        pytest.skip(why)
    codes = ahead_of_time.triton_code([triton_kernel(made, sass=name in SASS) for name, made in EVERY.items()])
    return {
        (name, capability): code
        for name, each in zip(EVERY, codes, strict=True)
        for capability, code in zip(CAPABILITIES, each, strict=True)
    }


@pytest.fixture(scope="module")
def code_of(triton_codes):
    def code_of(backend, name, capability):
        if backend == "triton":
            return triton_codes[name, capability]
        if why := ahead_of_time.cuda_unavailable():
            pytest.skip(why)
        launch = cuda_launch(EVERY[name])
        return cuda_code(launch.source, launch.kernel, capability, name in SASS)

    return code_of


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("backend", ["triton", "nvrtc"])
def test_no_spills_no_shared_memory_and_wide_accesses(code_of, backend, name, capability):
    made = EVERY[name]
    code = code_of(backend, name, capability)
    assert (code.stack_bytes, code.local_bytes, code.spills, code.shared_bytes) == (0, 0, 0, 0)
    is_wide = made.paths == "wide"
    assert code.registers <= (REGISTERS_MAX if is_wide or backend == "nvrtc" else REGISTERS_MAX_NARROW)
    item_bytes = 4 if made.dtype == "float32" else 2
    wide_loads, wide_stores = made.channels, made.channels * item_bytes  # a group's 16 bytes and 16 numbers a channel
    widths = [(code.ptx_widths("ld"), code.ptx_widths("st"))]
    if name in SASS:
        widths.append((code.widths("LDG"), code.widths("STG")))
    for loads, stores in widths:
        if is_wide:
            assert loads.pop(128) == wide_loads
            assert stores == {128: wide_stores}
            assert sum(loads.values()) == TABLE_LOADS
        elif made.paths == "mixed":
            assert loads[128] == wide_loads
            assert stores[128] >= wide_stores
        else:
            assert 128 not in loads and 128 not in stores


@pytest.mark.parametrize("paths", cupy_kernel.PATHS)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", cupy_kernel.CPP_TYPES)
def test_nothing_that_can_be_launched_spills(dtype, channels, paths):
    if why := ahead_of_time.cuda_unavailable():
        pytest.skip(why)
    kernel = cupy_kernel.kernel_name(a_plan(dtype, channels)._replace(paths=paths))
    code = cuda_code(cupy_kernel.SOURCE, kernel, CAPABILITIES[0])  # of the three the one that spills first
    assert (code.stack_bytes, code.local_bytes) == (0, 0)


@pytest.mark.parametrize("backend", ["triton", "nvrtc"])
@pytest.mark.parametrize("name", EVERY)
def test_resources_are_as_the_readme_says(code_of, name, backend):
    codes = [code_of(backend, name, capability) for capability in CAPABILITIES]
    row = ahead_of_time.readme_row(f"images, {name}", backend, codes)
    assert row in README.read_text(), row
