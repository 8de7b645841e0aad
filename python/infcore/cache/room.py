"""What would have to go for something new, so that never more is given up than is gained."""

from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

from infcore._core.cache import Store

_nobody = object()


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
        self._there: list[dict[Hashable, Resident]] = [{} for _ in self._free]
        for each in residents:
            self._there[each.place][each.key] = each
        self._rows = [[each for each in there.values() if not each.pinned] for there in self._there]
        for rows in self._rows:
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

    def copy(self) -> "Room":
        return Room(self._free, [each for there in self._there for each in there.values()])

    def free_bytes(self, place: int) -> int:
        return self._free[place]

    def take(self, place: int, size_bytes: int, worth_us: float) -> Going | None:
        """Room for something worth that much: what has to go for it, all together worth less; None: it is not worth it.

        Complexity  amortised O(what would go)
        """
        going = self.look(place, size_bytes, worth_us)
        if going is not None:
            self.give(place, size_bytes, going)
        return going

    def look(self, place: int, size_bytes: int, worth_us: float, key: Hashable = _nobody) -> Going | None:
        """What take() would say, for give() once it is known whether it comes. What is there under its own key goes in
        any case, and is no loss."""
        rows, there = self._rows[place], self._there[place]
        before = there.get(key)
        lost_us, freed = 0.0, self._free[place] + (0 if before is None else before.size_bytes)
        gone: list[Resident] = []  # the worthiest last
        at = len(rows) - 1
        while freed < size_bytes:
            if at < 0:
                return None
            each = rows[at]
            if there.get(each.key) is not each:
                del rows[at]
            elif each is not before:
                gone.append(each)
                lost_us += each.worth_us
                freed += each.size_bytes
                if lost_us >= worth_us:
                    return None
            at -= 1
        # The last may have made room alone: those before it stay, the worthiest first.
        going = gone[-1:]
        for each in gone[-2::-1]:
            if freed - each.size_bytes >= size_bytes:
                freed -= each.size_bytes
            else:
                going.append(each)
        going.reverse()
        return Going(tuple(each.key for each in going), sum(each.worth_us for each in going))

    def give(self, place: int, size_bytes: int, going: Going, key: Hashable = _nobody) -> None:
        """It has come, under the key, for what look() said."""
        for gone in (key, *going.keys):
            each = self._there[place].pop(gone, None)  # its row goes when look() meets it
            self._free[place] += 0 if each is None else each.size_bytes
        self._free[place] -= size_bytes
