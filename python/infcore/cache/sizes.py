"""What a value weighs, where its owner does not say."""

import itertools
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

import numpy as np

# An estimate must not cost more than what it is for: so deep, and so many items looked at in all.
DEPTH_MAX = 4
ITEMS_MAX = 1000


def estimated_bytes(value: object) -> int:
    """Bytes that the value occupies, roughly: arrays by their data, containers with what they hold.

    Returns     at least 1. 1,000 items are looked at, shared out among containers in containers, and stand for the
                others; from the fifth level on, what is inside counts as nothing; what is in there twice counts twice
    Complexity  O(items), at most 1,000 at each of four levels
    """
    return max(1, _bytes(value, DEPTH_MAX, ITEMS_MAX))


def _bytes(value: object, depth: int, n_items_max: int) -> int:
    own = sys.getsizeof(value)
    data = getattr(value, "nbytes", None)
    if isinstance(data, int) and data > 0:  # beside the object, or in it; a view is charged for what it shows
        return data + (112 if isinstance(value, np.ndarray) else own)
    if depth == 0:
        return own
    if isinstance(value, Mapping):
        half = max(1, n_items_max // 2)
        return own + _sum(value.keys(), len(value), depth, half) + _sum(value.values(), len(value), depth, half)
    if isinstance(value, (list, tuple, set, frozenset)):
        return own + _sum(value, len(value), depth, n_items_max)
    if hasattr(value, "__dict__"):
        return own + _bytes(vars(value), depth - 1, n_items_max)
    return own


def _sum(items: Iterable[object], n: int, depth: int, n_items_max: int) -> int:
    if n == 0:
        return 0
    n_each = max(1, n_items_max // n)
    total = n_seen = 0
    with suppress(RuntimeError):  # somebody changes it meanwhile: those seen so far stand for the rest
        for item in itertools.islice(items, n_items_max):
            total += _bytes(item, depth - 1, n_each)
            n_seen += 1
    return total * n // max(1, n_seen)
