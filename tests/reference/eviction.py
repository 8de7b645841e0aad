"""Eviction policies, readably: which evictable entry goes next? The compiled policies must choose the same.

An owner calls attach, on_insert, on_evictable and on_held in turn, on_remove; on_hit and on_release in between; grow
where there may be more entries and the model has one. reference/eviction_models.py finds a policy's model.
"""

from typing import NamedTuple, Protocol

import numpy as np


class View(Protocol):
    def key(self, id_: int) -> int: ...

    def cost_us(self, id_: int) -> float: ...

    def bytes(self, id_: int) -> int: ...

    def next_use(self, id_: int) -> int | None: ...


class Limits(NamedTuple):
    n_entries_max: int
    capacity_bytes: int


class Gdsf:
    """The least floor + hits * cost / bytes, which the floor then rises to; of equals the lowest id."""

    def __init__(self) -> None:
        self.floor = 0.0
        self.named: int | None = None
        self.n_hits: dict[int, float] = {}
        self.cost_per_byte: dict[int, float] = {}  # as it was told when it came in
        self.worth: dict[int, float] = {}
        self.evictable: set[int] = set()

    def attach(self, view: View, limits: Limits) -> None:
        self.view = view

    def _lift(self, ids: list[int]) -> None:
        for id_ in ids:
            self.worth[id_] = self.floor + self.n_hits[id_] * self.cost_per_byte[id_]

    def on_insert(self, id_: int) -> None:
        self.n_hits[id_] = 1.0
        cost_per_byte = self.view.cost_us(id_) / self.view.bytes(id_)
        self.cost_per_byte[id_] = float(np.float32(min(cost_per_byte, np.finfo(np.float32).max)))
        self._lift([id_])

    def on_hit(self, ids: list[int]) -> None:
        for id_ in ids:
            self.n_hits[id_] += 1.0
        self._lift(ids)

    def on_release(self, ids: list[int]) -> None:
        self._lift(ids)

    def on_evictable(self, id_: int) -> None:
        self.evictable.add(id_)

    def on_held(self, id_: int) -> None:
        self.evictable.remove(id_)

    def on_remove(self, id_: int) -> None:
        if id_ in self.evictable and id_ == self.named:
            self.floor = self.worth[id_]
        self.evictable.discard(id_)

    def victim(self) -> int | None:
        self.named = min(self.evictable, key=lambda id_: (self.worth[id_], id_), default=None)
        return self.named


class Lru:
    """What was inserted, found or let go longest ago; of equals the lowest id."""

    def __init__(self) -> None:
        self.n_uses = 0
        self.used: dict[int, int] = {}
        self.evictable: set[int] = set()

    def attach(self, view: View, limits: Limits) -> None:
        """It asks nothing."""

    def _use(self, ids: list[int]) -> None:
        self.n_uses += 1
        for id_ in ids:
            self.used[id_] = self.n_uses

    def on_insert(self, id_: int) -> None:
        self._use([id_])

    def on_hit(self, ids: list[int]) -> None:
        for id_ in ids:
            self._use([id_])

    def on_release(self, ids: list[int]) -> None:
        self._use(ids)

    def on_evictable(self, id_: int) -> None:
        self.evictable.add(id_)

    def on_held(self, id_: int) -> None:
        self.evictable.remove(id_)

    def on_remove(self, id_: int) -> None:
        self.evictable.discard(id_)

    def victim(self) -> int | None:
        return min(self.evictable, key=lambda id_: (self.used[id_], id_), default=None)
