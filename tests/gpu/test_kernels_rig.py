"""The rig can fail: what runs kernels without a GPU sees an access that is wrong."""

import ctypes
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any
from unittest import mock

import numpy as np
import pytest
from gpu import ahead_of_time, host_build, interpreter, pack_rig
from gpu.host_arrays import pretended_cupy
from gpu.host_build import HostBuild, Memory

from infcore.kernels import backends, cuda_module
from infcore.kernels.cuda_module import CudaLaunch
from infcore.kernels.pack import cupy_kernel, launch
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


OWN_KERNELS = """
namespace infcore::kernels {
__global__ void past(unsigned char* to, int n) { to[n] = 1; }
__global__ void one_by_all(const int* from) { shim::read(from); }
__global__ void one_by_sixteen(const int* from) { shim::read(from + threadIdx.x / 16); }
__global__ void one_twice(const int* from) { shim::read(from), shim::read(from); }
__global__ void one_in_two_turns(const int* from) {
  for (unsigned int turn = 0; turn < 2; ++turn) {
    if (threadIdx.x % 2 == turn) shim::read(from);
  }
}
__global__ void one_by_two_ways(const int* from) {
  if (threadIdx.x % 2 == 0) shim::read(from + 15);
  shim::read(from);
}
}
"""
# How many numbers of 4 bytes a whole warp reads.
WARP_READS = {"one_by_all": 1, "one_by_sixteen": 2, "one_twice": 2, "one_in_two_turns": 2, "one_by_two_ways": 3}


@pytest.fixture(scope="module")
def own_kernels(tmp_path_factory: pytest.TempPathFactory) -> HostBuild:
    """Kernels as none of ours is, in one program."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.cuh").write_text(OWN_KERNELS)
    with mock.patch.object(host_build, "SOURCES", folder):
        return HostBuild("own.cuh", [f"infcore::kernels::{name}" for name in ("past", *WARP_READS)])


def test_the_sanitizer_sees_what_the_shim_does_not(own_kernels: HostBuild) -> None:
    """A kernel that goes around the counted moves, one byte past the end."""
    for n, is_wrong in [(12, False), (13, True)]:
        device = Memory()
        out = device.add_poisoned(13)
        past = CudaLaunch("own.cuh", "infcore::kernels::past", (1, 1, 1), (1, 1, 1), (out, np.int32(n)))
        if is_wrong:
            with pytest.raises(AssertionError, match="AddressSanitizer"):
                own_kernels.run(past, device)
        else:
            own_kernels.run(past, device)
            assert device.at(out, 13).tolist() == [host_build.POISON] * 12 + [1]


@pytest.mark.parametrize("n_threads", [64, 33])
@pytest.mark.parametrize("name", WARP_READS)
def test_a_load_of_a_warp_is_counted_once(name: str, n_threads: int, own_kernels: HostBuild) -> None:
    """Where its threads take the same way, and only there."""
    device = Memory()
    source = device.add(np.arange(16, dtype=np.int32))
    own_kernels.run(CudaLaunch("own.cuh", f"infcore::kernels::{name}", (3, 1, 1), (n_threads, 1, 1), (source,)), device)
    # The 33rd thread is alone in its warp: it reads what it reads.
    alone = 2 if name in ("one_twice", "one_by_two_ways") else 1
    second = WARP_READS[name] if n_threads == 64 else alone
    assert device.counted_at(source).read_bytes == 3 * 4 * (WARP_READS[name] + second)


def test_the_watch_counts_a_load_of_32_lanes_once() -> None:
    torch = interpreter.require()
    data = torch.arange(64, dtype=torch.int32)
    lanes = np.arange(128).reshape(2, 64)
    every, odd = np.ones_like(lanes, dtype=bool), lanes % 2 == 1
    for places, mask, n_read in [
        (lanes // 2, every, 64),
        (lanes // 16, every, 8),
        (lanes * 0, every, 4),
        (lanes // 2, odd, 64),
        (lanes // 16, lanes < 40, 3),
        (lanes * 0, lanes < 0, 0),
        (lanes % 16, every, 64),
        (np.array(3), np.array(True), 1),
    ]:
        watch = interpreter.Watch()
        watch.allow("data", data)
        watch.read((data.data_ptr() + 4 * places).astype(np.uint64), mask, 4)
        assert watch.read_bytes["data"] == 4 * n_read


def test_arguments_of_another_size_are_refused(memory: tuple[Memory, int, int]) -> None:
    device, source, cu_seqlens = memory
    narrow = launched(one_row(5), source, cu_seqlens, device.add_poisoned(20))
    wider = narrow._replace(arguments=(*narrow.arguments[:6], np.int64(5), *narrow.arguments[7:]))
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


@pytest.fixture
def cupy_on_host_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """CuPy's own arrays, on host memory: all of them works but what asks the driver."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")

    def allocate(n_bytes: int) -> Any:
        memory = pack_rig.aligned(n_bytes)
        return cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(memory.ctypes.data, n_bytes, memory, 0), 0)

    def fill(self: Any, array: Any, values: Any) -> None:
        ctypes.memmove(array.data.ptr, np.ascontiguousarray(values).ctypes.data, values.nbytes)

    monkeypatch.setattr(backends.CupyArrays, "on", lambda self, device, stream: nullcontext())
    monkeypatch.setattr(backends.CupyArrays, "fill", fill)
    with cupy.cuda.using_allocator(allocate):
        yield cupy


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_cupys_arrays_give_the_same_launches(layout: str, cupy_on_host_memory: Any, monkeypatch: Any) -> None:
    """Up to the launch with CuPy itself; with the arrays that stand for it the launch is run, too."""
    launches: list[CudaLaunch] = []
    rows = [np.ones((length, 8), np.float32) for length in (3, 0, 5)]
    memory, staged = pack_rig.staged(rows)
    with pretended_cupy(pack_rig.build()) as arrays:
        packed = launch.pack(arrays.array(memory), staged, layout=layout, dtype="bfloat16", backend="cupy")
        launch.unpack(packed.data, [3, 0, 5], layout=layout, dtype="float32", backend="cupy")
    monkeypatch.setattr(cuda_module, "run", lambda launched, device: launches.append(launched))
    library = backends.CupyArrays()
    region = library.empty(memory.shape, "uint8", "cuda:0")
    got = launch.pack(region, staged, layout=layout, dtype="bfloat16", backend="cupy")
    back = launch.unpack(got.data, [3, 0, 5], layout=layout, dtype="float32", backend="cupy")
    for ours, theirs in zip(launches, arrays.launches, strict=True):
        assert ours[:4] == theirs[:4]
        assert ours.arguments[6:] == theirs.arguments[6:]  # the values behind six addresses
    assert launches[0].arguments[3:5] == (got.data.data.ptr, got.cu_seqlens.data.ptr)
    assert str(got.data.dtype) == "bfloat16" and got.data.shape == packed.data.shape
    marks = got.position_ids if layout == "packed" else got.mask
    assert str(marks.dtype) == ("int32" if layout == "packed" else "bool")
    assert [row.shape for row in back.rows] == [(3, 8), (0, 8), (5, 8)]
    assert back.rows[2].data.ptr == back.data.data.ptr + 3 * 8 * 4
    flipped = cupy_on_host_memory.ndarray((4, 8), np.float32, region.data)[::-1]
    with pytest.raises(ValueError, match="not C-contiguous"):
        launch.pack(None, [flipped], backend="cupy")


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
