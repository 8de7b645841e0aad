"""What is measured: a call on one set of buffers after another, at any size.

A workload is built as often as sets of buffers take turns. Its size is that of what it writes; its floor is every byte
that has to be read or written once, tables included.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from places import numpy_item
from torch_ways import Way

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
