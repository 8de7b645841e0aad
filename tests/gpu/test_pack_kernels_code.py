"""What Triton and NVRTC make of pack's kernels for sm_80, sm_90 and sm_100; no GPU is asked."""

from pathlib import Path

import pytest
from gpu import ahead_of_time
from gpu.ahead_of_time import CAPABILITIES, Code, cuda_code
from gpu.pack_code import EVERY, cuda_launch, triton_kernel

# With 64 registers a thread an SM still holds 1,024 of the 2,048 threads that it has room for.
REGISTERS_MAX = 64
# What is no data: loads of two entries of cu_seqlens and a row's offset; stores of two entries of cu_seqlens and the
# marks, of which NVRTC's kernel holds both kinds.
TABLE_LOADS_MAX = 3
TABLE_STORES_MAX = 4
SASS = {"move", "narrow", "widen"}  # of these the machine code is read; a spill shows as stack in all


@pytest.fixture(scope="module")
def triton_codes() -> dict[tuple[str, int], Code]:
    if why := ahead_of_time.unavailable():
        pytest.skip(why)
    codes = ahead_of_time.triton_code([triton_kernel(made, sass=name in SASS) for name, made in EVERY.items()])
    return {
        (name, capability): code
        for name, each in zip(EVERY, codes, strict=True)
        for capability, code in zip(CAPABILITIES, each, strict=True)
    }


def code_by_nvrtc(name: str, capability: int) -> Code:
    if why := ahead_of_time.cuda_unavailable():
        pytest.skip(why)
    launch = cuda_launch(EVERY[name])
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


def test_resources_are_as_the_readme_says(triton_codes: dict[tuple[str, int], Code]) -> None:
    written = (Path(__file__).parents[2] / "kernels" / "README.md").read_text()
    for name in EVERY:
        for backend in ["triton", "nvrtc"]:
            codes = [
                triton_codes[name, capability] if backend == "triton" else code_by_nvrtc(name, capability)
                for capability in CAPABILITIES
            ]
            row = ahead_of_time.readme_row(name, backend, codes)
            assert row in written, row
