"""Every eviction policy against its plain model, decision by decision, and the contract that all of them keep.

An owner in Python drives both: it inserts before it makes room, holds and lets go, removes what it wishes, looks
entries up one by one and many at a time, asks for victims that it then does not take, and grows.
"""

import random
from collections import Counter

import pytest
from reference.eviction import Limits
from reference.eviction_models import model_of

from infcore._core.cache_replay import Policy
from infcore.cache import policies

N_SCHEDULES = 12
N_CALLS = 400


class Owner:
    """A table of entries over a compiled policy and, where it is not None, its model."""

    def __init__(self, seed: int, policy: str, with_model: bool = True) -> None:
        self.draw = random.Random(seed)
        self.n_max = self.draw.choice([4, 8, 24])
        self.capacity = self.draw.choice([20, 1000, 4000, 12000])
        self.keys: dict[int, int] = {}
        self.sizes: dict[int, int] = {}
        self.costs: dict[int, float] = {}
        self.nexts: dict[int, int | None] = {}
        self.n_pins: dict[int, int] = {}
        self.reached: Counter[str] = Counter()
        self.named: list[int | None] = []
        self.policy = Policy(policy, self.n_max, self.capacity)
        self.model = model_of(policy) if with_model else None
        if self.model is not None:
            self.model.attach(self, Limits(self.n_max, self.capacity))
        self.equal = self.draw.random() < 0.3  # sizes, costs: policies must break ties
        self.n_lookups = 0

    def key(self, id_: int) -> int:
        return self.keys[id_]

    def bytes(self, id_: int) -> int:
        return self.sizes[id_]

    def cost_us(self, id_: int) -> float:
        return self.costs[id_]

    def next_use(self, id_: int) -> int | None:
        return self.nexts[id_]

    def both(self, call: str, argument: object) -> None:
        getattr(self.policy, call)(argument)
        if self.model is not None:
            getattr(self.model, call)(argument)

    def victim(self) -> int | None:
        named = self.policy.victim()
        assert named == self.policy.victim(), "asked again, it says another"
        evictable = [id_ for id_, n in self.n_pins.items() if n == 0]
        assert named in evictable if evictable else named is None
        if self.model is not None:
            assert named == self.model.victim()
        self.named.append(named)
        return named

    def remove(self, id_: int) -> None:
        self.both("on_remove", id_)
        for column in (self.keys, self.sizes, self.costs, self.nexts, self.n_pins):
            del column[id_]

    def look_up(self, ids: list[int]) -> None:
        for id_ in ids:
            self.n_lookups += 1
            self.nexts[id_] = self.later()
            self.tell(id_)
        self.both("on_hit", ids)

    def later(self) -> int | None:
        return None if self.draw.random() < 0.2 else self.n_lookups + self.draw.randint(1, 200)

    def tell(self, id_: int) -> None:
        self.policy.tell(
            id_, key=self.keys[id_], bytes=self.sizes[id_], cost_us=self.costs[id_], next_use=self.nexts[id_]
        )

    def put(self) -> None:
        id_ = next((i for i in range(self.n_max) if i not in self.keys), None)
        if id_ is None:
            self.n_max += self.draw.randint(1, 9)
            self.policy.grow(self.n_max)
            if hasattr(self.model, "grow"):
                self.model.grow(self.n_max)
            self.reached["grown"] += 1
            return
        self.n_lookups += 1
        self.keys[id_] = self.draw.randint(1, 40)
        self.sizes[id_] = 10 if self.equal else self.draw.randint(1, 1000)
        self.costs[id_] = 5.0 if self.equal else self.draw.choice([0.0, 10.0 ** self.draw.uniform(0.0, 6.0)])
        self.nexts[id_] = self.later()
        self.n_pins[id_] = int(self.draw.random() < 0.2)
        self.tell(id_)
        self.both("on_insert", id_)
        if self.n_pins[id_] == 0:
            self.both("on_evictable", id_)
        while sum(self.sizes.values()) > self.capacity:
            victim = self.victim()
            if victim is None:
                self.reached["all held"] += 1
                self.remove(id_)  # as an owner has to that has no room
                break
            self.reached["rejected" if victim == id_ else "evicted"] += 1
            self.remove(victim)
        assert sum(self.sizes.values()) <= self.capacity

    def pin(self, id_: int) -> None:
        self.n_pins[id_] += 1
        if self.n_pins[id_] == 1:
            self.both("on_held", id_)

    def unpin(self, id_: int) -> None:
        if self.n_pins[id_] == 0:
            return
        self.n_pins[id_] -= 1
        self.both("on_release", [id_])
        if self.n_pins[id_] == 0:
            self.both("on_evictable", id_)

    def step(self) -> None:
        call = self.draw.choices(["put", "one", "many", "pin", "unpin", "remove", "ask"], [30, 40, 8, 8, 9, 3, 3])[0]
        if call == "put" or not self.keys:
            return self.put()
        ids = list(self.keys)
        id_ = self.draw.choice(ids)
        if call == "one":
            self.look_up([id_])
        elif call == "many":
            self.look_up(self.draw.choices(ids, k=self.draw.randint(1, 80)))
        elif call == "ask":
            self.victim()
        else:
            getattr(self, call)(id_)
            self.reached[call] += 1

    def run(self, n_calls: int) -> None:
        for _ in range(n_calls):
            self.step()
        while (victim := self.victim()) is not None:  # the order in which the rest would go
            self.remove(victim)


@pytest.mark.parametrize("policy", policies())
def test_decides_as_its_model(policy: str) -> None:
    reached: Counter[str] = Counter()
    for seed in range(N_SCHEDULES):
        owner = Owner(seed, policy)
        try:
            owner.run(N_CALLS)
        except BaseException as failed:
            failed.add_note(f"seed {seed}, policy {policy}")
            raise
        reached += owner.reached
    missing = {"grown", "evicted", "pin", "unpin", "remove"} - set(reached)
    assert not missing, reached


@pytest.mark.parametrize("policy", policies())
def test_same_calls_same_decisions(policy: str) -> None:
    """Two of a kind, and what it named is evictable, whatever the sizes; see Owner.victim."""
    for seed in range(100, 104):
        one, two = Owner(seed, policy, with_model=False), Owner(seed, policy, with_model=False)
        one.run(1500)
        two.run(1500)
        assert one.named == two.named and len(one.named) > 100
