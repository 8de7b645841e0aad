"""Triton's kernels without a GPU: interpreted, every access watched and counted.

Importing this module sets TRITON_INTERPRET for the process, before any kernel's module can have been imported: those
are imported when they are first launched.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest

from infcore.kernels import backends

os.environ["TRITON_INTERPRET"] = "1"

WARP_LANES = 32
NO_ADDRESS = 0  # of a lane that is masked out


def require() -> Any:
    """PyTorch, on one thread, where Triton is there, too; else the test is skipped."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: no interpreted kernels")
    pytest.importorskip("triton", reason="Triton is not installed: no interpreted kernels")
    torch.set_num_threads(1)
    return torch


def poisoned(torch: Any, shape: Sequence[int], dtype: str) -> Any:
    """Memory of what nobody expects."""
    tensor = torch.empty(tuple(shape), dtype=getattr(torch, dtype))
    tensor.view(-1).view(torch.uint8).fill_(0xA5)
    return tensor


class Watch:
    """Memory that a kernel may touch; bytes read and written in each."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        self._names: list[str] = []
        self.n_made = 0
        self.read_bytes: dict[str, int] = {}
        self.written_bytes: dict[str, int] = {}
        self._touched: dict[str, np.ndarray] = {}

    def allow(self, name: str, tensor: Any) -> None:
        """Lets kernels use a contiguous tensor's memory."""
        self._begins.append(tensor.data_ptr())
        self._ends.append(tensor.data_ptr() + tensor.numel() * tensor.element_size())
        self._names.append(name)
        self.read_bytes[name] = self.written_bytes[name] = 0
        self._touched[name] = np.zeros(tensor.numel() * tensor.element_size(), np.uint8)

    def _access(self, wanted: Any, n_bytes: int) -> Iterator[tuple[str, Any]]:
        seen = 0
        for name, begin, end in zip(self._names, self._begins, self._ends, strict=True):
            inside = wanted[(wanted >= begin) & (wanted + n_bytes <= end)]
            seen += inside.size
            yield name, inside - begin
        assert seen == wanted.size, f"{wanted.size - seen} accesses of {n_bytes} bytes outside {', '.join(self._names)}"
        assert not (wanted % n_bytes).any(), f"an access of {n_bytes} bytes is not aligned"

    def read(self, addresses: Any, mask: Any, n_bytes: int) -> None:
        """Counts the distinct bytes that each load of a warp asks for; a scalar, which all threads read, once.

        Assumed: a warp's load is of 32 lanes in a row, the last axis first, as in Triton's blocked layout of one item a
        thread. Where a thread has more, lanes of one load lie apart: the same bytes, if no address is there twice. The
        one load of ours where some are, block_table's ids for the slots, has one item a thread (see there).
        """
        lanes = np.where(mask, addresses, NO_ADDRESS).astype(np.int64).reshape(-1, min(np.size(addresses), WARP_LANES))
        lanes.sort(axis=1)
        # Aligned accesses of one size: any two are of the same bytes, or have none in common.
        first = np.diff(lanes, axis=1, prepend=NO_ADDRESS) != 0
        for name, offsets in self._access(lanes[first], n_bytes):
            self.read_bytes[name] += offsets.size * n_bytes

    def write(self, addresses: Any, mask: Any, n_bytes: int) -> None:
        wanted = np.asarray(addresses)[np.broadcast_to(mask, np.shape(addresses))].astype(np.int64)
        for name, offsets in self._access(wanted, n_bytes):
            self.written_bytes[name] += offsets.size * n_bytes
            assert np.unique(offsets).size == offsets.size, f"one store writes a place of {name} twice"
            for k in range(n_bytes):
                self._touched[name][offsets + k] += 1

    @property
    def overwritten_bytes(self) -> int:
        """Bytes that were written more than once."""
        return sum(int((touched > 1).sum()) for touched in self._touched.values())


@contextmanager
def watched(torch: Any) -> Iterator[Watch]:
    """Every load and store of interpreted kernels goes through a Watch; one outside what it allows fails the test.

    What launch() allocates is poisoned, and allowed as "made 0", "made 1", ...
    """
    from triton.runtime.interpreter import InterpreterBuilder

    watch = Watch()

    def empty(self: Any, shape: Sequence[int], dtype: str, device: str) -> Any:
        tensor = poisoned(torch, shape, dtype)
        watch.allow(f"made {watch.n_made}", tensor)
        watch.n_made += 1
        return tensor

    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def watched_load(self: Any, ptrs: Any, mask: Any, other: Any, *options: Any, **named: Any) -> Any:
        watch.read(ptrs.data, mask.data, _item_bytes(ptrs))
        return load(self, ptrs, mask, other, *options, **named)

    def watched_store(self: Any, ptrs: Any, value: Any, mask: Any, *options: Any, **named: Any) -> Any:
        watch.write(ptrs.data, mask.data, _item_bytes(ptrs))
        return store(self, ptrs, value, mask, *options, **named)

    InterpreterBuilder.create_masked_load = watched_load
    InterpreterBuilder.create_masked_store = watched_store
    try:
        # NumPy warns of what a GPU does silently: casts that overflow to infinity.
        with np.errstate(all="ignore"), mock.patch.object(backends.TorchArrays, "empty", empty):
            yield watch
    finally:
        InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store = load, store


def _item_bytes(pointers: Any) -> int:
    return max(1, pointers.get_element_ty().primitive_bitwidth // 8)
