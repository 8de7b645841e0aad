"""What infcore.Queue decides, spelled out: no locks, no waiting, every choice by sorting.

Times are plain numbers on one clock. `Item` ranks are tuples, so that the order can be read off.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from reference.tenants import Tenants, units


@dataclass(frozen=True)
class Item:
    value: Any
    tier: int
    deadline: float  # math.inf: none
    arrival: float
    seq: int
    tenant: str = ""
    work: float = 1.0

    def rank(self) -> tuple[int, float, int]:
        """Greatest is shed first; of one tenant's, least is served first."""
        return (self.tier, self.deadline, self.seq)


class TieredQueue:
    """Tier, least served tenant, deadline, arrival; ageing, bounds in all and per tier, expiry, reject or shed_lowest."""

    def __init__(
        self,
        capacity: int,
        tiers: int = 1,
        overflow: str = "reject",
        tier_capacity: list[int] | None = None,
        ageing: float = math.inf,
    ) -> None:
        self.capacity = capacity
        self.tier_capacity = tier_capacity or [capacity] * tiers
        self.overflow = overflow
        self.ageing = ageing
        self.items: list[Item] = []
        self.dropped: list[tuple[Any, str]] = []
        self.n_put = 0
        self.tenants: defaultdict[int, Tenants] = defaultdict(Tenants)  # by tier

    def put(
        self, value: Any, tier: int, deadline: float, now: float, tenant: str = "", work: float = 1.0
    ) -> Item | None:
        """The item as taken, or None: full."""
        new = Item(value, tier, deadline, now, self.n_put, tenant, work)
        if self._is_full(tier):
            self._expire(now)
        if self._is_full(tier):
            lowest = max(self._rivals(tier), key=Item.rank)
            if self.overflow != "shed_lowest" or lowest.rank() < new.rank():
                return None
            self._drop(lowest, "shed")
        self.n_put += 1
        self.items.append(new)
        self.tenants[tier].enter(tenant)
        return new

    def get(self, now: float) -> Item | None:
        self._expire(now)
        if not self.items:
            return None
        oldest = min(self.items, key=lambda item: (item.arrival, item.seq))
        first = oldest if now - oldest.arrival >= self.ageing else min(self.items, key=self._place)
        self._leave(first, units(first.work))
        return first

    def drain(self, max_items: int, now: float) -> list[Item]:
        self._expire(now)
        return [item for item in (self.get(now) for _ in range(min(max_items, len(self.items)))) if item is not None]

    def cancel(self, item: Item) -> bool:
        if item not in self.items:
            return False
        self._leave(item, 0)
        return True

    def _place(self, item: Item) -> tuple[int, int, float, int]:
        """Least is served first."""
        return (item.tier, self.tenants[item.tier].served[item.tenant], item.deadline, item.seq)

    def _leave(self, item: Item, n_units: int) -> None:
        self.items.remove(item)
        self.tenants[item.tier].leave(item.tenant, n_units)

    def _tier_size(self, tier: int) -> int:
        return sum(item.tier == tier for item in self.items)

    def _is_full(self, tier: int) -> bool:
        return len(self.items) >= self.capacity or self._tier_size(tier) >= self.tier_capacity[tier]

    def _rivals(self, tier: int) -> list[Item]:
        """Of whom one has to go: the tier's own if that is what is full, else all."""
        tier_is_full = self._tier_size(tier) >= self.tier_capacity[tier]
        return [item for item in self.items if item.tier == tier or not tier_is_full]

    def _expire(self, now: float) -> None:
        for item in sorted(self.items, key=lambda item: (item.deadline, item.tier, item.seq)):
            if item.deadline <= now:
                self._drop(item, "expired")

    def _drop(self, item: Item, reason: str) -> None:
        self._leave(item, 0)
        self.dropped.append((item.value, reason))
