from collections.abc import Hashable, Mapping
from typing import Any

import numpy.typing as npt

from infcore._core.future import Future
from infcore._core.token_worker import TokenWorkers

class EngineCore(TokenWorkers):
    def submit(
        self,
        model: str,
        inputs: Mapping[str, npt.NDArray[Any]],
        *,
        work: float | None = None,
        version: int | None = None,
        tenant: str = "",
        tier: int = 0,
        deadline_s: float | None = None,
        session: str | None = None,
        blocks: npt.NDArray[Any] | None = None,
        key: Hashable | None = None,
        require: Mapping[str, str] | None = None,
        defer_s: float | None = None,
    ) -> Future: ...
    def asubmit(
        self,
        model: str,
        inputs: Mapping[str, npt.NDArray[Any]],
        *,
        work: float | None = None,
        version: int | None = None,
        tenant: str = "",
        tier: int = 0,
        deadline_s: float | None = None,
        session: str | None = None,
        blocks: npt.NDArray[Any] | None = None,
        key: Hashable | None = None,
        require: Mapping[str, str] | None = None,
        defer_s: float | None = None,
    ) -> Future: ...
    def _n_flights(self) -> int: ...
