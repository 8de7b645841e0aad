"""Which library launches a kernel, and what the launchers need to know of its arrays.

"triton" takes and gives PyTorch tensors, "cupy" CuPy arrays; without a wish it is Triton where PyTorch and Triton are
there, else CuPy. With TRITON_INTERPRET=1 in the environment "triton" runs interpreted, on PyTorch tensors of the CPU.
An array of the other library, or of any that speaks DLPack, is taken over without a copy.
"""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from . import dtypes

BACKENDS = ("triton", "cupy")
DLPACK_CUDA = (2, 13)  # dlpack.h: kDLCUDA, kDLCUDAManaged
_PACKAGES = {"triton": ("torch", "triton"), "cupy": ("cupy",)}


class ArrayFacts(NamedTuple):
    """What the checks before a launch ask of an array."""

    address: int
    shape: tuple[int, ...]
    dtype: str  # as its library writes it, without the library's name
    contiguous: bool  # C order, no gaps
    device: str  # "cuda:0"; "cpu" is allowed where kernels are interpreted


class Arrays(Protocol):
    """The array library of a back-end. Streams are the library's own objects, or a CUstream's address as an int."""

    name: str

    def adopt(self, array: Any, stream: Any = None) -> Any:
        """The array as this library's own, sharing memory; what its own library has under way comes before `stream`.

        Raises    TypeError if it is none that can be.
        """

    def address(self, array: Any) -> int:
        """Of the first byte."""

    def facts(self, array: Any) -> ArrayFacts:
        """Address, shape, dtype, layout and device."""

    def empty(self, shape: Sequence[int], dtype: str, device: str) -> Any:
        """New, uninitialised memory. dtype is a name of dtypes.py, or "bool"."""

    def fill(self, array: Any, values: NDArray[Any]) -> None:
        """Copies host values, alike in shape and dtype, on the current stream; they may change when it returns."""

    def split(self, array: Any, lengths: Sequence[int]) -> list[Any]:
        """Views along axis 0."""

    @contextmanager
    def on(self, device: str, stream: Any) -> Iterator[None]:
        """Makes device and stream current; None leaves the stream that is.

        Raises    TypeError, ValueError if it is no stream of the library, or another device's.
        """


def interpreted() -> bool:
    """Whether Triton's kernels run on the CPU. Triton looks when a kernel's module is first imported."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


@cache
def _printed(value: Any) -> str:
    """A dtype's or a device's name; PyTorch takes a microsecond to make it."""
    return str(value)


@cache
def available() -> list[str]:
    """The back-ends whose packages are installed, best first. Whether there is a GPU is not asked. Looked up once."""
    return [name for name in BACKENDS if all(importlib.util.find_spec(package) for package in _PACKAGES[name])]


def choose(backend: str | None = None) -> str:
    """A back-end's name.

    Raises    ValueError if it is none, or its packages are not installed.
    """
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}, allowed are None and {', '.join(map(repr, BACKENDS))}")
    found = available()
    if backend is None:
        if not found:
            raise ValueError(
                "backend is None, and neither torch with triton nor cupy is installed: see the extra [gpu]"
            )
        return found[0]
    if backend not in found:
        raise ValueError(f"backend is {backend!r}, which needs the packages {', '.join(_PACKAGES[backend])}")
    return backend


def arrays(backend: str | None = None) -> Arrays:
    """The array library of a back-end, chosen as `choose` does."""
    return TorchArrays() if choose(backend) == "triton" else CupyArrays()


class TorchArrays:
    """PyTorch's tensors."""

    name = "triton"

    def adopt(self, array: Any, stream: Any = None) -> Any:
        import torch

        if isinstance(array, torch.Tensor):
            return array
        with self.on(_dlpack_device(array), stream):  # the producer makes the current stream wait
            return torch.from_dlpack(array)

    def address(self, array: Any) -> int:
        return int(array.data_ptr())

    def facts(self, array: Any) -> ArrayFacts:
        return ArrayFacts(
            array.data_ptr(),
            tuple(array.shape),
            _printed(array.dtype).removeprefix("torch."),
            array.is_contiguous(),
            _printed(array.device),
        )

    def empty(self, shape: Sequence[int], dtype: str, device: str) -> Any:
        import torch

        return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=device)

    def fill(self, array: Any, values: NDArray[Any]) -> None:
        import torch

        array.copy_(torch.from_numpy(values))

    def split(self, array: Any, lengths: Sequence[int]) -> list[Any]:
        return list(array.split(lengths))

    @contextmanager
    def on(self, device: str, stream: Any) -> Iterator[None]:
        import torch

        if device == "cpu":
            yield
            return
        if stream is not None and not isinstance(stream, int | torch.Stream | torch.cuda.Stream):
            raise TypeError(f"stream is {stream!r}, allowed is None, a torch.cuda.Stream or a CUstream's address")
        place = getattr(stream, "device", None)  # torch.cuda.stream() would make it current
        if place is not None and place.index != device_index(device) and ":" in device:
            raise ValueError(f"stream is on {place}, but the rest is on {device}; allowed is one device for all")
        with torch.cuda.device(device):
            if isinstance(stream, int):
                # Address 0 is the default stream's; for ExternalStream it means none, and it takes one from its pool.
                default = torch.cuda.default_stream
                stream = torch.cuda.ExternalStream(stream, device=device) if stream else default(device)
            with torch.cuda.stream(stream):
                yield


class CupyArrays:
    """CuPy's arrays. bfloat16 is that of ml_dtypes where it is installed."""

    name = "cupy"

    def adopt(self, array: Any, stream: Any = None) -> Any:
        import cupy

        if isinstance(array, cupy.ndarray):
            return array
        device = _dlpack_device(array)
        if device == "cpu":
            raise ValueError(f"{type(array).__name__} is on cpu, allowed is an array on a device of kind cuda")
        with self.on(device, stream):  # the producer makes the current stream wait
            return cupy.from_dlpack(array)

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def facts(self, array: Any) -> ArrayFacts:
        return ArrayFacts(
            array.data.ptr,
            tuple(array.shape),
            str(array.dtype),
            array.flags.c_contiguous,
            f"cuda:{array.device.id}",
        )

    def empty(self, shape: Sequence[int], dtype: str, device: str) -> Any:
        import cupy

        return cupy.empty(tuple(shape), np.bool_ if dtype == "bool" else dtypes.numpy_dtype(dtype))

    def fill(self, array: Any, values: NDArray[Any]) -> None:
        array.set(values)

    def split(self, array: Any, lengths: Sequence[int]) -> list[Any]:
        ends = np.cumsum(lengths).tolist()
        return [array[end - length : end] for length, end in zip(lengths, ends, strict=True)]

    @contextmanager
    def on(self, device: str, stream: Any) -> Iterator[None]:
        import cupy

        # Another library's stream may be a context manager, too, of which CuPy's kernels would know nothing.
        if stream is not None and not isinstance(stream, int | cupy.cuda.Stream | cupy.cuda.ExternalStream):
            raise TypeError(f"stream is {stream!r}, allowed is None, a cupy.cuda.Stream or a CUstream's address")
        if getattr(stream, "device_id", -1) not in (-1, device_index(device)):
            raise ValueError(
                f"stream is on cuda:{stream.device_id}, but the rest is on {device}; allowed is one device"
            )
        with cupy.cuda.Device(device_index(device)):
            if stream is None:
                yield
                return
            with cupy.cuda.ExternalStream(stream) if isinstance(stream, int) else stream:
                yield


def _dlpack_device(array: Any) -> str:
    """Where an array of another library is, as facts() has it."""
    if not hasattr(array, "__dlpack__"):
        raise TypeError(f"{type(array).__name__} is no array on a device; allowed are those that speak DLPack")
    kind, number = array.__dlpack_device__()
    return f"cuda:{number}" if kind in DLPACK_CUDA else "cpu"


def device_index(device: str) -> int:
    """The number in "cuda:N"; 0 without one."""
    return int(device.partition(":")[2] or 0)


def check_device(facts: ArrayFacts, argument: str, device: str | None = None) -> None:
    """That a kernel can run where the array is.

    Raises    ValueError if it is on no GPU (nor on the CPU, where kernels are interpreted), or not on `device`.
    """
    if not facts.device.startswith("cuda") and (facts.device != "cpu" or not interpreted()):
        allowed = "cuda or, interpreted, cpu" if interpreted() else "cuda"
        raise ValueError(f"{argument} is on {facts.device}, allowed is a device of kind {allowed}")
    if device is not None and facts.device != device:
        raise ValueError(f"{argument} is on {facts.device}, but the rest is on {device}; allowed is one device for all")


def check_contiguous(facts: ArrayFacts, argument: str) -> None:
    """That an array is C-contiguous.

    Raises    ValueError.
    """
    if not facts.contiguous:
        raise ValueError(
            f"{argument} of shape {facts.shape} is not C-contiguous; allowed is memory without gaps, as made by "
            "numpy.ascontiguousarray or tensor.contiguous()"
        )
