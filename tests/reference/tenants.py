"""What the tenants of one tier were served, as in Sheng et al., Fairness in Serving Large Language Models, OSDI 2024.

Every tenant there ever was keeps its counter. A tenant that comes back is lifted to the least of those that wait, or, where
nobody does, to what the last one that left had.
"""

from collections import Counter

AHEAD_MAX = 1 << 61


def units(work: float) -> int:
    """Work in whole 1024ths, at least one of them."""
    return int(max(1.0, min(work * 1024.0, float(1 << 60))))


class Tenants:
    def __init__(self) -> None:
        self.served: dict[int | str, int] = {}
        self.n_waiting: Counter[int | str] = Counter()
        self.last_left = 0

    def floor(self) -> int:
        return min((self.served[tenant] for tenant, n in self.n_waiting.items() if n), default=self.last_left)

    def enter(self, tenant: int | str) -> None:
        if not self.n_waiting[tenant]:
            self.served[tenant] = max(self.served.get(tenant, 0), self.floor())
        self.n_waiting[tenant] += 1

    def leave(self, tenant: int | str, n_units: int) -> None:
        """n_units: of service, 0 where it was not served."""
        self.served[tenant] = min(self.served[tenant] + n_units, self.floor() + AHEAD_MAX)
        self.n_waiting[tenant] -= 1
        if not self.n_waiting[tenant]:
            self.last_left = self.served[tenant]
