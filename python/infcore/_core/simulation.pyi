from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infcore.request import PolicyOption

OUTCOMES: tuple[str, ...]
FAULTS: tuple[str, ...]

class Simulation:
    def __init__(
        self,
        scenario: Any,
        *,
        policy: str,
        seed: int = ...,
        log: bool = ...,
        policy_options: Mapping[str, PolicyOption] | None = ...,
    ) -> None: ...
    def run(self, steps_max: int) -> str: ...
    def feed(
        self,
        at_ns: NDArray[np.int64],
        workload: NDArray[np.uint32],
        work: NDArray[np.float64],
        deadline_ns: NDArray[np.int64],
        tier: NDArray[np.uint16],
        tenant: NDArray[np.uint32],
        session: NDArray[np.uint64],
        prompt: NDArray[np.uint32],
        output: NDArray[np.uint32],
        n_names: NDArray[np.uint32],
        names: NDArray[np.uint64],
    ) -> None: ...
    def close_rows(self) -> None: ...
    def take_log(self) -> bytes: ...
    @property
    def now_s(self) -> float: ...
    @property
    def n_requests(self) -> int: ...
    def totals(self, model: int | None = ...) -> dict[str, Any]: ...
    def nodes(self) -> list[dict[str, Any]]: ...
    def parts(self) -> dict[str, Any]: ...
    def faults(self) -> tuple[int, list[tuple[float, int, str, bool]]]: ...
    def tokens(self) -> dict[str, int]: ...
    def state(self) -> dict[str, Any]: ...
