"""infcore.Cache against the plain model: thousands of random schedules, whatever the policy; every answer agrees."""

import random

import pytest
from reference import cache as plain
from reference.eviction_models import model_of

import infcore
from infcore.cache import policies

KEYS = [*range(-3, 5), 2**61 - 1, 2**61, -(2**70), 2**70, 1.0, True, "a", "b", "ä", "日本", "😀", b"a", (1, "a"), None]
TAGS = ["", "red", "green", "blue"]
absent = object()


INTS = [*range(-3, 20)]  # policies that remember keys are told their content, which is the value of an int
MODELLED = [policy for policy in policies() if policy != "belady"]


class Both:
    """The cache and its model, told the same; whatever they answer must be equal."""

    def __init__(self, draw: random.Random, policy: str) -> None:
        self.draw = draw
        self.clock = infcore.ManualClock()
        capacity = draw.choice((0, 1, 7, 40, 300))
        ttl_s = draw.choice((None, None, 3.0))
        self.cache = infcore.Cache(capacity, policy=policy, ttl_s=ttl_s, clock=self.clock)
        self.model = plain.Cache(capacity, model_of(policy), self.clock.now_s, float("inf") if ttl_s is None else ttl_s)
        self.n_values = 0
        self.keys = KEYS if policy in ("gdsf", "lru") else INTS

    def step(self) -> None:
        what = self.draw.choices(
            (self.get, self.put, self.bring, self.land, self.drop, self.pin, self.invalidate, self.wait),
            (8, 8, 3, 2, 1, 2, 1, 2),
        )
        what[0](self.draw.choice(self.keys))
        self.check()

    def ask(self, method, *args, **kwargs):
        said, expected = (getattr(side, method)(*args, **kwargs) for side in (self.cache, self.model))
        assert said == expected, (method, args, kwargs)

    def get(self, key) -> None:
        for _ in range(self.draw.choice((1, 1, 1, 70))):
            self.ask(self.draw.choice(("get", "get", "peek", "stale")), key, absent)

    def put(self, key) -> None:
        self.ask("put", key, self.new_value(), **self.told())

    def bring(self, key) -> None:
        others = self.draw.choices(self.keys, k=self.draw.randrange(5))
        self.ask("bring", key, self.new_value(), instead_of=others, **self.told())

    def land(self, key) -> None:
        value, told = self.new_value(), self.told()
        over = self.draw.choice((absent, self.cache.peek(key)))
        said = self.cache.land(key, value, over=over, gone=[], told=told)
        assert said == self.model.land(key, value, over, **told)

    def new_value(self) -> int:
        self.n_values += 1
        return self.n_values

    def told(self) -> dict[str, object]:
        told = {
            "size_bytes": self.draw.choice((0, 1, 2, 5, 20, 41)),
            "cost_us": self.draw.choice((0.0, 0.5, 3.0, 64.0)),
        }
        if self.draw.random() < 0.4:
            told |= {"ttl_s": self.draw.choice((0.0, 1.0, 5.0)), "stale_s": self.draw.choice((0.0, 2.0))}
        if self.draw.random() < 0.3:
            told |= {"tags": self.draw.choices(TAGS, k=2)}
        if self.draw.random() < 0.3:
            told |= {"version": self.draw.randrange(4)}
        return told

    def drop(self, key) -> None:
        if self.draw.random() < 0.9:
            self.ask("delete", key)
        else:
            self.cache.clear()
            self.model.clear()

    def pin(self, key) -> None:
        self.ask(self.draw.choice(("pin", "unpin")), key)

    def invalidate(self, _key) -> None:
        tag, version = self.draw.choice(TAGS), self.draw.randrange(3)
        if self.draw.random() < 0.7:
            n_bearing = sum(tag in entry.tags for entry in self.model.entries.values())
            assert self.cache.invalidate_tag(tag) <= n_bearing
            self.model.invalidate_tag(tag)
        else:
            tag = tag if self.draw.random() < 0.8 else None
            self.cache.invalidate_older(version, tag=tag)
            self.model.invalidate_older(version, tag=tag)

    def wait(self, _key) -> None:
        self.clock.advance(self.draw.choice((0.25, 1.0, 4.0)))

    def check(self) -> None:
        counted = self.cache.counters()
        assert counted["bytes_used"] == self.model.bytes_used <= self.cache.capacity_bytes
        assert len(self.cache) == len(self.model.entries)
        assert {name: counted[name] for name in self.model.counts} == self.model.counts

    def check_entries(self) -> None:
        live = {key: entry for key, entry in self.model.entries.items() if self.model.peek(key, absent) is not absent}
        said = {key: (value, told) for key, value, told in self.cache.entries()}
        assert {key: value for key, (value, _) in said.items()} == {key: entry.value for key, entry in live.items()}
        for key, (_, told) in said.items():
            entry = live[key]
            assert (told["size_bytes"], told["cost_us"], told["version"]) == (entry.bytes, entry.cost_us, entry.version)
            assert set(told["tags"]) == entry.tags
            left_s = None if entry.expires_s == float("inf") else entry.expires_s - self.clock.now_s()
            assert told["ttl_s"] == pytest.approx(left_s)


@pytest.mark.parametrize("policy", MODELLED)
@pytest.mark.parametrize("seed", range(60))
def test_random_schedules(policy, seed):
    both = Both(random.Random(f"{policy} {seed}"), policy)
    for _ in range(100):
        both.step()
    both.check_entries()


@pytest.mark.parametrize("policy", MODELLED)
def test_any_policy_keeps_within_its_capacity(policy):
    """What holds whatever is chosen: bytes, pins, and that a value is its key's last one."""
    draw = random.Random(policy)
    cache, newest, pinned = infcore.Cache(1000, policy=policy), {}, set()
    for at in range(3000):
        key = int(draw.paretovariate(0.6)) % 300
        if draw.random() < 0.5:
            assert cache.get(key, newest.get(key)) == newest.get(key)
            continue
        kept = cache.put(key, at, size_bytes=draw.randrange(1, 60), cost_us=draw.random() * 100)
        newest[key] = at
        assert cache.peek(key) == (at if kept else None)
        if kept and len(pinned) < 5 and cache.pin(key):
            pinned.add(key)
        assert cache.counters()["bytes_used"] <= 1000
        assert all(other in cache for other in pinned - {key})
        pinned = {other for other in pinned if other in cache}
    assert cache.stats().evictions > 100
