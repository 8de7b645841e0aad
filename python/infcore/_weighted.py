"""Choice by weights: how requests for an alias spread over the versions of its model."""

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["weighted"]


def weighted(choices: list[tuple[Any, float]]) -> Callable[[], Any]:
    """Smooth weighted round robin: each turn everyone earns its weight, and the richest pays for being chosen."""
    total = sum(weight for _, weight in choices)
    earned = [0.0] * len(choices)
    lock = threading.Lock()

    def choose() -> Any:
        with lock:
            for i, (_, weight) in enumerate(choices):
                earned[i] += weight
            best = max(range(len(choices)), key=lambda i: (earned[i], -i))
            earned[best] -= total
            return choices[best][0]

    return choose
