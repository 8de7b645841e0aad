"""Threads and event loops on one cache at once: values are never another key's, counts agree, and everything ends.

Also run under TSAN. Where it is a script it is the soak: python tests/concurrency/test_cache_stress.py SECONDS, with
memory that must not grow.
"""

import asyncio
import gc
import random
import resource
import sys
import threading
import time
from collections import Counter

import pytest

import infcore
from infcore.cache import policies

POLICIES = [name for name in policies() if name != "belady"]
CAPACITY = 20_000
N_THREADS = 4
TAGS = ["red", "green", "blue"]


class Value:
    """Says whose it is; its end comes back to the cache."""

    __slots__ = ("cache", "key", "version")

    def __init__(self, key, version=0, cache=None):
        self.key, self.version, self.cache = key, version, cache

    def __del__(self):
        if self.cache is not None:
            self.cache.get(self.key)


class Composed:
    """A key whose __eq__ and __hash__ are Python's own code, so that threads take turns in it."""

    __slots__ = ("number",)

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return self.number % 17  # few different ones

    def __eq__(self, other):
        return isinstance(other, Composed) and self.number == other.number


def number_of(key):
    return key.number if isinstance(key, Composed) else int(str(key).removeprefix("key "))


class Users:
    """What each thread does, as long as `goes_on` says; `errors` has what went wrong."""

    def __init__(self, cache, goes_on):
        self.cache, self.goes_on, self.errors, self.done = cache, goes_on, [], Counter()

    def run(self):
        workers = [self.calls] * N_THREADS + [self.loops] * 2
        threads = [threading.Thread(target=self.guarded, args=(work, at)) for at, work in enumerate(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def guarded(self, work, seed):
        try:
            work(random.Random(seed))
        except BaseException as error:
            self.errors.append(error)

    @staticmethod
    def key(draw):
        number = min(int(draw.paretovariate(0.7)), 2000)
        return draw.choice((number, f"key {number}", Composed(number)))

    def check(self, key, value):
        if value is not None and value.key != number_of(key):
            raise AssertionError(f"of {key} came the value of {value.key}")

    def put_arguments(self, draw):
        told = {"size_bytes": draw.randrange(1, 200), "cost_us": draw.random() * 100}
        if draw.random() < 0.2:
            told["tags"] = draw.sample(TAGS, 2)
        if draw.random() < 0.2:
            told |= {"ttl_s": draw.random() * 0.01, "stale_s": 0.001}
        return told

    def calls(self, draw):
        cache, done = self.cache, Counter()
        while self.goes_on():
            for _ in range(50):
                key, what = self.key(draw), draw.random()
                done["calls"] += 1
                if what < 0.5:
                    done["gets"] += 1
                    self.check(key, cache.get(key))
                elif what < 0.8:
                    cache.put(
                        key, Value(number_of(key), cache=cache if what < 0.55 else None), **self.put_arguments(draw)
                    )
                elif what < 0.9:
                    told = self.put_arguments(draw)
                    if draw.random() < 0.1:
                        with pytest.raises(ZeroDivisionError):
                            cache.get_or_compute(Composed(-1 - draw.randrange(3)), lambda: 1 / 0)
                    self.check(key, cache.get_or_compute(key, lambda key=key: Value(number_of(key)), **told))
                elif what < 0.93:
                    cache.delete(key)
                elif what < 0.96 and cache.pin(key):
                    cache.unpin(key)
                elif what < 0.97:
                    cache.invalidate_tag(draw.choice(TAGS))
                elif what < 0.971:
                    for found, value, _ in cache.entries():
                        self.check(found, value)
                elif what < 0.98:
                    others = [self.key(draw) for _ in range(3)]
                    told = self.put_arguments(draw) | {"instead_of": others}
                    cache.compute_ahead(key, lambda key=key: Value(number_of(key)), **told)
                else:
                    self.check(key, cache.stale(key))
            used = cache.counters()["bytes_used"]
            assert used <= CAPACITY, used
        self.done.update(done)

    def loops(self, draw):
        async def task():
            while self.goes_on():
                key = self.key(draw)

                async def compute(key=key):
                    await asyncio.sleep(0)
                    return Value(number_of(key))

                asked = asyncio.ensure_future(self.cache.aget_or_compute(key, compute, **self.put_arguments(draw)))
                if draw.random() < 0.2:
                    await asyncio.sleep(0)
                    asked.cancel()
                for value in await asyncio.gather(asked, return_exceptions=True):
                    if not isinstance(value, asyncio.CancelledError):
                        self.check(key, value)

        async def all_tasks():
            await asyncio.gather(*(task() for _ in range(3)))

        while self.goes_on():
            asyncio.run(all_tasks())


def stress(policy, seconds, shards=None):
    end_s = time.monotonic() + seconds
    cache = infcore.Cache(CAPACITY, policy=policy, shards=shards)
    users, threads = Users(cache, lambda: time.monotonic() < end_s), threading.enumerate()
    users.run()
    for refresher in set(threading.enumerate()) - set(threads):  # who asked was served stale and has gone on
        refresher.join(60.0)
    assert not users.errors, users.errors
    stats, counted = cache.stats(), cache.counters()
    there = cache.residents()  # dead or alive: what the cache says that they take is what they take
    assert (counted["n_entries"], counted["bytes_used"]) == (len(there), sum(size for _, _, size, *_ in there))
    assert sum(told["size_bytes"] for *_, told in cache.entries()) <= stats.bytes_used <= CAPACITY
    assert users.done["calls"] > 0
    assert stats.requests >= users.done["gets"]
    flights = cache._flights
    assert flights._current == flights._waits == flights._late == {}, (flights._current, flights._waits, flights._late)
    cache.clear()
    assert (len(cache), cache.counters()["bytes_used"]) == (0, 0)
    return users.done["calls"]


@pytest.mark.parametrize(("policy", "shards"), [(policy, None) for policy in POLICIES] + [("lru", 4)])
def test_threads_and_loops_on_one_cache(policy, shards):
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that threads take turns within a call's own Python code
    try:
        stress(policy, 0.15, shards)
    finally:
        sys.setswitchinterval(before_s)


def soak(seconds):
    """Rounds over the policies; what the process holds after the first must be all that it ever holds."""
    end_s, rounds, first_kib = time.monotonic() + seconds, 0, 0
    sys.setswitchinterval(1e-4)
    while time.monotonic() < end_s:
        n_calls = sum(stress(policy, min(5.0, seconds / 20), shards) for policy in POLICIES for shards in (None, 4))
        gc.collect()
        now_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        first_kib = first_kib or now_kib
        rounds += 1
        print(f"round {rounds}: {n_calls} calls, at most {now_kib / 1024:.1f} MiB", flush=True)
    assert now_kib <= first_kib * 1.1 + 4096, f"from {first_kib} to {now_kib} KiB"


if __name__ == "__main__":
    soak(float(sys.argv[1]))
