from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from infcore._core.latency import LatencyModel

def batching_policies() -> list[str]: ...
def close_batch(
    policy: str,
    now_ns: int,
    latency: LatencyModel,
    *,
    n_requests: int,
    work_sum: float = 0.0,
    work_max: float = 0.0,
    earliest_deadline_ns: int | None = None,
    held_since_ns: int = 0,
    arrivals_per_s: float = 0.0,
    max_batch_size: int = 64,
    delay_ns_max: int = 0,
) -> tuple[int, int]: ...
def select_batch(
    policy: str,
    now_ns: int,
    waiting: Iterable[tuple[int | None, float, int, bool, int]],
    latency: LatencyModel,
    *,
    n_max: int = 64,
    n_waiting: int | None = None,
    max_batch_size: int = 64,
    arrivals_per_s: float = 0.0,
    capacity_per_s: float = 0.0,
    share: float = 1.0,
) -> list[str]: ...

class LengthGroups:
    def __init__(self, n_rows_max: int = 1024) -> None: ...
    @property
    def n_rows_max(self) -> int: ...
    def split(
        self, works: NDArray[np.float64], latency: LatencyModel, *, max_batch_size: int | None = None
    ) -> tuple[list[list[int]], float]: ...
