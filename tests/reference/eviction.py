"""Eviction policies, readably: which evictable entry goes next? The compiled policies must choose the same.

An owner calls on_insert, on_evictable and on_held in turn, on_remove; on_hit and on_release in between.
"""


class Lru:
    """What was inserted, found or let go longest ago; of equals the lowest id."""

    def __init__(self) -> None:
        self.n_uses = 0
        self.used: dict[int, int] = {}
        self.evictable: set[int] = set()

    def _use(self, ids: list[int]) -> None:
        self.n_uses += 1
        for id_ in ids:
            self.used[id_] = self.n_uses

    def on_insert(self, id_: int) -> None:
        self._use([id_])

    def on_hit(self, ids: list[int]) -> None:
        self._use(ids)

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
