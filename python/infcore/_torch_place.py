"""Where a TorchDevice's modules run: the CPU, or a GPU with a stream and memory of the device's own."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from infcore._torch_batch import KernelRegion, tables_ahead
from infcore.device import StagedBatch
from infcore.errors import InvalidArgument

__all__ = ["TorchPlace"]


class TorchPlace:
    """A torch.device and, on a GPU, the stream on which all happens there.

    device   "cpu", "cuda" or "cuda:N"
    Raises   InvalidArgument where PyTorch has no such device. Used by one thread at a time.
    """

    def __init__(self, torch: Any, device: str) -> None:
        self._torch = torch
        self.where = _where(torch, device)
        self.on_gpu: bool = self.where.type == "cuda"
        self._stream = torch.cuda.Stream(self.where) if self.on_gpu else None
        self._memory: Any = None

    @property
    def kind(self) -> str:
        """What the fleet calls such a device."""
        return "gpu" if self.on_gpu else "cpu"

    def staging_memory(self, n_bytes: int) -> Any:
        """Host memory to stage batches in, pinned for a GPU."""
        if not self.on_gpu:
            return np.empty(n_bytes, np.uint8)
        return self._torch.empty(n_bytes, dtype=self._torch.uint8, pin_memory=True).numpy()

    def in_use(self) -> contextlib.AbstractContextManager[Any]:
        """Makes the stream current."""
        if self._stream is None:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[Any] = self._torch.cuda.stream(self._stream)
        return context

    def copied(self, batch: StagedBatch, groups: list[list[int]] | None) -> KernelRegion:
        """The batch in the device's memory: one copy, and one of the groups' tables where there are groups.

        The memory is that of the batch before, which everything on the stream has left once this copy begins.
        """
        torch = self._torch
        ahead = tables_ahead(batch, groups or [])
        at = len(ahead)
        n_bytes = at + len(batch.memory)
        if self._memory is None or len(self._memory) < n_bytes:
            self._memory = None  # first, so that there is room for its successor
            self._memory = torch.empty(2 * n_bytes, dtype=torch.uint8, device=self.where)
        memory = self._memory[:n_bytes]
        memory[at:].copy_(torch.from_numpy(batch.memory), non_blocking=True)
        if at:
            memory[:at].copy_(torch.from_numpy(ahead))
        return KernelRegion(torch, batch, memory, at, groups)

    def wait(self) -> None:
        """Until the stream has come here; the thread sleeps, without the GIL."""
        if self._stream is not None:
            event = self._torch.cuda.Event(blocking=True)
            event.record(self._stream)
            event.synchronize()

    def answers_still(self) -> bool:
        """After an error: waits for what is under way, since its memory is used again. Whether the GPU answers."""
        if self._stream is None:
            return True
        try:
            self._stream.synchronize()
            self._torch.cuda.empty_cache()
        except Exception:
            return False
        return True

    def give_back(self) -> None:
        """What PyTorch keeps of memory that nobody uses."""
        if self.on_gpu:
            self._torch.cuda.empty_cache()

    def close(self) -> None:
        """Gives all memory back."""
        self._memory = None
        self.give_back()


def _where(torch: Any, device: str) -> Any:
    """The torch.device, with its index."""
    try:
        where = torch.device(device)
    except RuntimeError:
        where = None
    if where is None or where.type not in ("cpu", "cuda"):
        raise InvalidArgument(f"device is {device!r}; allowed: 'cpu', 'cuda', 'cuda:N'")
    if where.type == "cpu":
        return torch.device("cpu")
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = 0 if where.index is None else where.index
    if index >= n_devices:
        raise InvalidArgument(
            f"device is {device!r}; PyTorch sees {n_devices} CUDA devices here; allowed: one of them, or 'cpu'"
        )
    return torch.device("cuda", index)
