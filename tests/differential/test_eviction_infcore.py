"""The policy infcore where it samples, learns and remembers: more entries than it looks at, long enough to learn anew.

test_eviction.py asks the same of every policy on small tables, where infcore looks at all of them.
"""

import random
from collections import Counter

import pytest
from reference.eviction import Limits
from reference.eviction_infcore import Infcore, age_class

from infcore._core.cache_replay import Policy


class Table:
    """Entries over the policy and its model; keys that come again, in one of four manners."""

    def __init__(self, seed: int, n_max: int) -> None:
        self.draw = random.Random(seed)
        self.n_max = n_max
        self.n_now = n_max // 4
        self.entries: dict[int, tuple[int, int, float]] = {}  # key, bytes, cost
        self.id_of: dict[int, int] = {}
        self.held: set[int] = set()
        self.reached: Counter[str] = Counter()
        self.policy, self.model = Policy("infcore", self.n_now, n_max), Infcore()
        self.model.attach(self, Limits(self.n_now, n_max))

    def key(self, id_: int) -> int:
        return self.entries[id_][0]

    def bytes(self, id_: int) -> int:
        return self.entries[id_][1]

    def cost_us(self, id_: int) -> float:
        return self.entries[id_][2]

    def next_use(self, id_: int) -> int | None:
        return None

    def both(self, call: str, argument: object) -> None:
        getattr(self.policy, call)(argument)
        getattr(self.model, call)(argument)

    def wanted(self, n: int) -> int:
        draw = self.draw
        return draw.choice(
            [
                int(self.n_max ** draw.random()),  # skewed
                int(4.0 * self.n_max ** draw.random()),
                10_000 + n % (2 * self.n_max),  # a loop
                20_000 + n,  # once
                30_000 + max(0, n - draw.randint(0, self.n_max)) // 3,  # moves on
            ]
        )

    def look_up(self, key: int) -> None:
        id_ = self.id_of.get(key)
        if id_ is not None:
            self.both("on_hit", [id_])
            self.reached["hit"] += 1
            return
        if len(self.entries) == self.n_now and self.n_now < self.n_max:
            self.n_now = min(self.n_max, 2 * self.n_now)
            self.both("grow", self.n_now)
        if len(self.entries) == self.n_max:
            self.evict()
        id_ = next(i for i in range(self.n_max) if i not in self.entries)
        sized = self.draw.choice([1, 1, 40])
        self.entries[id_] = key, sized, self.draw.choice([1.0, 1.0, 10.0 ** self.draw.uniform(-6.0, 6.0)])
        self.id_of[key] = id_
        self.policy.tell(id_, key=key, bytes=sized, cost_us=self.entries[id_][2], next_use=None)
        self.both("on_insert", id_)
        self.both("on_evictable", id_)

    def evict(self) -> None:
        victim = self.policy.victim()
        assert victim == self.model.victim()
        assert victim in self.entries and victim not in self.held
        self.remove(victim)
        self.reached["evicted"] += 1

    def remove(self, id_: int) -> None:
        self.both("on_remove", id_)
        self.held.discard(id_)
        del self.id_of[self.entries.pop(id_)[0]]

    def hold_or_let_go(self) -> None:
        id_ = self.draw.choice(list(self.entries))
        if id_ in self.held:
            self.held.remove(id_)
            self.both("on_release", [id_])
            self.both("on_evictable", id_)
        elif len(self.held) < self.n_max // 2:
            self.held.add(id_)
            self.both("on_held", id_)

    def run(self, n: int) -> None:
        for i in range(n):
            self.look_up(self.wanted(i))
            if self.draw.random() < 0.1:
                self.hold_or_let_go()
            if self.draw.random() < 0.01:
                self.remove(self.draw.choice(list(self.entries)))
            if self.draw.random() < 0.02:
                self.both("on_hit", self.draw.choices(list(self.entries), k=9))


@pytest.mark.parametrize("seed", range(3))
def test_decides_as_its_model(seed: int) -> None:
    table = Table(seed, n_max=(40, 120, 300)[seed])
    table.run(2500)
    assert table.reached["hit"] > 300 and table.reached["evicted"] > 1000, table.reached
    assert table.model.now > 3 * 512, "it has learned too seldom"
    assert len({history.of_class() for history in table.model.history.values()}) > 6


def test_the_oldest_of_its_neighbours_is_forgotten() -> None:
    """Until there are more keys than ghosts; then they come again, those that are forgotten as well."""
    table = Table(8, n_max=20)
    for i in range(6000):
        table.look_up(i if i < 3000 else i - table.draw.randint(1, 3000))
    n_full = sum(all(ways) for ways in table.model.ghosts.neighbourhoods)
    assert n_full > 200
    assert table.reached["evicted"] > 5000, table.reached


def test_units_of_remembered_times() -> None:
    """Above 63 entries times of ghosts are rounded; a policy that is told of so many still does as its model."""
    table = Table(7, n_max=60)
    table.both("grow", 40_000)
    table.n_now = table.n_max
    table.run(700)
    assert table.model.ghosts.unit == 1024


def test_age_classes_of_the_model() -> None:
    assert [age_class(age) for age in (0, 1, 2, 3, 4, 5, 6, 9, 10, 13, 14, 21, 22)] == [
        0, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7,
    ]  # fmt: skip
    assert age_class(2**30 - 2) == 58
