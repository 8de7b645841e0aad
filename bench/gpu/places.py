"""Where kernels run: memory that can be filled, poisoned and read back.

The same checks run in each place: a GPU by PyTorch, a GPU by CuPy, and without a GPU Triton's interpreter (the first of
these classes on "cpu") and the CUDA source under the host shim.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from infcore.kernels import backends, dtypes

POISON = 0xA5
GUARD_BYTES = 256  # on both sides of everything that a kernel is given; a multiple of every alignment that matters


class _Guarded(NamedTuple):
    block: Any  # uint8, guards included
    begin: int
    end: int


def item_bytes(dtype: str) -> int:
    """Bytes of one item; "bool" is known, too."""
    return 1 if dtype == "bool" else dtypes.ITEM_BYTES[dtype]


def numpy_item(dtype: str) -> Any:
    """What NumPy calls it."""
    return np.dtype(bool) if dtype == "bool" else dtypes.numpy_dtype(dtype)


class _Device:
    """What both libraries have in common: poisoned memory between guards."""

    arrays_name: str  # the class in backends whose new memory is to be poisoned, too

    def __init__(self) -> None:
        self._guarded: list[_Guarded] | None = None  # those of the case that runs

    def block(self, n_bytes: int) -> Any:
        """New memory, all of it POISON, uint8."""
        raise NotImplementedError

    def typed(self, memory: Any, shape: Sequence[int], dtype: str) -> Any:
        """A uint8 array as another type."""
        raise NotImplementedError

    def write(self, memory: Any, contents: NDArray[np.uint8]) -> None:
        """Host bytes to a uint8 array."""
        raise NotImplementedError

    def bytes_of(self, array: Any) -> NDArray[np.uint8]:
        """Any contiguous array's bytes, on the host."""
        raise NotImplementedError

    def copy(self, source: Any, target: Any) -> None:
        """The library's own copy, on the device."""
        raise NotImplementedError

    def release(self) -> None:
        """Gives the memory that the library keeps for later back to the device, for the other library."""
        raise NotImplementedError

    def poisoned(self, shape: Sequence[int], dtype: str, misaligned_by: int = 0) -> Any:
        """Memory that nobody has written, misaligned_by bytes past a multiple of 256, between guards."""
        n_bytes = math.prod(shape) * item_bytes(dtype)
        begin = GUARD_BYTES + misaligned_by
        guarded = _Guarded(self.block(begin + n_bytes + GUARD_BYTES), begin, begin + n_bytes)
        if self._guarded is not None:
            self._guarded.append(guarded)
        return self.typed(guarded.block[begin : guarded.end], shape, dtype)

    def array(self, values: NDArray[Any], misaligned_by: int = 0) -> Any:
        """A copy of host values."""
        memory = self.poisoned((values.nbytes,), "uint8", misaligned_by)
        self.write(memory, np.ascontiguousarray(values).reshape(-1).view(np.uint8))
        return self.typed(memory, values.shape, str(values.dtype))

    def numpy(self, array: Any, dtype: str) -> NDArray[Any]:
        """What an array of that dtype holds."""
        return self.bytes_of(array).view(numpy_item(dtype)).reshape(tuple(array.shape))

    @contextmanager
    def case(self) -> Iterator[list[str]]:
        """One case: what the launchers allocate is poisoned, too; the list then holds what is wrong with the guards."""
        wrong: list[str] = []
        self._guarded = []

        def empty(library: Any, shape: Sequence[int], dtype: str, device: str) -> Any:
            return self.poisoned(shape, dtype)

        try:
            with mock.patch.object(getattr(backends, self.arrays_name), "empty", empty):
                yield wrong
            wrong += [what for what in map(self._beside, self._guarded) if what]
        finally:
            self._guarded = None

    def _beside(self, guarded: _Guarded) -> str:
        """Whether bytes beside an array were written, in words."""
        contents = self.bytes_of(guarded.block)
        if (contents[: guarded.begin] == POISON).all() and (contents[guarded.end :] == POISON).all():
            return ""
        return f"bytes beside an array of {guarded.end - guarded.begin} bytes were written"


class TorchDevice(_Device):
    """PyTorch's memory: on a GPU; on "cpu" where kernels are interpreted."""

    backend = "triton"
    arrays_name = "TorchArrays"

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.where = "interpreter" if device == "cpu" else "gpu"

    def block(self, n_bytes: int) -> Any:
        import torch

        return torch.full((n_bytes,), POISON, dtype=torch.uint8, device=self.device)

    def typed(self, memory: Any, shape: Sequence[int], dtype: str) -> Any:
        import torch

        return memory.view(getattr(torch, dtype)).view(tuple(shape))

    def write(self, memory: Any, contents: NDArray[np.uint8]) -> None:
        import torch

        memory.copy_(torch.from_numpy(contents))

    def bytes_of(self, array: Any) -> NDArray[np.uint8]:
        import torch

        return array.contiguous().view(-1).view(torch.uint8).cpu().numpy()

    def copy(self, source: Any, target: Any) -> None:
        target.copy_(source)

    def release(self) -> None:
        import torch

        if self.device != "cpu":
            torch.cuda.empty_cache()


class CupyDevice(_Device):
    """CuPy's memory, on a GPU."""

    backend = "cupy"
    arrays_name = "CupyArrays"
    device = "cuda:0"
    where = "gpu"

    def block(self, n_bytes: int) -> Any:
        import cupy

        return cupy.full(n_bytes, POISON, np.uint8)

    def typed(self, memory: Any, shape: Sequence[int], dtype: str) -> Any:
        return memory.view(numpy_item(dtype)).reshape(tuple(shape))

    def write(self, memory: Any, contents: NDArray[np.uint8]) -> None:
        memory.set(contents)

    def bytes_of(self, array: Any) -> NDArray[np.uint8]:
        return array.reshape(-1).view(np.uint8).get()

    def copy(self, source: Any, target: Any) -> None:
        import cupy

        n_bytes, on_device = source.nbytes, cupy.cuda.runtime.memcpyDeviceToDevice
        stream = cupy.cuda.get_current_stream().ptr
        cupy.cuda.runtime.memcpyAsync(target.data.ptr, source.data.ptr, n_bytes, on_device, stream)

    def release(self) -> None:
        import cupy

        cupy.get_default_memory_pool().free_all_blocks()
