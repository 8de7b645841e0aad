from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infcore._core.decision import Decision, Decisions
from infcore._core.fleet import Fleet
from infcore._core.prefix import Prefix
from infcore._core.python_policy import RoutePolicy

class _HasNow(Protocol):
    def now_s(self) -> float: ...

class Router:
    def __init__(
        self,
        fleet: Fleet,
        *,
        policy: str | RoutePolicy = "slo_cost",
        seed: int = 0,
        clock: _HasNow | None = None,
        health: bool | Mapping[str, float] = True,
        prefix: str | Mapping[str, str | float] = "exact",
        **policy_options: Any,
    ) -> None: ...
    @staticmethod
    def policies() -> list[str]: ...
    @property
    def policy(self) -> str: ...
    @property
    def prefix(self) -> Prefix: ...
    def set_prior(
        self,
        model: str,
        node: int | str,
        *,
        base_s: float = 0.0,
        per_request_s: float = 0.0,
        per_work_s: float = 0.0,
        per_padded_work_s: float = 0.0,
    ) -> None: ...
    def pick(
        self,
        model: str,
        *,
        work: float = 1.0,
        tier: int = 0,
        deadline_s: float | None = None,
        session: str | int | None = None,
        blocks: NDArray[np.uint64] | None = None,
        require: Mapping[str, str] | None = None,
        allow_late: bool = False,
        lease_s: float | None = None,
        now_s: float | None = None,
    ) -> Decision: ...
    def pick_many(
        self,
        model: str,
        work: ArrayLike,
        *,
        tier: int = 0,
        deadline_s: float | None = None,
        session: str | int | None = None,
        blocks: NDArray[np.uint64] | None = None,
        require: Mapping[str, str] | None = None,
        allow_late: bool = False,
        lease_s: float | None = None,
        now_s: float | None = None,
    ) -> Decisions: ...
    def done(
        self,
        decision: Decision | Decisions,
        *,
        ok: bool = True,
        service_s: float | ArrayLike | None = None,
        confidence: float | None = None,
        now_s: float | None = None,
    ) -> bool: ...
    def cancel(self, decision: Decision | Decisions, *, now_s: float | None = None) -> bool: ...
    def report(self, node: int | str, *, ok: bool, now_s: float | None = None) -> None: ...
    def probe_due(self, *, now_s: float | None = None) -> list[int]: ...
    def explain(
        self,
        model: str,
        *,
        work: float = 1.0,
        tier: int = 0,
        deadline_s: float | None = None,
        session: str | int | None = None,
        blocks: NDArray[np.uint64] | None = None,
        require: Mapping[str, str] | None = None,
        allow_late: bool = False,
        lease_s: float | None = None,
        now_s: float | None = None,
    ) -> list[dict[str, Any]]: ...
