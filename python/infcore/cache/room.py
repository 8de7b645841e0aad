"""What would have to go for something new, so that never more is given up than is gained."""

from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

from infcore._core.cache import Store


class Resident(NamedTuple):
    """What is there: a cache's entry, or a model on a device.

    place     which part of the room it takes: a shard, a device
    worth_us  cost that it is expected to save; what is given up with it
    """

    key: Hashable
    place: int
    size_bytes: int
    worth_us: float
    pinned: bool = False


class Going(NamedTuple):
    """What has to go, and what it is worth together."""

    keys: tuple[Hashable, ...]
    worth_us: float


class Room:
    """Room by place as it would be, after what take() said. Nothing is done to the cache itself.

    free_bytes  of each place
    residents   everything that is there; what is worth least for its bytes goes first, ties in the order given
    """

    def __init__(self, free_bytes: Iterable[int], residents: Iterable[Resident]):
        self._free = list(free_bytes)
        self._residents: list[list[Resident]] = [[] for _ in self._free]
        for each in residents:
            if not each.pinned:
                self._residents[each.place].append(each)
        for rows in self._residents:
            rows.sort(key=lambda each: each.worth_us / max(1, each.size_bytes), reverse=True)

    @classmethod
    def of_cache(cls, cache: Store, worth_us: Callable[[Hashable, float], float]) -> "Room":
        """The cache's at this moment; worth_us(key, cost_us) of what is in it. O(entries)."""
        free = cache.free_bytes()
        rows = cache.residents()
        return cls(
            free,
            [Resident(key, at, size, worth_us(key, cost) if cost else 0.0, pin) for key, at, size, cost, pin in rows],
        )

    def free_bytes(self, place: int) -> int:
        return self._free[place]

    def take(self, place: int, size_bytes: int, worth_us: float) -> Going | None:
        """Room for something worth that much: what has to go for it, all together worth less; None: it is not worth it.

        Complexity  O(what would go)
        """
        rows = self._residents[place]
        lost_us, freed = 0.0, self._free[place]
        n = 0
        while freed < size_bytes:
            if n == len(rows):
                return None
            n += 1
            lost_us += rows[-n].worth_us
            freed += rows[-n].size_bytes
            if lost_us >= worth_us:
                return None
        # The last may have made room alone: those before it stay, the worthiest first.
        gone = rows[len(rows) - n :]
        staying = []
        for each in gone[1:]:
            if freed - each.size_bytes >= size_bytes:
                freed -= each.size_bytes
                staying.append(each)
        self._free[place] = freed - size_bytes
        del rows[len(rows) - n :]
        rows += staying  # still in their order
        kept = {id(each) for each in staying}
        going = [each for each in reversed(gone) if id(each) not in kept]
        return Going(tuple(each.key for each in going), sum(each.worth_us for each in going))
