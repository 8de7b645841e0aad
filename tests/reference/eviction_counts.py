"""Eviction by counts of requests, readably: W-TinyLFU and LFRU. Lists are in the order of use, the latest last."""

from reference.eviction import Limits, View

_MASK = 2**64 - 1


class FrequencySketch:
    """Four of 64 counters of a line for each key, up to 15; all halved after ten counts an entry."""

    def __init__(self) -> None:
        self.lines: list[list[int]] = []
        self.n_added = 0

    def grow(self, n_entries: int) -> None:
        n_lines = 1
        while n_lines * 16 < n_entries:
            n_lines *= 2
        if not self.lines:
            self.lines = [[0] * 64 for _ in range(n_lines)]
        while len(self.lines) < n_lines:
            self.lines += [list(line) for line in self.lines]

    def _places(self, key: int) -> tuple[list[int], list[int]]:
        key = ((key ^ (key >> 32)) * 0x9E3779B97F4A7C15) & _MASK
        key = ((key ^ (key >> 29)) * 0xBF58476D1CE4E5B9) & _MASK
        key ^= key >> 32
        return self.lines[key % len(self.lines)], [16 * row + ((key >> (60 - 4 * row)) & 15) for row in range(4)]

    def add(self, key: int) -> None:
        line, places = self._places(key)
        for place in places:
            line[place] = min(line[place] + 1, 15)
        self.n_added += 1
        if self.n_added >= 160 * len(self.lines):
            self.n_added //= 2
            self.lines = [[count // 2 for count in each] for each in self.lines]

    def count(self, key: int) -> int:
        line, places = self._places(key)
        return min(line[place] for place in places)


class WTinylfu:
    """A window; a main part of probation and guarded; a duel by count for who leaves the window."""

    def __init__(self) -> None:
        self.asked = FrequencySketch()
        self.lists: dict[str, list[int]] = {"window": [], "probation": [], "guarded": []}
        self.list_of: dict[int, str] = {}
        self.evictable: set[int] = set()

    def attach(self, view: View, limits: Limits) -> None:
        self.view = view
        self.window_max = max(1, limits.capacity_bytes // 100)
        self.main_max = max(0, limits.capacity_bytes - self.window_max)
        self.guarded_max = self.main_max // 5 * 4
        self.grow(limits.n_entries_max)

    def grow(self, n_entries_max: int) -> None:
        self.asked.grow(n_entries_max)

    def _bytes(self, name: str) -> int:
        return sum(self.view.bytes(id_) for id_ in self.lists[name])

    def _move(self, id_: int, to: str) -> None:
        self.lists[self.list_of[id_]].remove(id_)
        self.list_of[id_] = to
        self.lists[to].append(id_)

    def _move_on(self) -> bool:
        if not self.lists["window"] or self._bytes("window") <= self.window_max:
            return False
        oldest = self.lists["window"][0]
        if self._bytes("probation") + self._bytes("guarded") + self.view.bytes(oldest) > self.main_max:
            return False
        self._move(oldest, "probation")
        return True

    def on_insert(self, id_: int) -> None:
        self.asked.add(self.view.key(id_))
        self.list_of[id_] = "window"
        self.lists["window"].append(id_)
        while self._move_on():
            pass

    def on_hit(self, ids: list[int]) -> None:
        for id_ in ids:
            self.asked.add(self.view.key(id_))
            to = "window" if self.list_of[id_] == "window" else "guarded"
            if id_ in self.lists[self.list_of[id_]]:
                self._move(id_, to)
            else:
                self.list_of[id_] = to
            while self._bytes("guarded") > self.guarded_max:
                self._move(self.lists["guarded"][0], "probation")

    def on_release(self, ids: list[int]) -> None:
        """No use."""

    def on_evictable(self, id_: int) -> None:
        self.evictable.add(id_)
        if id_ not in self.lists[self.list_of[id_]]:
            self.lists[self.list_of[id_]].append(id_)

    def on_held(self, id_: int) -> None:
        self.evictable.remove(id_)

    def on_remove(self, id_: int) -> None:
        self.evictable.discard(id_)
        name = self.list_of.pop(id_)
        if id_ in self.lists[name]:
            self.lists[name].remove(id_)

    def victim(self) -> int | None:
        moved = True
        while moved:
            for queue in self.lists.values():
                while queue and queue[0] not in self.evictable:
                    queue.pop(0)
            moved = self._move_on()
        main = [*self.lists["probation"][:1], *self.lists["guarded"][:1]]
        if not self.lists["window"] or not main:
            return next(iter([*self.lists["window"], *main]), None)
        candidate, weakest = self.lists["window"][0], main[0]
        if self._bytes("window") <= self.window_max:
            return weakest
        wins = self.asked.count(self.view.key(candidate)) > self.asked.count(self.view.key(weakest))
        return weakest if wins else candidate


class Lfru:
    """Privileged: found again, by time of use. Else by count, halved every ten requests an entry; the least goes."""

    def __init__(self) -> None:
        self.privileged: list[int] = []
        self.by_count: list[list[int]] = [[] for _ in range(16)]
        self.count: dict[int, int] = {}
        self.is_privileged: dict[int, bool] = {}
        self.n_requests = 0
        self.newest: int | None = None
        self.evictable: set[int] = set()

    def attach(self, view: View, limits: Limits) -> None:
        self.view = view
        self.privileged_max = limits.capacity_bytes // 2

    def _list(self, id_: int) -> list[int]:
        return self.privileged if self.is_privileged[id_] else self.by_count[self.count[id_]]

    def _enlist(self, id_: int) -> None:
        self._list(id_).append(id_)

    def _count_request(self) -> None:
        self.n_requests += 1
        if self.n_requests < 10 * len(self.count):
            return
        self.n_requests = 0
        self.count = {id_: count // 2 for id_, count in self.count.items()}
        halved: list[list[int]] = [[] for _ in range(16)]
        for count, ids in enumerate(self.by_count):
            halved[count // 2] += ids
        self.by_count = halved

    def _demote(self) -> None:
        while sum(self.view.bytes(id_) for id_ in self.privileged) > self.privileged_max:
            id_ = self.privileged.pop(0)
            self.is_privileged[id_] = False
            self._enlist(id_)

    def on_insert(self, id_: int) -> None:
        if self.newest is not None:
            self._enlist(self.newest)
        self._count_request()
        self.count[id_], self.is_privileged[id_], self.newest = 1, False, id_

    def on_hit(self, ids: list[int]) -> None:
        for id_ in ids:
            self._count_request()
            is_listed = id_ == self.newest or id_ in self._list(id_)
            if id_ == self.newest:
                self.newest = None
            elif is_listed:
                self._list(id_).remove(id_)
            self.count[id_] = min(self.count[id_] + 1, 15)
            self.is_privileged[id_] = True
            if is_listed:
                self._enlist(id_)
            self._demote()

    def on_release(self, ids: list[int]) -> None:
        """No use."""

    def on_evictable(self, id_: int) -> None:
        self.evictable.add(id_)
        if id_ != self.newest and id_ not in self._list(id_):
            self._enlist(id_)
            self._demote()

    def on_held(self, id_: int) -> None:
        self.evictable.remove(id_)

    def on_remove(self, id_: int) -> None:
        self.evictable.discard(id_)
        if id_ == self.newest:
            self.newest = None
        elif id_ in self._list(id_):
            self._list(id_).remove(id_)
        del self.count[id_]

    def victim(self) -> int | None:
        for queue in [*self.by_count, self.privileged]:
            while queue:
                if queue[0] in self.evictable:
                    return queue[0]
                queue.pop(0)
        return self.newest if self.newest in self.evictable else None
