def admission_policies() -> list[tuple[str, bool]]: ...

class AdmissionPolicy:
    def __init__(self, name: str, max_models: int = 4) -> None: ...
    def admit(
        self,
        *,
        now_ns: int = 0,
        deadline_ns: int | None = None,
        defer_ns: int = 0,
        model: int = 0,
        tier: int = 0,
        has_stale: bool = False,
        n_open: int = 0,
        best_s: float = -1.0,
        wait_s: float = 0.0,
        goal_s: float = 0.0,
        capacity_per_s: float = 0.0,
        fallback_per_s: float = 0.0,
        fallback_wait_s: float = 0.0,
        first_tier: int = 0,
        last_tier: int = 0,
    ) -> tuple[str, int, float]: ...
    def answered(
        self,
        *,
        model: int = 0,
        n_open: int = 1,
        max_batch_size: int = 1,
        latency_s: float = 0.0,
        service_s: float = 0.0,
    ) -> None: ...
    def batch_delay_ns(self, configured_ns: int) -> int: ...
    def limit(self, model: int = 0) -> float: ...

class Ladder:
    def arrived(self, now_ns: int, load: float, capacity_per_s: float, n_rungs: int) -> int: ...
    def refused(self) -> None: ...
    def settle(self, now_ns: int, n_rungs: int) -> int: ...
