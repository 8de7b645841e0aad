"""Staging memory: batches are written into it once, and one copy takes each to its device."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from infcore import _checks
from infcore._core import arena as _core
from infcore._core.arena import Region
from infcore._core.rows import Rows
from infcore.errors import InvalidArgument, InvalidType

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from infcore.kernels.staging import StagedRows

__all__ = ["Arena", "Region", "Staged"]


class Staged(NamedTuple):
    """Ragged rows in an arena: the region that holds them, and where in it they are, for infcore.kernels.pack."""

    region: Region
    rows: StagedRows


class Arena(_core.Arena):
    """A ring of host memory: a batch is staged in a region while the one before is still on its way to the device.

    capacity_bytes  of the first block; 0: taken with the first batch, three times as large
    memory          a callable n_bytes -> writable buffer: where blocks come from. None: ordinary memory
    pinned          True: memory that a GPU reads by itself, where there is one (extra `gpu`); not with `memory`

    A region comes back when the last view of it is gone, and when the copies made by `upload` have read it. Once blocks
    are as large as the batches need, nothing is allocated any more: n_allocations counts the blocks taken.
    One thread at a time; regions may be dropped on any thread.
    """

    def __init__(
        self, *, capacity_bytes: int = 0, memory: Callable[[int], Any] | None = None, pinned: bool = False
    ) -> None:
        if pinned and memory is not None:
            raise InvalidArgument("pinned is True and memory is given; allowed: one of the two")
        if _checks.flag("pinned", pinned):
            from infcore.kernels.transfer import host_memory

            memory = host_memory
        self._under_way: deque[tuple[Any, Region]] = deque()
        capacity_bytes = _checks.integer("capacity_bytes", capacity_bytes, 0, _core.region_bytes_max)
        super().__init__(capacity_bytes=capacity_bytes, memory=memory)

    def __del__(self) -> None:
        """Waits for copies under way: their memory must not be given to anybody else before they have read it."""
        for event, _ in getattr(self, "_under_way", ()):
            with contextlib.suppress(Exception):  # a broken context reads nothing any more
                event.synchronize()

    def reserve(self, n_bytes: int) -> Region:
        self._land()
        return super().reserve(_checks.integer("n_bytes", n_bytes, 0, _core.region_bytes_max))

    reserve.__doc__ = _core.Arena.reserve.__doc__

    def stage(self, rows: Iterable[ArrayLike], *, lengths: ArrayLike | None = None) -> Staged:
        """Rows, ragged in their first axis, into a new region: tables and rows, each byte copied once.

        rows     n >= 1 arrays of one dtype, alike in all but the first axis; not scalars
        lengths  steps to take of each row; None: all
        Returns  Staged, its region as `reserve` gives it
        Raises   InvalidType, InvalidArgument naming the row, as infcore.pack
        """
        from infcore.kernels.staging import StagedRows

        checked = Rows(rows, lengths)
        region = self.stage_rows(checked)
        taken = np.diff(checked.cu_seqlens).astype(np.int64)
        return Staged(region, StagedRows(0, checked.n, str(checked.dtype), checked.trailing, taken))

    def upload(
        self, region: Region, device: str, *, backend: str | None = None, stream: Any = None, event: Any = None
    ) -> Any:
        """Starts the one copy of a region to a device.

        device   "cuda", "cuda:N"; "cpu" gives a view, for interpreted kernels
        backend  "triton" (PyTorch's memory) or "cupy"; None: PyTorch where it is installed
        stream   the library's stream, or a CUstream's address; None: the current one
        event    the library's event to record behind the copy, for who waits for it; not to be recorded again before it
                 has happened. None: one of our own
        Returns  (nbytes,) uint8 on the device, valid once `stream` reaches this point
        Raises   InvalidType, InvalidArgument: no Region; no such device or back-end
        The region stays reserved until the copy has been made, even if nobody else holds it, nor the arena.
        """
        from infcore.kernels.transfer import upload

        if not isinstance(region, Region):
            raise InvalidType(f"region is {type(region).__name__}; allowed: a Region, as reserve and stage give it")
        try:
            arrived, event = upload(region.array, device, backend=backend, stream=stream, event=event)
        except ValueError as error:
            raise InvalidArgument(str(error)) from None
        except TypeError as error:
            raise InvalidType(str(error)) from None
        if event is not None:
            self._under_way.append((event, region))
        return arrived

    @property
    def n_under_way(self) -> int:
        """Copies that have not been seen to be done."""
        self._land()
        return len(self._under_way)

    def _land(self) -> None:
        if self._under_way:
            from infcore.kernels.transfer import happened

            while self._under_way and happened(self._under_way[0][0]):
                self._under_way.popleft()
