from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

class _HasNow(Protocol):
    def now_s(self) -> float: ...

class Fleet:
    def __init__(
        self,
        *,
        shared: str | None = None,
        max_nodes: int = 1024,
        max_models: int = 1024,
        heartbeat_s: float = 5.0,
        clock: _HasNow | None = None,
    ) -> None: ...
    def add(
        self,
        name: str,
        *,
        kind: str = "gpu",
        zone: str = "",
        location: str = "cloud",
        memory_bytes: int = 0,
        price_per_hour: float = 0.0,
        rtt_s: float = 0.0,
        slots: int = 1,
        pending_max: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> int: ...
    def signal(
        self,
        node: int | str,
        *,
        as_of_s: float | None = None,
        queue_depth: float | None = None,
        inflight: float | None = None,
        cpu: float | None = None,
        gpu: float | None = None,
        memory: float | None = None,
        network: float | None = None,
        packet_loss: float | None = None,
        queue_wait_s: float | None = None,
        error_rate: float | None = None,
    ) -> bool: ...
    def signal_many(self, rows: NDArray[np.void]) -> int: ...
    def add_model(
        self,
        model: str,
        *,
        version: int = 1,
        weights_bytes: int = 0,
        load_s: float = 0.0,
        require: Mapping[str, str] | None = None,
    ) -> None: ...
    def load_model(self, node: int | str, model: str, *, version: int = 1) -> None: ...
    def unload_model(self, node: int | str, model: str, *, version: int = 1) -> None: ...
    def find_model(self, model: str) -> int | None: ...
    def models(self, node: int | str | None = None) -> NDArray[Any]: ...
    def load_costs(self, model: str) -> NDArray[np.float64]: ...
    def bound_pending(self, node: int | str, pending_max: int | None = None) -> None: ...
    def beat(self, *, now_s: float | None = None) -> None: ...
    def unlink(self) -> bool: ...
    @property
    def n_processes(self) -> int: ...
    def drain(self, node: int | str) -> None: ...
    def remove(self, node: int | str) -> None: ...
    def lose(self, node: int | str) -> bool: ...
    def restore(self, node: int | str) -> bool: ...
    def nodes(self) -> NDArray[Any]: ...
    def __len__(self) -> int: ...
