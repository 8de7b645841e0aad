"""What Triton and NVRTC make of block_table's kernels for sm_80, sm_90 and sm_100; no GPU is asked."""

from pathlib import Path

import pytest
from gpu import ahead_of_time
from gpu.ahead_of_time import CAPABILITIES, cuda_code
from gpu.block_code import EVERY, cuda_launch, triton_kernel

README = Path(__file__).parents[2] / "kernels" / "README.md"
REGISTERS_MAX = 64


@pytest.fixture(scope="module")
def triton_codes():
    if why := ahead_of_time.unavailable():
        pytest.skip(why)
    codes = ahead_of_time.triton_code([triton_kernel(made, sass=True) for made in EVERY.values()])
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
        return cuda_code(launch.source, launch.kernel, capability, True)

    return code_of


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("backend", ["triton", "nvrtc"])
def test_no_spills_and_wide_rows(code_of, backend, name, capability):
    code = code_of(backend, name, capability)
    assert (code.stack_bytes, code.local_bytes, code.spills) == (0, 0, 0)
    assert code.registers <= REGISTERS_MAX
    # A row's whole tile by 128 bits; slots are written one by one, since a request's begin anywhere.
    assert (128 in code.widths("LDG"), 128 in code.widths("STG")) == (EVERY[name].wide,) * 2
    # Triton has the slots and their ids in one layout, one a thread, as counted (gpu/interpreter.py): in the table's
    # layout the ids would change lanes through shared memory. The narrow table's own do.
    if name == "wide":
        assert code.shared_bytes == 0


@pytest.mark.parametrize("backend", ["triton", "nvrtc"])
@pytest.mark.parametrize("name", EVERY)
def test_resources_are_as_the_readme_says(code_of, name, backend):
    codes = [code_of(backend, name, capability) for capability in CAPABILITIES]
    row = ahead_of_time.readme_row(f"block table, {name}", backend, codes)
    assert row in README.read_text(), row
