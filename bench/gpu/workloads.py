"""What is measured: a call on one set of buffers after another, at any size.

A workload is built as often as sets of buffers take turns. Its size is that of what it writes; its floor is every byte
that has to be read or written once, tables included.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from places import numpy_item
from torch_ways import Way

from infcore.kernels import staging

MIB = 1 << 20
BLOCK_BYTES = 1 << 22  # of random contents, repeated: what the bytes are makes no difference to a copy


class Turn(NamedTuple):
    """One set of buffers: our call, and PyTorch's on the same input; all give the same array, or arrays."""

    call: Callable[[], Any]
    ways: dict[str, Way]  # none where the memory is not PyTorch's


class Workload(NamedTuple):
    """One shape at one size."""

    op: str
    says: str
    size_bytes: int  # written, without tables and marks
    floor_bytes: int  # read and written
    set_bytes: int  # of memory that one turn holds
    build: Callable[[Any], Turn]  # on a device of places.py
    tolerance: float = 0.0  # how far, relatively, PyTorch's answer may be from ours; 0: equal


def random_block(rng: np.random.Generator, dtype: str, n_items: int) -> NDArray[Any]:
    """n_items in all, of which a few million are random: small integers, exact in every dtype."""
    some = rng.integers(0, 120, min(n_items, BLOCK_BYTES), np.int8).astype(numpy_item(dtype))
    return np.resize(some, n_items)


def torch_dtype(name: str) -> Any:
    """PyTorch's dtype of that name."""
    import torch

    return getattr(torch, name)


def torch_rows(memory: Any, placed: staging.StagedRows) -> Sequence[Any]:
    """A view of each staged row. They are split off at once: a slice each would take seconds for many."""
    row_bytes = placed.lengths * placed.step_bytes
    begin = placed.tables_at + staging.tables_bytes(placed.n_rows)
    spaced = -(-row_bytes // staging.ALIGNMENT) * staging.ALIGNMENT
    parts = memory[begin : begin + int(spaced.sum())].split(spaced.tolist())
    dtype = torch_dtype(placed.dtype)
    shapes = [(length, *placed.trailing) for length in placed.lengths.tolist()]
    return [part[:n].view(dtype).view(s) for part, n, s in zip(parts, row_bytes.tolist(), shapes, strict=True)]
