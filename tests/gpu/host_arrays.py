"""CuPy's place taken by the host build: launch() runs whole, checks included, and its kernel runs under sanitizers.

with pretended_cupy(build) as arrays:
    packed = launch.pack(arrays.array(region), rows, backend="cupy")
    packed.data.numpy()
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from gpu.host_build import Counted, HostBuild, Memory
from numpy.typing import NDArray

from infcore.kernels import backends, cuda_module, dtypes
from infcore.kernels.backends import ArrayFacts
from infcore.kernels.cuda_module import CudaLaunch


class HostArray:
    """Part of one buffer of the pretended device."""

    def __init__(self, memory: Memory, address: int, shape: tuple[int, ...], dtype: str, contiguous: bool = True):
        self.memory = memory
        self.address = address
        self.shape = shape
        self.dtype = dtype
        self.contiguous = contiguous

    @property
    def step_bytes(self) -> int:
        """Bytes between entries of axis 0."""
        return math.prod(self.shape[1:]) * (1 if self.dtype == "bool" else dtypes.ITEM_BYTES[self.dtype])

    def __getitem__(self, part: slice) -> "HostArray":
        begin, end, _ = part.indices(self.shape[0])
        shape = (max(end - begin, 0), *self.shape[1:])
        return HostArray(self.memory, self.address + begin * self.step_bytes, shape, self.dtype)

    def numpy(self) -> NDArray[Any]:
        """What it holds now; a view."""
        item = np.dtype(bool) if self.dtype == "bool" else dtypes.numpy_dtype(self.dtype)
        return self.memory.at(self.address, self.shape[0] * self.step_bytes).view(item).reshape(self.shape)

    @property
    def counted(self) -> Counted:
        """What the last launch did to its whole buffer."""
        return self.memory.counted_at(self.address)


class HostArrays:
    """The array library of the pretended device."""

    name = "cupy"

    def __init__(self) -> None:
        self.memory = Memory()
        self.launches: list[CudaLaunch] = []

    def array(self, values: NDArray[Any], misaligned_by: int = 0) -> HostArray:
        """A copy on the device."""
        return HostArray(self.memory, self.memory.add(values, misaligned_by), values.shape, str(values.dtype))

    def adopt(self, array: Any, stream: Any = None) -> HostArray:
        if not isinstance(array, HostArray):
            raise TypeError(f"{type(array).__name__} is no array on a device; allowed are those that speak DLPack")
        return array

    def address(self, array: HostArray) -> int:
        return array.address

    def facts(self, array: HostArray) -> ArrayFacts:
        return ArrayFacts(array.address, array.shape, array.dtype, array.contiguous, "cuda:0")

    def empty(self, shape: Sequence[int], dtype: str, device: str, misaligned_by: int = 0) -> HostArray:
        assert device == "cuda:0"
        n_bytes = math.prod(shape) * (1 if dtype == "bool" else dtypes.ITEM_BYTES[dtype])
        return HostArray(self.memory, self.memory.add_poisoned(n_bytes, misaligned_by), tuple(shape), dtype)

    def fill(self, array: HostArray, values: NDArray[Any]) -> None:
        array.numpy()[:] = values

    def split(self, array: HostArray, lengths: Sequence[int]) -> list[HostArray]:
        ends = np.cumsum(lengths).tolist()
        return [array[end - length : end] for length, end in zip(lengths, ends, strict=True)]

    @contextmanager
    def on(self, device: str, stream: Any) -> Iterator[None]:
        assert device == "cuda:0"
        yield


@contextmanager
def pretended_cupy(build: HostBuild) -> Iterator[HostArrays]:
    """The back-end "cupy" is the host build, with memory of its own."""
    arrays = HostArrays()

    def run(launch: CudaLaunch, *, device: int) -> None:
        assert device == 0
        arrays.launches.append(launch)
        build.run(launch, arrays.memory)

    with (
        mock.patch.object(backends, "available", lambda: ["cupy"]),
        mock.patch.object(backends, "CupyArrays", lambda: arrays),
        mock.patch.object(cuda_module, "run", run),
    ):
        yield arrays
