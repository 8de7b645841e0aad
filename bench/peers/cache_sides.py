"""What caches.py asks of each side: lookups of like keys, timed alike whoever answers.

A way makes (lookup, put) for a capacity in entries: lookup(key) is None where it is not there. Where `put` is None,
lookup is a function that computes what it lacks (functools). infcore and peers are imported where they run.
"""

import platform
import random
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import NamedTuple

import numpy as np

N_KEYS, CAPACITY, N_CHUNKS = 100_000, 10_000, 5
SIZE_BYTES = 64


class Told(NamedTuple):
    """A put that is told a size and a cost, for which others have no word."""

    put: Callable


Way = Callable[[int], tuple[Callable, Callable | Told | None]]


def infcore_way(policy: str) -> Way:
    def make(capacity: int):
        import infcore

        cache = infcore.Cache(capacity * SIZE_BYTES, policy=policy)
        return cache.get, Told(cache.put)

    return make


def cachebox_way(kind: str) -> Way:
    def make(capacity: int):
        import cachebox

        cache = getattr(cachebox, kind)(capacity)
        return cache.get, cache.__setitem__

    return make


def moka(capacity: int):
    import moka_py

    cache = moka_py.Moka(capacity)
    return cache.get, cache.set


def locked_cachetools(capacity: int):
    """It is not thread-safe: its documents ask for a lock."""
    import cachetools

    cache, lock = cachetools.LRUCache(capacity), threading.Lock()

    def get(key):
        with lock:
            return cache.get(key)

    def put(key, value):
        with lock:
            cache[key] = value

    return get, put


def theine(capacity: int):
    import theine as package

    cache = package.Cache(capacity)

    def get(key):
        value, found = cache.get(key)
        return value if found else None

    return get, cache.set


def by_functools(capacity: int):
    import functools

    return functools.lru_cache(capacity)(lambda key: key), None


def plain_dict(_capacity: int):
    """Without a bound: what no cache can beat."""
    cache = {}
    return cache.get, cache.__setitem__


OWN: dict[str, Way] = {f"infcore {name}": infcore_way(name) for name in ("infcore", "gdsf", "lru", "sieve")}
OWN |= {"functools.lru_cache": by_functools, "plain dict": plain_dict}
THEIRS: dict[str, tuple[Way, str]] = {
    "cachebox LRUCache": (cachebox_way("LRUCache"), "cachebox"),
    "cachebox LFUCache": (cachebox_way("LFUCache"), "cachebox"),
    "moka-py": (moka, "moka-py"),
    "cachetools LRUCache and a lock": (locked_cachetools, "cachetools"),
    "theine": (theine, "theine"),
}


def zipf(n: int, seed: int) -> list[int]:
    """Keys by Zipf's law with exponent 1, which key is how popular by chance."""
    draw = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, N_KEYS + 1)
    ranks = np.searchsorted(np.cumsum(share) / share.sum(), draw.random(n))
    return draw.permutation(N_KEYS)[np.minimum(ranks, N_KEYS - 1)].tolist()


def as_kind(keys: list[int], kind: str) -> list:
    """Each key an object of its own where it is a text, as keys are that came from outside."""
    return keys if kind == "int" else [f"key number {key}" for key in keys]


def asked(lookup: Callable, put: Callable | Told | None, keys: list) -> int:
    """How many of them were there; the others are put."""
    if put is None:
        before = lookup.cache_info().hits
        for key in keys:
            lookup(key)
        return lookup.cache_info().hits - before
    n_missed = 0
    if isinstance(put, Told):
        put = put.put
        for key in keys:
            if lookup(key) is None:
                put(key, key, size_bytes=64, cost_us=3.0)
                n_missed += 1
    else:
        for key in keys:
            if lookup(key) is None:
                put(key, key)
                n_missed += 1
    return len(keys) - n_missed


def looked_up(lookup: Callable, keys: list) -> None:
    for key in keys:
        lookup(key)


class Side:
    """Measures a way: task {"what": "hit" or "zipf", "kind": "int" or "str", "n": keys in a chunk, "threads": n}."""

    def __init__(self, way: Way):
        self.way = way

    def measure(self, task: dict) -> dict[str, float]:
        lookup, put = self.way(CAPACITY)
        if task["what"] == "hit":
            numbers = list(range(1000))
            asked(lookup, put, as_kind(numbers, task["kind"]))
            random.Random(1).shuffle(numbers)
            keys = as_kind(numbers, task["kind"])  # not the objects that were put
            chunks = [keys * max(1, task["n"] // len(keys))] * (N_CHUNKS + 1)
        else:
            drawn = as_kind(zipf(task["n"] * (N_CHUNKS + 1), 7), task["kind"])
            chunks = [drawn[at : at + task["n"]] for at in range(0, len(drawn), task["n"])]
            asked(lookup, put, chunks[0])
        run = (
            (lambda keys: looked_up(lookup, keys) or len(keys))
            if task["what"] == "hit"
            else (lambda keys: asked(lookup, put, keys))
        )
        n_hits, wall_ns, cpu_ns = 0, [], []
        for keys in chunks[1:]:
            parts = [keys[at :: task["threads"]] for at in range(task["threads"])]
            begin_ns, cpu_begin_ns = time.perf_counter_ns(), time.process_time_ns()
            n_hits += on_threads(run, parts)
            wall_ns.append((time.perf_counter_ns() - begin_ns) / len(keys))
            cpu_ns.append((time.process_time_ns() - cpu_begin_ns) / len(keys))
        hit_ratio = n_hits / sum(len(keys) for keys in chunks[1:])
        if task["what"] == "hit":
            assert all(lookup(key) is not None for key in chunks[0][:1000]), "it has lost keys that it has room for"
        return {
            "cpu_ns": min(cpu_ns),
            "wall_ns": min(wall_ns),
            "wall_ns_median": median(wall_ns),
            "hit_ratio": hit_ratio,
        }


def on_threads(run: Callable[[list], int], parts: list[list]) -> int:
    """Each part by a thread of its own."""
    if len(parts) == 1:
        return run(parts[0])
    found: list[int] = []
    threads = [threading.Thread(target=lambda part=part: found.append(run(part))) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(found)


def side(name: str) -> tuple[Callable[[dict], dict[str, float]], str]:
    """What measures the way of that name, and the release of whose way it is."""
    if name in OWN:
        release = version("infcore") if name.startswith("infcore") else platform.python_version()
        return Side(OWN[name]).measure, release
    way, package = THEIRS[name]
    return Side(way).measure, version(package)
