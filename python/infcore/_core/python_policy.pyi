from collections.abc import Callable
from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray

@final
class RouteQuery:
    model: str
    work: float
    tier: int
    now_s: float
    deadline_s: float | None
    session: int
    blocks: NDArray[np.uint64]

@final
class RouteCandidates:
    nodes: NDArray[np.uint32]
    inflight: NDArray[np.float64]
    slots: NDArray[np.float64]
    price_per_hour: NDArray[np.float64]
    wait_us: NDArray[np.float64]
    service_us: NDArray[np.float64]
    pressure_us: NDArray[np.float64]
    load_us: NDArray[np.float64]
    network_us: NDArray[np.float64]
    saving_us: NDArray[np.float64]
    cost_us: NDArray[np.float64]

@final
class RouteOutcome:
    node: int
    model: str
    now_s: float
    latency_s: float
    ok: bool
    confidence: float | None

class RoutePolicy(Protocol):
    def select(self, query: RouteQuery, view: RouteCandidates, /) -> int | None: ...

def register_policy(name: str, factory: Callable[..., RoutePolicy]) -> None: ...
