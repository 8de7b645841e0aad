"""The policy infcore, readably: what saves least, by what was learned of keys with such a history, goes next.

Values are rounded to single precision where the compiled policy does; lists stand for its tables.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from reference.eviction import Limits, View

N_AGES = 64
CLASSES = range(24)


class History(NamedTuple):
    """How often a key was asked for, 31 at most; how long before the last time; if once, what it is worth."""

    n_uses: int
    last: int

    def of_class(self) -> int:
        doublings = next(i for i, most in enumerate((1, 2, 4, 8, 16, 31)) if self.n_uses <= most)
        return doublings * 4 + self.last


def age_class(age: int) -> int:
    """0, 1, 2-3, 4-5, 6-9, 10-13, ...: two for each doubling."""
    first, n = 0, 0
    while n < N_AGES - 1 and age >= first + 2 ** (n // 2):
        first += 2 ** (n // 2)
        n += 1
    return n


class Rates:
    """For each class and age: uses to expect over the time to wait for them."""

    def __init__(self) -> None:
        self.used = {(c, a): 0 for c in CLASSES for a in range(N_AGES)}
        self.lost = dict(self.used)
        self.waiting = dict(self.used)
        self.faded_used = dict.fromkeys(self.used, 0.0)
        self.faded_lost = dict(self.faded_used)
        self.rates: dict[tuple[int, int], np.float32] = {}
        self.learn(0.0)

    def learn(self, n_each: float) -> None:
        for at in self.used:
            self.faded_used[at] += self.used[at]
            self.faded_lost[at] += self.lost[at]
        for c in CLASSES:
            self._learn_class(c, n_each)
        for at in self.used:
            self.faded_used[at] *= 0.98
            self.faded_lost[at] *= 0.98
            self.used[at] = self.lost[at] = self.waiting[at] = 0

    def _learn_class(self, c: int, n_each: float) -> None:
        prior_uses = 16.0 * (0.2, 0.36, 0.488, 0.5, 0.5, 0.5)[c // 4]
        ahead: list[tuple[float, float, float]] = []
        n_reached = 0.0
        for age in reversed(range(N_AGES)):
            n_used = self.faded_used[c, age]
            n_ended = self.faded_lost[c, age] + self.waiting[c, age] * n_each
            n_reached += n_used + n_ended
            share = (n_used + prior_uses) / (n_reached - 0.5 * n_ended + 16.0)
            uses, time, alive = share, 2.0 ** (age // 2) * (1.0 - 0.5 * share), 1.0 - share
            while ahead and ahead[-1][0] * time > uses * ahead[-1][1]:
                then = ahead.pop()
                uses, time, alive = uses + alive * then[0], time + alive * then[1], alive * then[2]
            ahead.append((uses, time, alive))
            self.rates[c, age] = np.float32(uses / time)


class Ghosts:
    """Neighbourhoods of eight; a key is known by 16 bits of its hash, none of them 0."""

    def __init__(self, n_entries_max: int) -> None:
        self.neighbourhoods: list[list[tuple[int, int, History] | None]] = [
            [None] * 8 for _ in range(n_entries_max // 2 + 256)
        ]
        self.unit = 2 ** ((n_entries_max + 512).bit_length() - 6)

    def _place(self, key: int) -> tuple[int, int]:
        key = (key ^ key >> 32) * 0x9E3779B97F4A7C15 % 2**64
        key = (key ^ key >> 32) * 0xD6E8FEB86659FD93 % 2**64
        return (key >> 32) * len(self.neighbourhoods) >> 32, key >> 16 & 0xFFFF or 1

    def _used(self, unit: int, now: int) -> int:
        return now - (now // self.unit - unit) % 2**9 * self.unit

    def take(self, key: int, now: int) -> tuple[History, int] | None:
        where, tag = self._place(key)
        ways = self.neighbourhoods[where]
        for i, way in enumerate(ways):
            if way is not None and way[0] == tag:
                ways[i] = None
                return way[2], self._used(way[1], now)
        return None

    def remember(self, key: int, history: History, used: int, now: int) -> tuple[History, int] | None:
        """Returns what it forgets, with its age."""
        where, tag = self._place(key)
        ways = self.neighbourhoods[where]
        free = [i for i, way in enumerate(ways) if way is None]
        ages = [now - self._used(way[1], now) if way is not None else -1 for way in ways]
        at = free[-1] if free else max(range(8), key=lambda i: (ages[i], i))
        forgotten = ways[at]
        ways[at] = (tag, used // self.unit % 2**9, history)
        return None if forgotten is None else (forgotten[2], ages[at])


def even_places() -> Callable[[int], int]:
    at = 0

    def place(n: int) -> int:
        nonlocal at
        at = (at + 0x9E3779B9) % 2**32
        return at * n >> 32

    return place


class Infcore:
    """Of a block, the newest, and those kept from blocks before: the least worth * rate, of equals the lowest id."""

    def attach(self, view: View, limits: Limits) -> None:
        self.view = view
        self.rates = Rates()
        self.now = 0
        self.newest: int | None = None
        self.worth: dict[int, np.float32] = {}
        self.history: dict[int, History] = {}
        self.used: dict[int, int] = {}
        self.evictable: list[int] = []
        self.held: list[int] = []  # they stand behind the evictable
        self.best: list[tuple[np.float32, int]] = []
        self.is_named = False
        self.hand = 0
        self.next_seen = even_places()
        self.mean_bits = self.n_worths = 0.0
        self.n_unlearned = self.n_seen = 0
        self.grow(limits.n_entries_max)

    def grow(self, n_entries_max: int) -> None:
        self.ghosts = Ghosts(n_entries_max)

    def on_insert(self, id_: int) -> None:
        self.is_named = False
        self.now += 1
        self._look_around()
        reuse = getattr(self.view, "reuse", lambda id_: 1.0)(id_)  # what its owner knows of its future, if anything
        worth = max(self.view.cost_us(id_), 1e-4) * reuse / self.view.bytes(id_)
        self.worth[id_] = np.float32(min(max(worth, 1e-30), 1e30))
        once = History(1, self._worth_class(self.worth[id_]))
        ghost = self.ghosts.take(self.view.key(id_), self.now)
        if ghost is None:
            self.history[id_] = once
        else:
            self.history[id_], self.used[id_] = ghost
            self._use(id_)
        self.used[id_] = self.now
        self.newest = id_
        self.held.append(id_)

    def on_hit(self, ids: list[int]) -> None:
        self.is_named = False
        for id_ in ids:
            self._use(id_)

    def on_release(self, ids: list[int]) -> None:
        self.is_named = False
        for id_ in ids:
            self.used[id_] = self.now

    def on_evictable(self, id_: int) -> None:
        self.is_named = False
        self.held[self.held.index(id_)] = self.held[0]
        self.held[0] = id_
        self.evictable.append(self.held.pop(0))

    def on_held(self, id_: int) -> None:
        self.is_named = False
        self.evictable[self.evictable.index(id_)] = self.evictable[-1]
        self.evictable.pop()
        self.held.insert(0, id_)

    def on_remove(self, id_: int) -> None:
        if id_ in self.evictable:
            self.on_held(id_)
        self.is_named = False
        history, key = self.history.pop(id_), self.view.key(id_)
        forgotten = self.ghosts.remember(key, history, self.used[id_], self.now)
        if forgotten is not None:
            self.rates.lost[forgotten[0].of_class(), age_class(forgotten[1])] += 1
        self.held[self.held.index(id_)] = self.held[-1]
        self.held.pop()
        if self.newest == id_:
            self.newest = None

    def victim(self) -> int | None:
        if self.is_named:
            return self.best[0][1]
        if not self.evictable:
            return None
        if len(self.evictable) <= 16:
            self.best = []
            for id_ in self.evictable:
                self._consider(self._value(id_))
        else:
            self._choose()
        self.is_named = True
        return self.best[0][1]

    def _choose(self) -> None:
        if self.hand >= len(self.evictable):
            self.hand = 0
        block = [self._value(id_) for id_ in self.evictable[self.hand : self.hand + 16]]
        self.hand += 16
        # All but the last four bits of a value; of equals the first.
        least = sorted(block, key=lambda candidate: int(candidate[0].view(np.uint32)) // 16)[:2]
        if self.newest in self.evictable:
            self._consider(self._value(self.newest))
        for each in least:
            self._consider(each)
        while True:
            if not self.best:
                for each in least:
                    self._consider(each)
            id_ = self.best[0][1]
            if id_ not in self.evictable:
                self.best.pop(0)
            elif self._value(id_) != self.best[0]:
                self.best.pop(0)
                self._consider(self._value(id_))
            else:
                return

    def _value(self, id_: int) -> tuple[np.float32, int]:
        at = self.history[id_].of_class(), age_class(self.now - self.used[id_])
        return self.rates.rates[at] * self.worth[id_], id_

    def _consider(self, candidate: tuple[np.float32, int]) -> None:
        if candidate not in self.best:
            self.best = sorted([*self.best, candidate])[:4]

    def _use(self, id_: int) -> None:
        gap, history = self.now - self.used[id_], self.history[id_]
        self.rates.used[history.of_class(), age_class(gap)] += 1
        self.history[id_] = History(min(history.n_uses + 1, 31), min(age_class(gap) // 8, 3))
        self.used[id_] = self.now

    def _worth_class(self, worth: np.float32) -> int:
        bits = float(worth.view(np.int32))
        self.n_worths = min(self.n_worths + 1.0, 1000.0)
        self.mean_bits += (bits - self.mean_bits) / self.n_worths
        if bits < self.mean_bits - 2.0**22:
            return 1
        return 2 if bits > self.mean_bits + 2.0**22 else 0

    def _look_around(self) -> None:
        n_entries, n_evictable = len(self.history), len(self.evictable)
        if self.now % 4 == 0 and n_entries:
            first = self.next_seen(n_entries) // 4 * 4
            for place in range(first, min(first + 4, n_entries)):
                id_ = self.evictable[place] if place < n_evictable else self.held[place - n_evictable]
                self.rates.waiting[self.history[id_].of_class(), age_class(self.now - self.used[id_])] += 1
                self.n_seen += 1
        self.n_unlearned += 1
        if self.n_unlearned >= max(512, n_entries // 5):
            self.rates.learn(n_entries / self.n_seen if self.n_seen else 0.0)
            self.n_unlearned = self.n_seen = 0
