"""The rig can fail: what runs kernels without a GPU sees an access that is wrong."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gpu import ahead_of_time, interpreter, pack_rig
from gpu.host_build import Memory

from infcore.kernels import backends, cuda_module
from infcore.kernels.cuda_module import CudaLaunch
from infcore.kernels.pack import cupy_kernel
from infcore.kernels.pack.plan import Plan, plan


def one_row(n_steps: int, **changes: Any) -> Plan:
    made = plan(
        rows_from="packed",
        rows_to="packed",
        src="float32",
        dst="float32",
        n_rows=1,
        max_seqlen=n_steps,
        step_elements=1,
        alignment=4,
    )
    return made._replace(**changes)


def launched(made: Plan, source: int, cu_seqlens: int, out: int) -> CudaLaunch:
    return cupy_kernel.cuda_launch(made, base=source, row_offsets=0, cu_seqlens=cu_seqlens, out=out, cu_out=0, marks=0)


@pytest.fixture
def memory() -> Iterator[tuple[Memory, int, int]]:
    """Memory, where five numbers are, and where their cu_seqlens are."""
    made = Memory()
    yield made, made.add(np.arange(5, dtype=np.float32)), made.add(np.array([0, 5], np.int32))


def test_what_is_right_passes(memory: tuple[Memory, int, int]) -> None:
    device, source, cu_seqlens = memory
    out = device.add_poisoned(20)
    pack_rig.build().run(launched(one_row(5), source, cu_seqlens, out), device)
    assert device.at(out, 20).view(np.float32).tolist() == [0, 1, 2, 3, 4]
    assert device.counted_at(source).read_bytes == device.counted_at(out).written_bytes == 20


@pytest.mark.parametrize(("out_bytes", "shift", "named"), [(19, 0, "outside every buffer"), (24, 2, "is not aligned")])
def test_a_wrong_write_is_seen(memory: tuple[Memory, int, int], out_bytes: int, shift: int, named: str) -> None:
    device, source, cu_seqlens = memory
    out = device.add_poisoned(out_bytes, shift)
    with pytest.raises(AssertionError, match=named):
        pack_rig.build().run(launched(one_row(5), source, cu_seqlens, out), device)


def test_the_sanitizer_sees_what_the_shim_does_not(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that goes around the counted moves, one byte past the end."""
    (tmp_path / "past.cuh").write_text(
        "namespace infcore::kernels { __global__ void past(unsigned char* to, int n) { to[n] = 1; } }\n"
    )
    from gpu import host_build

    monkeypatch.setattr(host_build, "SOURCES", tmp_path)
    build = host_build.HostBuild("past.cuh", ["infcore::kernels::past"])
    for n, is_wrong in [(12, False), (13, True)]:
        device = Memory()
        out = device.add_poisoned(13)
        launch = CudaLaunch("past.cuh", "infcore::kernels::past", (1, 1, 1), (1, 1, 1), (out, np.int32(n)))
        if is_wrong:
            with pytest.raises(AssertionError, match="AddressSanitizer"):
                build.run(launch, device)
        else:
            build.run(launch, device)
            assert device.at(out, 13).tolist() == [host_build.POISON] * 12 + [1]


def test_arguments_of_another_size_are_refused(memory: tuple[Memory, int, int]) -> None:
    device, source, cu_seqlens = memory
    launch = launched(one_row(5), source, cu_seqlens, device.add_poisoned(20))
    wider = launch._replace(arguments=(*launch.arguments[:6], np.int64(5), *launch.arguments[7:]))
    with pytest.raises(AssertionError, match="another size"):
        pack_rig.build().run(wider, device)


def test_what_is_written_twice_is_counted(memory: tuple[Memory, int, int]) -> None:
    device, source, _ = memory
    # Row 0 is steps 0 to 3, row 1 none, row 2 steps 1 to 4: the tables are wrong, and two numbers are written twice.
    cu_seqlens = device.add(np.array([0, 3, 1, 4], np.int32))
    out = device.add_poisoned(20)
    pack_rig.build().run(launched(one_row(5, grid=(3, 1, 1)), source, cu_seqlens, out), device)
    assert device.counted_at(out)[1:] == (24, 0, 0, 8)


@pytest.mark.parametrize("short", ["data", "out", "made 0"])
def test_the_watch_sees_a_wrong_access(short: str) -> None:
    torch = interpreter.require()
    from infcore.kernels.pack import triton_kernel

    with interpreter.watched(torch) as watch:
        data, out = torch.arange(5, dtype=torch.float32), interpreter.poisoned(torch, (5,), "float32")
        cu_seqlens = torch.tensor([0, 5], dtype=torch.int32)
        for name, tensor in [("data", data), ("out", out), ("made 0", cu_seqlens)]:
            watch.allow(name, tensor[:-1] if name == short else tensor)
        with pytest.raises(Exception, match="outside data, out, made 0"):
            triton_kernel.launch(one_row(5), data, cu_seqlens.view(torch.uint8), 0, out, None, None)


def test_cupy_is_what_the_host_arrays_stand_for() -> None:
    """CuPy's side of `Arrays` cannot run without a GPU; it has every method that the stand-in has."""
    from gpu.host_arrays import HostArrays

    wanted = {name for name in vars(backends.Arrays) if not name.startswith("_")}
    for library in (backends.CupyArrays, backends.TorchArrays, HostArrays):
        assert wanted <= set(dir(library)), library


def test_a_spill_and_a_narrow_access_are_read() -> None:
    """The code reader on a kernel that spills on purpose and copies by 4 bytes."""
    if why := ahead_of_time.cuda_unavailable():
        pytest.skip(why)
    from cupy.cuda import nvrtc

    source = """
    extern "C" __global__ void spill(float* to) {
      float kept[64];
    #pragma unroll
      for (int k = 0; k < 64; ++k) kept[k] = atomicAdd(to + k, 1.0f);
    #pragma unroll
      for (int k = 0; k < 64; ++k) to[k + 64] = kept[63 - k] * to[k + 128];
    }"""
    program = nvrtc.createProgram(source, "spill.cu", (), ())
    nvrtc.compileProgram(program, (*cuda_module.COMPILE_OPTIONS, "-arch=sm_90", "--maxrregcount=32"))
    code = ahead_of_time.code_of(nvrtc.getCUBIN(program) + b"\0", nvrtc.getPTX(program).decode(), sass=True)
    assert code.stack_bytes > 0 and code.spills > 0
    assert set(code.widths("LDG")) == set(code.ptx_widths("st")) == {32}
