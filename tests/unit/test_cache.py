"""infcore.Cache: what it keeps, for how long, and what it says of bad input."""

import copy
import gc
import pickle
import sys
import weakref

import numpy as np
import pytest

import infcore
from infcore.cache import estimated_bytes

absent = object()


@pytest.fixture
def clock():
    return infcore.ManualClock()


def cache_of(capacity=100, **options):
    return infcore.Cache(capacity, policy="lru", **options)


def put_all(cache, keys, **told):
    for key in keys:
        cache.put(key, f"value of {key}", **{"size_bytes": 10} | told)


def test_keys_are_those_of_a_dict():
    cache, plain = cache_of(10**6), {}
    nan = float("nan")
    keys = [0, -1, -2, 1, True, 1.0, 2**60, 2**61 - 1, -(2**61), 2**64, "", "a", "ä", "日", "😀", b"a", (1, "a"), None]
    keys += [nan, frozenset({1}), 1.5, np.int64(7), 7, np.float64(1.5), type, "a" * 1000, "ä" * 1000, "\udc80"]
    for at, key in enumerate(keys):
        cache.put(key, at, size_bytes=1)
        plain[key] = at
    assert len(cache) == len(plain)
    for key in [*keys, "1", -3, (1,), float("nan"), 2**61]:
        assert cache.get(key, absent) == plain.get(key, absent), key
        assert (key in cache) == (key in plain)


def test_equal_texts_that_are_other_objects():
    cache = cache_of()
    cache.put("".join(["ab", "cd"]), 1)
    assert cache.get("".join(["abc", "d"])) == 1


@pytest.mark.parametrize(
    ("told", "error", "says"),
    [
        ({"cost_us": -1}, infcore.InvalidArgument, "cost_us is -1; allowed: a finite number >= 0"),
        ({"cost_us": float("nan")}, infcore.InvalidArgument, "cost_us is nan"),
        ({"cost_us": float("inf")}, infcore.InvalidArgument, "cost_us is inf"),
        ({"cost_us": "1"}, infcore.InvalidType, "cost_us is str"),
        ({"size_bytes": -1}, infcore.InvalidArgument, "size_bytes is -1"),
        ({"size_bytes": 2**63}, infcore.InvalidArgument, "size_bytes is 9223372036854775808"),
        ({"size_bytes": 1.5}, infcore.InvalidType, "size_bytes is float"),
        ({"ttl_s": -1}, infcore.InvalidArgument, "ttl_s is -1"),
        ({"ttl_s": float("nan")}, infcore.InvalidArgument, "ttl_s is nan"),
        ({"stale_s": -1}, infcore.InvalidArgument, "stale_s is -1"),
        ({"version": -1}, infcore.InvalidArgument, "version is -1"),
        ({"reuse": -0.5}, infcore.InvalidArgument, "reuse is -0.5"),
        ({"tags": "red"}, infcore.InvalidType, "tags is str; allowed: an iterable of str"),
        ({"tags": 5}, infcore.InvalidType, "tags is int; allowed: an iterable of str"),
        ({"tags": [1]}, infcore.InvalidType, "a tag is int; allowed: str"),
    ],
)
def test_bad_arguments_change_nothing(told, error, says):
    cache = cache_of()
    cache.put("a", 1, size_bytes=10)
    with pytest.raises(error) as said:
        cache.put("a", 2, **told)
    assert says in str(said.value)
    calls = []
    with pytest.raises(error):  # before anything is computed
        cache.get_or_compute("b", lambda: calls.append(1), **told)
    assert calls == []
    assert cache.get("a") == 1
    assert "b" not in cache


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"capacity_bytes": -1}, infcore.InvalidArgument, "capacity_bytes is -1"),
        ({"capacity_bytes": 2**63}, infcore.InvalidArgument, "capacity_bytes is 9223372036854775808"),
        ({"capacity_bytes": 1.0}, infcore.InvalidType, "capacity_bytes is float"),
        ({"policy": "best"}, infcore.UnknownName, "best"),
        ({"policy": None}, infcore.InvalidType, "policy is NoneType"),
        ({"shards": 3}, infcore.InvalidArgument, "shards is 3; allowed: a power of two"),
        ({"shards": 0}, infcore.InvalidArgument, "shards is 0"),
        ({"ttl_s": -1.0}, infcore.InvalidArgument, "ttl_s is -1.0"),
        ({"clock": 5}, infcore.InvalidType, "clock is int"),
    ],
)
def test_bad_options(options, error, says):
    with pytest.raises(error) as said:
        infcore.Cache(**{"capacity_bytes": 100, "policy": "lru"} | options)
    assert says in str(said.value)


@pytest.mark.parametrize("method", ["get", "peek", "stale", "delete", "pin", "unpin", "__contains__"])
def test_what_cannot_be_a_key(method):
    cache = cache_of()
    with pytest.raises(infcore.InvalidType, match="key is list, which has no hash"):
        getattr(cache, method)([])
    with pytest.raises(infcore.InvalidType, match="key is tuple"):
        cache.put(([],), 1)
    with pytest.raises(infcore.InvalidType, match="key is dict"):
        cache.get_or_compute({}, lambda: 1)
    assert len(cache) == 0


def test_a_capacity_of_nothing_keeps_nothing():
    cache = cache_of(0)
    assert not cache.put("a", 1, size_bytes=0)
    assert cache.get_or_compute("a", lambda: 2) == 2
    assert len(cache) == 0
    assert cache.stats().rejected == 2


def test_sizes_above_four_gigabytes():
    cache, large = cache_of(2**40), 5 * 2**30 + 7
    put_all(cache, "abc", size_bytes=large)
    assert cache.stats().bytes_used == 3 * large
    assert [told["size_bytes"] for _, _, told in cache.entries()] == [large] * 3
    assert cache.pin("a")
    put_all(cache, "ab", size_bytes=3)  # in their place, one of them pinned
    assert cache.stats().bytes_used == large + 6
    put_all(cache, "a", size_bytes=2**39)
    put_all(cache, "d", size_bytes=2**39)
    assert "a" in cache and cache.stats().bytes_used <= 2**40
    cache.clear()
    assert cache.stats().bytes_used == 0


def test_what_is_too_large_pushes_nothing_out():
    cache = cache_of(100)
    put_all(cache, range(10))
    assert not cache.put("large", 1, size_bytes=101)
    assert len(cache) == 10
    assert not cache.put(3, "larger than before", size_bytes=101)  # the value it had is not the key's any more
    assert 3 not in cache
    assert len(cache) == 9
    assert cache.put("just", 1, size_bytes=100)
    assert len(cache) == 1


def test_replacing_changes_what_it_weighs():
    cache = cache_of(100)
    put_all(cache, range(10))
    cache.put(0, "more", size_bytes=55)
    assert cache.stats().bytes_used <= 100
    assert cache.get(0) == "more"
    cache.put(0, "less", size_bytes=1)
    assert (cache.get(0), cache.stats().bytes_used) == ("less", 1 + 10 * (len(cache) - 1))


def test_costs_beyond_what_is_kept_of_them():
    cache = infcore.Cache(100, policy="gdsf")
    for key in range(30):
        cache.put(key, key, size_bytes=10, cost_us=1.7e308)
    assert np.isfinite(cache.stats().cost_missed_us)
    assert all(np.isfinite(told["cost_us"]) for *_, told in cache.entries())
    assert len(cache) == 10


def test_time_to_live(clock):
    cache = cache_of(1000, ttl_s=10.0, clock=clock)
    cache.put("cache's", 1)
    cache.put("own", 2, ttl_s=1.0)
    cache.put("long", 3, ttl_s=float("inf"))
    clock.advance(0.999999)
    assert cache.get("own") == 2
    clock.advance(0.000001)
    assert cache.get("own") is None
    assert "own" not in cache
    clock.advance(9.0)
    assert [cache.get(key) for key in ("cache's", "long")] == [None, 3]
    assert cache.stats().expired == 2
    assert len(cache) == 1


def test_the_expired_go_before_long_without_being_asked_for(clock):
    cache = cache_of(10**6, clock=clock)
    put_all(cache, range(100), ttl_s=1.0)
    clock.advance(2.0)
    assert len(cache) == 100  # nobody has met them yet
    put_all(cache, range(1000, 1060))
    assert cache.stats().expired == 100
    assert len(cache) == 60


def test_stale_values(clock):
    cache = cache_of(clock=clock)
    cache.put("a", 1, ttl_s=1.0, stale_s=2.0)
    clock.advance(1.0)
    assert (cache.get("a"), cache.peek("a"), cache.stale("a"), "a" in cache) == (None, None, 1, False)
    clock.advance(2.0)
    assert cache.stale("a") is None
    cache.put("b", 1, ttl_s=1.0, stale_s=2.0, tags=("red",))
    clock.advance(1.5)
    cache.invalidate_tag("red")
    assert cache.stale("b") is None


def test_versions():
    cache = cache_of()
    assert cache.put("a", "two", version=2)
    assert not cache.put("a", "one", version=1)
    assert not cache.put("a", "none")
    assert cache.put("a", "two again", version=2)
    assert cache.get("a") == "two again"
    cache.invalidate_older(3)
    assert cache.get("a") is None
    assert not cache.put("a", "two", version=2)
    assert cache.put("a", "three", version=3)
    cache.invalidate_older(1)  # a floor does not fall
    assert not cache.put("b", 1, version=2)


def test_an_older_version_may_follow_what_is_dead(clock):
    """Whether somebody met the dead one or not must not matter."""
    for is_met in (False, True):
        cache = cache_of(clock=clock)
        cache.put("a", "new", version=5, ttl_s=1.0)
        clock.advance(1.0)
        if is_met:
            assert cache.get("a") is None
        assert cache.put("a", "old", version=4)


def test_tags():
    cache = cache_of(1000)
    put_all(cache, range(5), tags=("red", "all", "red"))
    put_all(cache, range(5, 8), tags=iter(["blue", "all"]))
    assert cache.invalidate_tag("green") == 0
    assert cache.invalidate_tag("red") == 5
    assert [key for key in range(8) if key in cache] == [5, 6, 7]
    put_all(cache, [0], tags=("red",))
    assert cache.get(0) == "value of 0"
    cache.invalidate_older(7, tag="blue")
    assert 5 not in cache
    assert not cache.put(5, 1, tags=("blue",), version=6)
    assert cache.put(5, 1, tags=("blue",), version=7)
    for bad, says in ((3, "a tag is int"), (None, "a tag is NoneType"), (b"red", "a tag is bytes")):
        with pytest.raises(infcore.InvalidType, match=says):
            cache.invalidate_tag(bad)


def test_very_many_tags():
    cache = cache_of(10**9)
    for key in range(2000):
        cache.put(key, key, tags=[f"{key % 7}", f"own {key}", f"{key % 50} of fifty"])
    assert cache.put("all", 1, tags=[str(tag) for tag in range(5000)])
    assert cache.invalidate_tag("own 77") == 1
    assert cache.invalidate_tag("3") == sum(key % 7 == 3 for key in range(2000)) + 1
    assert sum(key in cache for key in range(2000)) == sum(key % 7 != 3 for key in range(2000)) - (77 % 7 != 3)


def test_pins():
    cache = cache_of(100)
    put_all(cache, range(10))
    assert cache.pin(0)
    assert cache.pin(0)
    assert not cache.pin("none")
    assert cache.unpin(0)
    cache.put(0, "new", size_bytes=10)  # what takes its place is pinned
    put_all(cache, range(100, 150))
    assert cache.get(0) == "new"
    assert cache.unpin(0)
    assert not cache.unpin(0)
    put_all(cache, range(200, 250))
    assert 0 not in cache


def test_where_all_is_pinned_nothing_is_admitted():
    cache = cache_of(100)
    put_all(cache, range(10))
    assert all(cache.pin(key) for key in range(10))
    assert not cache.put("a", 1, size_bytes=1)
    assert not cache.put(3, "larger", size_bytes=11)  # nor kept, where it grew
    assert [key for key in range(10) if key not in cache] == [3]
    cache.clear()
    assert len(cache) == 0


def test_pins_outlive_what_was_pinned(clock):
    cache = cache_of(100, clock=clock)
    cache.put("a", 1, size_bytes=10, ttl_s=1.0)
    cache.pin("a")
    clock.advance(1.0)
    put_all(cache, range(50))
    assert cache.get("a") is None
    cache.put("a", 2, size_bytes=10)
    put_all(cache, range(50, 100))
    assert cache.get("a") == 2
    assert cache.unpin("a")


def test_entries_tell_what_put_was_told(clock):
    cache = cache_of(10**4, clock=clock)
    cache.put("a", 1, size_bytes=10, cost_us=2.5, ttl_s=5.0, stale_s=2.0, tags=("x", "ä"), version=3, reuse=2.0)
    cache.put((1, 2), "b", size_bytes=7)
    clock.advance(1.0)
    told = {"size_bytes": 10, "cost_us": 2.5, "version": 3, "reuse": 2.0, "ttl_s": 4.0, "stale_s": 2.0}
    plain = {"size_bytes": 7, "cost_us": 1.0, "version": 0, "reuse": 1.0, "ttl_s": None, "stale_s": 0.0, "tags": ()}
    assert cache.entries() == [("a", 1, told | {"tags": ("x", "ä")}), ((1, 2), "b", plain)]


def test_shards_are_parts_of_the_capacity():
    cache = cache_of(16_000, shards=16)
    put_all(cache, [f"key {i}" for i in range(5000)])
    assert cache.stats().bytes_used <= 16_000
    assert len(cache) > 1400
    assert not cache.put("large", 1, size_bytes=1001)
    cache.invalidate_older(1)
    assert all(f"key {i}" not in cache for i in range(5000))
    cache.clear()
    assert len(cache) == 0


def test_many_entries():
    cache = cache_of(10**6)
    for key in range(300_000):
        cache.put(key, None, size_bytes=4)
    assert len(cache) == 250_000
    assert cache.get(49_999, absent) is absent
    assert all(cache.get(key, absent) is None for key in range(50_000, 300_000, 97))
    cache.clear()
    assert (len(cache), cache.stats().bytes_used) == (0, 0)


def test_statistics():
    cache = cache_of(100)
    put_all(cache, range(10), cost_us=5.0)
    for key in (0, 1, 11):
        cache.get(key)
    stats = cache.stats()
    assert (stats.requests, stats.hits, stats.misses) == (3, 2, 1)
    assert (stats.cost_requested_us, stats.cost_missed_us) == (60.0, 50.0)
    assert (stats.bytes_requested, stats.bytes_missed) == (120, 100)
    assert stats.hit_ratio == pytest.approx(2 / 3)
    assert infcore.cache.CacheStats().hit_ratio == 0.0


def test_it_is_not_copied_or_pickled():
    cache = cache_of()
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(infcore.InvalidType, match="Cache cannot be copied or pickled"):
            way(cache)


def test_made_twice_or_not_at_all():
    cache = cache_of()
    cache.put("a", 1)
    with pytest.raises(infcore.InvalidArgument, match="called twice"):
        cache.__init__(5)
    assert cache.get("a") == 1
    bare = infcore.Cache.__new__(infcore.Cache)
    for call in (lambda: bare.get("a"), lambda: bare.put("a", 1), lambda: bare.peek("a"), lambda: bare.pin("a")):
        with pytest.raises(infcore.InvalidType, match="__init__ was not called"):
            call()
    assert (len(bare), bare.entries(), bare.counters()) == (0, [], {})
    assert bare.now_s() >= 0.0


def test_a_subclass_may_have_its_own_arguments():
    class Named(infcore.Cache):
        def __init__(self, name):
            super().__init__(100, policy="lru")
            self.name = name

    cache = Named("a")
    cache.put(1, 2)
    assert (cache.get(1), cache.name) == (2, "a")


def test_the_collector_sees_through_it():
    class Value:
        pass

    cache, value = cache_of(), Value()
    value.cache = cache
    cache.put("a", value)
    cache.put(value, "a")
    gone = weakref.ref(value)
    del cache, value
    gc.collect()
    assert gone() is None


def test_values_are_let_go():
    cache = cache_of(100)
    key, value = "key of its own" * 3, object()
    before = sys.getrefcount(key), sys.getrefcount(value)
    for go in (cache.delete, lambda _: cache.clear(), lambda k: cache.put(k, 0), lambda _: put_all(cache, range(20))):
        cache.put(key, value, size_bytes=10)
        assert cache.get(key) is value
        go(key)
        cache.delete(key)
        assert (sys.getrefcount(key), sys.getrefcount(value)) == before


def test_what_values_weigh():
    assert estimated_bytes(np.zeros(1000)) == 8112
    assert estimated_bytes(b"x" * 1000) == sys.getsizeof(b"x" * 1000)
    assert estimated_bytes(memoryview(np.zeros(1000))) > 8000
    small = [1.5] * 10
    assert estimated_bytes(small) == sys.getsizeof(small) + 10 * sys.getsizeof(1.5)
    assert estimated_bytes({"a": np.zeros(1000)}) > 8000
    large = [bytes(100)] * 100_000
    assert estimated_bytes(large) == pytest.approx(100_000 * (8 + sys.getsizeof(bytes(100))), rel=0.01)
    itself = []
    itself.append(itself)
    assert estimated_bytes(itself) >= sys.getsizeof(itself)
    assert cache_of(10**6).put("a", itself)


def test_an_estimate_looks_at_few_items():
    looked = []

    class Weighed:
        def __sizeof__(self):
            looked.append(1)
            return 100

    value = [[[[Weighed()] * 1000] * 1000] * 1000] * 1000
    assert estimated_bytes(value) == pytest.approx(10**12 * 100, rel=0.9)
    assert len(looked) <= 4000


def test_a_put_of_ones_own_gets_what_was_computed():
    class Own(infcore.Cache):
        def put(self, key, value, **told):
            return super().put(key, [value], **told)

    cache = Own(1000)
    assert cache.get_or_compute("a", lambda: 1, cost_us=7.0) == 1
    assert cache.get("a") == [1]
