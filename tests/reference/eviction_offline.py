"""Eviction that knows the future, readably."""

import struct

from reference.eviction import Limits, View


class Belady:
    """The least cost / (bytes * lookups until its next use) among the farthest of each class of cost per byte."""

    def __init__(self) -> None:
        self.now = 0
        self.cost_per_byte: dict[int, float] = {}
        self.next_use: dict[int, int | None] = {}
        self.evictable: set[int] = set()

    def attach(self, view: View, limits: Limits) -> None:
        self.view = view

    def _look(self, id_: int) -> None:
        self.cost_per_byte[id_] = self.view.cost_us(id_) / self.view.bytes(id_)
        self.next_use[id_] = self.view.next_use(id_)

    def on_insert(self, id_: int) -> None:
        self.now += 1
        self._look(id_)

    def on_hit(self, ids: list[int]) -> None:
        for id_ in ids:
            due = self.next_use[id_]
            self.now = self.now + 1 if due is None else max(self.now, due)
            self._look(id_)

    def on_release(self, ids: list[int]) -> None:
        """No use."""

    def on_evictable(self, id_: int) -> None:
        self.evictable.add(id_)

    def on_held(self, id_: int) -> None:
        self.evictable.remove(id_)

    def on_remove(self, id_: int) -> None:
        self.evictable.discard(id_)

    def _class(self, id_: int) -> int:
        """Exponent and two bits of the fraction: a quarter of a power of two."""
        return int.from_bytes(struct.pack(">d", self.cost_per_byte[id_]), "big") >> 50

    def _far(self, id_: int) -> int:
        next_use = self.next_use[id_]
        return 2**64 - 1 if next_use is None else next_use

    def _worth(self, id_: int) -> float:
        next_use = self.next_use[id_]
        return 0.0 if next_use is None else self.cost_per_byte[id_] / float(max(next_use, self.now + 1) - self.now)

    def victim(self) -> int | None:
        tops: dict[int, int] = {}
        for id_ in sorted(self.evictable, key=lambda id_: (-self._far(id_), id_)):
            tops.setdefault(self._class(id_), id_)
        return min(tops.values(), key=lambda id_: (self._worth(id_), id_), default=None)
