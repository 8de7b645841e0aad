"""Coherent caches for tests: of one process or as if of two, and a way to know that all changes have arrived."""

import contextlib

from infcore.cache import CoherentCache


def cache_at(url, **options):
    """A cache that is connected."""
    cache = CoherentCache(1 << 20, url, **{"policy": "lru", "staleness_s_max": 60.0, "timeout_s": 10.0} | options)
    assert cache.wait_until_connected(30.0)
    return cache


def elsewhere(url):
    """Another address of the same Redis: caches of the two have connections of their own, as two processes have."""
    return url.replace("127.0.0.1", "localhost")


@contextlib.contextmanager
def two(server, **options):
    """Two caches of a Redis that know nothing of each other, emptied."""
    server.client().flushall()
    with cache_at(server.url, **options) as a, cache_at(elsewhere(server.url), **options) as b:
        yield a, b


def settle(*caches):
    """What was changed until now has been told to all of them: replies come behind it on the same connection."""
    for cache in caches:
        for level in cache._far.levels:
            if level.link.is_up:
                level.link.send([(b"PING",)]).result(30.0)
