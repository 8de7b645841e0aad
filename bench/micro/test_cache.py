"""infcore.Cache from Python: a get that finds, get and put by Zipf's law, the same on two threads, puts, shared
computations; and the memory of an entry. bench/peers/caches.py sets them beside other caches. No row asserts a time;
-s prints them.

ns a request, the hit ratio and bytes an entry are in extra_info.
"""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import infcore
from infcore.cache import policies

N_KEYS, CAPACITY, SIZE_BYTES = 100_000, 10_000, 64
POLICIES = [name for name in policies() if name != "belady"]


def cache_of(policy):
    return infcore.Cache(CAPACITY * SIZE_BYTES, policy=policy)


def zipf(n, seed=7):
    """Keys by Zipf's law with exponent 1, which key is how popular by chance."""
    draw = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, N_KEYS + 1)
    ranks = np.searchsorted(np.cumsum(share) / share.sum(), draw.random(n))
    return draw.permutation(N_KEYS)[np.minimum(ranks, N_KEYS - 1)].tolist()


def as_kind(keys, kind):
    return keys if kind == "int" else [f"key number {key}" for key in keys]


def told(benchmark, n, **figures):
    """With --benchmark-disable there are no medians."""
    if benchmark.stats is not None:
        benchmark.extra_info.update({"ns": benchmark.stats["median"] / n * 1e9} | figures)
        figures = ", ".join(f"{value:.3g} {name}" for name, value in benchmark.extra_info.items())
        print(f"\n{benchmark.name}: {figures}")


def asked(cache, keys):
    get, put = cache.get, cache.put
    for key in keys:
        if get(key) is None:
            put(key, key, size_bytes=64, cost_us=3.0)


@pytest.mark.parametrize("kind", ["int", "str"])
@pytest.mark.parametrize("policy", POLICIES)
def test_get_hit(benchmark, policy, kind):
    cache, keys = cache_of(policy), as_kind(list(range(1000)), kind)
    asked(cache, keys)

    def run(get=cache.get):
        for key in keys:
            get(key)

    benchmark(run)
    assert cache.stats().misses == len(keys)
    told(benchmark, len(keys))


@pytest.mark.parametrize("kind", ["int", "str"])
@pytest.mark.parametrize("policy", POLICIES)
def test_zipf(benchmark, policy, kind, request):
    cache = cache_of(policy)
    keys = as_kind(zipf(5_000 if request.config.getoption("benchmark_disable") else 200_000), kind)
    asked(cache, keys)
    before = cache.stats()
    benchmark.pedantic(asked, args=(cache, keys), rounds=5)
    after = cache.stats()
    hit_ratio = (after.hits - before.hits) / (after.requests - before.requests)
    assert after.bytes_used <= CAPACITY * SIZE_BYTES
    assert hit_ratio > 0.5
    told(benchmark, len(keys), hit_ratio=hit_ratio)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_threads_share_the_work(benchmark, n_threads, request):
    cache, keys = cache_of("gdsf"), zipf(5_000 if request.config.getoption("benchmark_disable") else 200_000)

    def run():
        parts = [keys[at::n_threads] for at in range(n_threads)]
        threads = [threading.Thread(target=asked, args=(cache, part)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    assert cache.stats().requests % len(keys) == 0
    told(benchmark, len(keys))


@pytest.mark.parametrize("replaces", [True, False])
def test_put(benchmark, replaces):
    cache, n_put = cache_of("gdsf"), [0]

    def run(put=cache.put):
        first = 0 if replaces else n_put[0]
        n_put[0] += 1000
        for key in range(first, first + 1000):
            put(key, key, size_bytes=64, cost_us=3.0)

    benchmark(run)
    assert len(cache) == min(CAPACITY, 1000 if replaces else n_put[0])
    told(benchmark, 1000)


def test_get_or_compute_hit(benchmark):
    cache = cache_of("gdsf")
    asked(cache, range(1000))

    def run(get=cache.get_or_compute):
        for key in range(1000):
            get(key, None, size_bytes=64)

    benchmark(run)
    assert cache.stats().misses == 1000
    told(benchmark, 1000)


FILLED_TWICE = """
import os, sys
import infcore

policy, n = sys.argv[1], int(sys.argv[2])


def resident():
    with open("/proc/self/statm") as figures:
        return int(figures.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def filled(keys, capacity):
    cache = infcore.Cache(capacity * 64, policy=policy)
    for key in keys:
        cache.put(key, key, size_bytes=64, cost_us=3.0)
    return cache


keys = list(range(2 * n))
filled(range(100), 50)  # what is imported and made once
before = resident()
cache = filled(keys, n)
print((resident() - before) / n)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident size is read from Linux' /proc")
@pytest.mark.parametrize("policy", POLICIES)
def test_memory_an_entry(benchmark, policy, request):
    """Beyond key and value, after as many evictions as there are entries: what a process of its own has more."""
    smoke = request.config.getoption("benchmark_disable")
    if smoke and policy not in ("infcore", "gdsf"):
        pytest.skip("the largest two are enough to show that it runs")

    def run():
        n = 200_000 if smoke else 1_000_000
        done = subprocess.run(
            [sys.executable, "-c", FILLED_TWICE, policy, str(n)], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    n_bytes = benchmark.pedantic(run, rounds=1)
    assert 16 < n_bytes <= 96
    told(benchmark, 1, bytes_an_entry=n_bytes)
