"""What pack and unpack refuse, by both launchers, before anything is launched."""

import importlib
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
from gpu import interpreter, pack_rig
from gpu.host_arrays import HostArray, pretended_cupy

from infcore.kernels import backends
from infcore.kernels.pack import launch
from infcore.kernels.staging import StagedRows

LENGTHS = [2, 0, 3]


class Device:
    """How a back-end's arrays are made, and how many launches there were."""

    def __init__(self, backend: str, array: Callable[..., Any], n_launches: Callable[[], int]) -> None:
        self.backend = backend
        self.array = array
        self.n_launches = n_launches

    def rows(self) -> list[Any]:
        return [self.array(np.ones((length, 4), np.float32)) for length in LENGTHS]

    def region(self) -> tuple[Any, StagedRows]:
        memory, staged = pack_rig.staged([np.ones((length, 4), np.float32) for length in LENGTHS])
        return self.array(memory), staged


@contextmanager
def torch_device() -> Iterator[Device]:
    torch = interpreter.require()
    from infcore.kernels.pack import triton_kernel

    with mock.patch.object(triton_kernel, "launch") as launched:
        yield Device("triton", lambda values: pack_rig.to_torch(torch, values), lambda: launched.call_count)


@contextmanager
def host_device() -> Iterator[Device]:
    with pretended_cupy(pack_rig.build()) as arrays:
        yield Device("cupy", arrays.array, lambda: len(arrays.launches))


@pytest.fixture(params=[torch_device, host_device], ids=["triton", "cupy"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    with ExitStack() as stack:
        yield stack.enter_context(request.param())


@contextmanager
def refused(device: Device, error: type[Exception], named: str) -> Iterator[None]:
    with pytest.raises(error, match=named):
        yield
    assert device.n_launches() == 0


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"layout": "dense"}, ValueError, "layout is 'dense'"),
        ({"layout": "padded", "side": "top"}, ValueError, "side is 'top'"),
        ({"side": "left"}, ValueError, "side is 'left'"),
        ({"dtype": "float64"}, TypeError, "dtype is 'float64'"),
        ({"dtype": "int8", "pad_value": 0.5}, ValueError, "pad_value is 0.5"),
        ({"pad_value": "x"}, TypeError, "pad_value is 'x'"),
        ({"lengths": [3, 0, 3]}, ValueError, r"lengths\[0\] is 3"),
        ({"lengths": [2, 0]}, ValueError, "one for each"),
        ({"lengths": [-1, 0, 0]}, ValueError, r"lengths\[0\] is -1"),
        ({"backend": "cuda"}, ValueError, "backend is 'cuda'"),
    ],
)
def test_arguments(device: Device, arguments: dict[str, Any], error: type[Exception], named: str) -> None:
    with refused(device, error, named):
        launch.pack(None, device.rows(), **({"backend": device.backend} | arguments))


def test_rows(device: Device) -> None:
    rows = device.rows()
    backend = device.backend
    with refused(device, ValueError, "rows is empty"):
        launch.pack(None, [], backend=backend)
    with refused(device, TypeError, r"rows\[1\] is"):
        launch.pack(None, [rows[0], device.array(np.ones((1, 4), np.int32))], backend=backend)
    with refused(device, ValueError, r"rows\[1\] has shape \(1, 5\)"):
        launch.pack(None, [rows[0], device.array(np.ones((1, 5), np.float32))], backend=backend)
    with refused(device, TypeError, "float64"):
        launch.pack(None, [np.ones(3)] if backend == "triton" else [device.array(np.ones(3))], backend=backend)
    with refused(device, TypeError, "list is no array"):
        launch.pack(None, [[1.0]], backend=backend)
    with refused(device, ValueError, "memory is a"):
        launch.pack(rows[0], rows, backend=backend)


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"lengths": np.array([2, 0, 30])}, ValueError, "overrun"),
        ({"lengths": np.array([2, 0, 2**31])}, ValueError, "sum to 2147483650"),
        ({"lengths": np.array([2, -1, 3])}, ValueError, r"lengths\[1\] is -1"),
        ({"n_rows": 4}, ValueError, "one for each of 4 rows"),
        ({"n_rows": 40, "lengths": np.zeros(40, np.int64)}, ValueError, "rows the table"),
        ({"tables_at": 8}, ValueError, "tables_at is 8"),
        ({"tables_at": 160}, ValueError, "from byte 160"),
        ({"tables_at": -16}, ValueError, "tables_at is -16"),
        ({"dtype": "float64"}, TypeError, "rows.dtype is 'float64'"),
        ({"trailing": (-4,)}, ValueError, "trailing"),
        ({"trailing": (400,)}, ValueError, "overrun"),
        # Bytes beyond int64: 2**64, which wraps to none, and more than a Python int can be made an int64 of.
        ({"trailing": (2**32,), "lengths": np.array([2**30, 0, 0])}, ValueError, "overrun"),
        ({"trailing": (2**62, 4)}, ValueError, "overrun"),
        ({"trailing": tuple(np.array([2**62, 4]))}, ValueError, "overrun"),
    ],
)
def test_staged_rows(device: Device, change: dict[str, Any], error: type[Exception], named: str) -> None:
    memory, staged = device.region()
    with refused(device, error, named):
        launch.pack(memory, staged._replace(**change), backend=device.backend)


def test_memory(device: Device) -> None:
    memory, staged = device.region()
    backend = device.backend
    n_bytes = memory.shape[0]
    with refused(device, ValueError, "memory is float32"):
        launch.pack(device.array(np.ones(n_bytes, np.float32)), staged, backend=backend)
    with refused(device, ValueError, "memory is uint8 of shape"):
        launch.pack(device.array(np.ones((n_bytes, 1), np.uint8)), staged, backend=backend)
    with refused(device, ValueError, "memory begins at"):
        launch.pack(device.array(np.ones(n_bytes + 1, np.uint8))[1:], staged, backend=backend)
    with refused(device, ValueError, f"memory has {n_bytes - 1} bytes"):
        launch.pack(memory[: n_bytes - 1], staged, backend=backend)
    with refused(device, ValueError, "staged rows have their own"):
        launch.pack(memory, staged, lengths=LENGTHS, backend=backend)
    with refused(device, TypeError, "NoneType is no array"):
        launch.pack(None, staged, backend=backend)


def test_out(device: Device) -> None:
    rows = device.rows()
    backend = device.backend
    for shape in [(4, 4), (6, 4), (5, 4, 1), (3, 3, 4)]:
        with refused(device, ValueError, "out has shape"):
            launch.pack(None, rows, out=device.array(np.ones(shape, np.float32)), backend=backend)
    with refused(device, TypeError, "out is int32"):
        launch.pack(None, rows, out=device.array(np.ones((5, 4), np.int32)), backend=backend)
    with refused(device, TypeError, "out is float32, allowed is float16"):
        launch.pack(None, rows, dtype="float16", out=device.array(np.ones((5, 4), np.float32)), backend=backend)


def test_unpack(device: Device) -> None:
    backend = device.backend
    data = device.array(np.ones((5, 4), np.float32))
    for lengths, named in [([2, 2], "sum to 4"), ([], "at least one row"), ([6, -1], r"lengths\[1\]")]:
        with refused(device, ValueError, named):
            launch.unpack(data, lengths, backend=backend)
    with refused(device, ValueError, "lengths are 5, up to 5"):
        launch.unpack(data, [5, 0, 0, 0, 0], layout="padded", backend=backend)
    with refused(device, ValueError, "lengths are 2, up to 1"):
        launch.unpack(data, [1, 1], layout="padded", backend=backend)
    with refused(device, ValueError, "cu_seqlens has shape"):
        launch.unpack(data, LENGTHS, cu_seqlens=device.array(np.ones(3, np.int32)), backend=backend)
    with refused(device, TypeError, "cu_seqlens is int64"):
        launch.unpack(data, LENGTHS, cu_seqlens=device.array(np.ones(4, np.int64)), backend=backend)
    with refused(device, ValueError, "side is 'left'"):
        launch.unpack(data, LENGTHS, side="left", backend=backend)


def test_not_contiguous() -> None:
    with torch_device() as device:
        torch = interpreter.require()
        for row in (torch.ones((4, 3)).T, torch.ones((3, 8))[:, ::2], torch.ones((1, 4)).expand(3, 4)):
            with refused(device, ValueError, "not C-contiguous"):
                launch.pack(None, [row], backend="triton")
            with refused(device, ValueError, "not C-contiguous"):
                launch.unpack(row, [3], dtype="float16", backend="triton")
        with refused(device, ValueError, "out of shape"):
            launch.pack(None, device.rows(), out=torch.ones((4, 5)).T, backend="triton")
    with host_device() as device:
        row = device.array(np.ones((3, 4), np.float32))
        # CuPy has negative strides; its flags say of them what they say of a transposed array.
        gapped = HostArray(row.memory, row.address, row.shape, row.dtype, contiguous=False)
        with refused(device, ValueError, "not C-contiguous"):
            launch.pack(None, [gapped], backend="cupy")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = interpreter.require()
    with torch_device() as device:
        with refused(device, ValueError, "out is on meta"):
            launch.pack(None, device.rows(), out=torch.empty((5, 4), device="meta"), backend="triton")
        with refused(device, ValueError, r"rows\[1\] is on meta"):
            launch.pack(None, [device.rows()[0], torch.empty((5, 4), device="meta")], backend="triton")
        monkeypatch.delenv("TRITON_INTERPRET")
        with refused(device, ValueError, r"rows\[0\] is on cpu, allowed is a device of kind cuda"):
            launch.pack(None, device.rows(), backend="triton")
        memory, staged = device.region()
        with refused(device, ValueError, "memory is on cpu"):
            launch.pack(memory, staged, backend="triton")


def test_rows_that_nobody_else_holds(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their memory may not become that of the outputs before the launch has read them."""
    held = []
    monkeypatch.setattr(launch, "_launch", lambda *_: held.extend(reference() is not None for reference in references))
    references = []

    def made() -> Iterator[Any]:
        for row in device.rows():
            references.append(weakref.ref(row))
            yield row

    launch.pack(None, made(), backend=device.backend)
    assert held == [True] * len(LENGTHS)


def test_streams_of_another_kind_or_device() -> None:
    torch = interpreter.require()
    for library, named in [(backends.TorchArrays(), "torch.cuda.Stream"), (backends.CupyArrays(), "cupy.cuda.Stream")]:
        if library.name not in backends.available():
            continue
        for stream in ["0", torch.device("cuda:0"), ExitStack()]:  # the last is a context manager, as streams are
            with pytest.raises(TypeError, match=f"stream is .*, allowed is None, a {named} or"):
                with library.on("cuda:0", stream):
                    pass

    class Elsewhere:
        device = torch.device("cuda:1")
        device_id = 1

    with mock.patch.object(torch.cuda, "Stream", Elsewhere):
        with pytest.raises(ValueError, match="stream is on cuda:1, but the rest is on cuda:0"):
            with backends.TorchArrays().on("cuda:0", Elsewhere()):
                pass
    if "cupy" in backends.available():
        import cupy

        with mock.patch.object(cupy.cuda, "Stream", Elsewhere):
            with pytest.raises(ValueError, match="stream is on cuda:1, but the rest is on cuda:0"):
                with backends.CupyArrays().on("cuda:0", Elsewhere()):
                    pass


@pytest.mark.parametrize("backend", ["triton", "cupy"])
def test_arrays_of_another_library_are_taken_over_on_the_stream_of_the_launch(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DLPack's producer makes the stream wait that is current then."""
    if backend not in backends.available():
        pytest.skip(f"the packages of {backend} are not installed")
    current: list[Any] = [None]
    seen = []

    @contextmanager
    def on(self: Any, device: str, stream: Any) -> Iterator[None]:
        current.append((device, stream))
        yield
        current.pop()

    class Foreign:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 1

        def __dlpack__(self, **_: Any) -> Any:
            raise AssertionError("there is no such device")

    library = backends.arrays(backend)
    monkeypatch.setattr(type(library), "on", on)
    package = importlib.import_module("torch" if backend == "triton" else "cupy")
    monkeypatch.setattr(package, "from_dlpack", lambda array: seen.append(current[-1]))
    library.adopt(Foreign(), "the stream")
    assert seen == [("cuda:1", "the stream")]


def test_arrays_of_the_host_are_none_of_cupys() -> None:
    if "cupy" not in backends.available():
        pytest.skip("CuPy is not installed")
    with pytest.raises(ValueError, match="ndarray is on cpu, allowed is an array on a device of kind cuda"):
        backends.CupyArrays().adopt(np.ones(3))


def test_choice_of_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, chosen in [(["triton", "cupy"], "triton"), (["cupy"], "cupy")]:
        monkeypatch.setattr(backends, "available", lambda there=there: there)
        assert backends.choose() == chosen
    with pytest.raises(ValueError, match="'triton', which needs the packages torch, triton"):
        backends.choose("triton")
    monkeypatch.setattr(backends, "available", list)
    with pytest.raises(ValueError, match="neither torch with triton nor cupy"):
        backends.choose()
