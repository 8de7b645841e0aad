"""What reference.model_loads knows of a model, readably: how much it is asked for, what its loads and batches take."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

F = np.float32
WINDOW_NS = 30_000_000_000
NEWEST_SHARE = 0.25
REUSE_MOST = 16.0


def per_s(asked_ns: list[int], now_ns: int) -> float:
    """Those of the present half minute, and of the one before as many as a window that ends now would still cover."""
    window = now_ns // WINDOW_NS
    now, before = (float(sum(at // WINDOW_NS == w for at in asked_ns)) for w in (window, window - 1))
    left = float((window + 1) * WINDOW_NS - now_ns) / float(WINDOW_NS)
    return (now + before * left) / (WINDOW_NS * 1e-9)


@dataclass
class Facts:
    """Of a model."""

    weights_bytes: int = 0
    load_s: float = 0.0  # as declared, then as measured
    is_measured: bool = False
    asked_ns: list[int] = field(default_factory=list)


@dataclass
class Line:
    """What batches of a model take on a node."""

    base_s: Any
    slope_s: Any

    def batch_s(self, n: int) -> float:
        return float(self.base_s + self.slope_s * F(n))

    def all_s(self, n: int, max_batch_size: int) -> float:
        """So many, batch after batch."""
        seconds = n // max_batch_size * self.batch_s(max_batch_size)
        return seconds + self.batch_s(n % max_batch_size) if n % max_batch_size else seconds
