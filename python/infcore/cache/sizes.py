"""What a value weighs, where its owner does not say."""

import sys
from collections.abc import Iterable, Mapping

import numpy as np

# Containers are walked so deep and so far: an estimate must not cost more than what it is for.
DEPTH_MAX = 4
ITEMS_MAX = 1000


def estimated_bytes(value: object) -> int:
    """Bytes that the value occupies, roughly: arrays by their data, containers with what they hold.

    Returns     at least 1. Of containers with more than 1,000 items, the first 1,000 stand for the rest; from the fifth
                level on, what is inside counts as nothing; what is in there twice counts twice
    Complexity  O(items), at most 1,000 a container
    """
    return _bytes(value, DEPTH_MAX)


def _bytes(value: object, depth: int) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes + 112  # the object beside its data; a view is charged for what it shows
    own = sys.getsizeof(value)
    if depth == 0:
        return own
    if isinstance(value, Mapping):
        return own + _sum(value.keys(), len(value), depth) + _sum(value.values(), len(value), depth)
    if isinstance(value, (list, tuple, set, frozenset)):
        return own + _sum(value, len(value), depth)
    if hasattr(value, "__dict__"):
        return own + _bytes(vars(value), depth - 1)
    return own


def _sum(items: Iterable[object], n: int, depth: int) -> int:
    if n == 0:
        return 0
    seen = total = 0
    for item in items:
        total += _bytes(item, depth - 1)
        seen += 1
        if seen == ITEMS_MAX:
            break
    return total * n // max(1, seen)
