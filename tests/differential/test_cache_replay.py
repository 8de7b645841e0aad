"""The compiled replay against its plain model: every count, under every policy, plain and in prompts."""

import math
import random

import numpy as np
import pytest
from reference.cache_replay import ReplayedCache, Trace
from reference.eviction_models import model_of

from infcore import Cache
from infcore.cache import CacheStats, policies, replay


def drawn(draw: random.Random, n: int, prompts: bool) -> Trace:
    """Skewed keys; in prompts, paths of a tree, so that prefixes are shared. Sizes that change, but not in prompts."""
    keys: list[int] = []
    requests: list[int] = []
    n_requests = 0
    while len(keys) < n:
        n_requests += 1
        if not prompts:
            keys.append(draw.randrange(draw.choice([4, 30, 120])))
            continue
        key = draw.randrange(1, 4)
        for _ in range(draw.randint(1, 7)):
            keys.append(key)
            requests.append(-n_requests)
            key = 4 * key + draw.choice([0, 0, 0, 1, 2])
    sizes_of = {key: draw.randint(0, 1000) for key in keys}
    sizes = [sizes_of[key] if prompts or draw.random() < 0.95 else draw.randint(0, 1000) for key in keys]
    costs = [10.0 ** draw.uniform(0.0, 6.0) for _ in keys]
    times_s = sorted(draw.uniform(0.0, 100.0) for _ in keys)
    return Trace(keys, sizes, costs, times_s, [draw.random() < 0.95 for _ in keys], requests if prompts else None)


def checked(trace: Trace, capacity: int, policy: str, ttl_s: float | None = None) -> CacheStats:
    model = ReplayedCache(capacity, model_of(policy), math.inf if ttl_s is None else ttl_s).run(trace)
    requests = None if trace.requests is None else np.array(trace.requests)
    stats = replay(
        trace.keys, trace.sizes, trace.costs, capacity, policy, trace.times_s, requests, admit=trace.admit, ttl_s=ttl_s
    )
    assert {name: getattr(stats, name) for name in model} == pytest.approx(model, rel=1e-12)
    assert stats.bytes_used <= capacity
    assert stats.hits + stats.misses == stats.requests == len(trace.keys)
    return stats


@pytest.mark.parametrize("policy", policies())
def test_counts_as_the_model(policy: str) -> None:
    n_met = {"hits": 0, "evictions": 0, "rejected": 0, "expired": 0}
    for seed in range(8):
        draw = random.Random(seed)
        trace = drawn(draw, 250, prompts=seed % 2 == 1)
        ttl_s = draw.choice([None, 30.0]) if trace.requests is None else None
        stats = checked(trace, draw.choice([0, 3000, 9000, 20000]) if seed > 1 else 8000, policy, ttl_s)
        n_met = {name: n + getattr(stats, name) for name, n in n_met.items()}
    assert min(n_met.values()) > 0, n_met


@pytest.mark.parametrize("policy", [name for name in policies() if name != "belady"])
def test_a_cache_decides_as_its_replay(policy: str) -> None:
    """Though it tells its policy of hits only when something is put."""
    draw = random.Random(3)
    keys = [min(int(draw.paretovariate(0.8)), 5000) for _ in range(6000)]
    cache, n_hits = Cache(300, policy=policy), 0
    for key in keys:
        if cache.get(key) is None:
            cache.put(key, key, size_bytes=1)
        else:
            n_hits += 1
    assert n_hits == replay(keys, capacity=300, policy=policy).hits


def test_more_entries_than_at_first() -> None:
    """The table grows past its first 1,024 places, and ids stay what they were: against counts known beforehand."""
    keys = np.concatenate([np.arange(5000), np.arange(5000), np.arange(4000, 9000)])
    for policy in ("lru", "sieve", "s3_fifo"):
        stats = replay(keys, capacity=5000, policy=policy)
        assert (stats.hits, stats.evictions, stats.bytes_used) == (6000, 4000, 5000)
    twice = np.concatenate([np.arange(20_000), np.arange(20_000)])
    for policy in policies():
        assert replay(twice, capacity=20_000, policy=policy).hits == 20_000
