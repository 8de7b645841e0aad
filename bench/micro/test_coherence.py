"""What coherence costs, beside a plain cache and beside redis-py: a hit here, one in Redis, and how soon a change made
by another process is known here. One redis-server on loopback.

Ratios and quantiles are in extra_info, and printed with -s. No row asserts a time.
"""

import socket
import statistics
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from coherent_rig import settle
from redis_rig import RedisServer

import infcore
from infcore.cache import CoherentCache

HITS = 20_000
SIZES = {"100 B": 100, "10 kB": 10_000}


@pytest.fixture(scope="module")
def server():
    with RedisServer() as server:
        yield server


def cache_at(server, policy="lru"):
    cache = CoherentCache(1 << 30, server.url, policy=policy, staleness_s_max=60.0, timeout_s=10.0)
    assert cache.wait_until_connected(30.0)
    return cache


def seconds(call, arguments):
    start = time.perf_counter()
    for argument in arguments:
        call(argument)
    return time.perf_counter() - start


def told(benchmark, **figures):
    benchmark.extra_info.update(figures)
    print(
        f"\n{benchmark.name}: " + ", ".join(f"{value:.3g} {name.replace('_', ' ')}" for name, value in figures.items())
    )


def alternating(benchmark, ours, theirs, arguments, reset=lambda: None):
    """The median of each side's seconds, and of their ratios, in turns of a few milliseconds."""
    ratios, mine, others = [], [], []

    def turns():
        for _ in range(31 if benchmark.enabled else 1):
            reset()
            mine.append(seconds(ours, arguments))
            others.append(seconds(theirs, arguments))
            ratios.append(mine[-1] / others[-1])

    benchmark.pedantic(turns, rounds=1, iterations=1)
    return (
        statistics.median(ratios),
        statistics.median(mine) / len(arguments),
        statistics.median(others) / len(arguments),
    )


@pytest.mark.parametrize("key", ["key", 5], ids=["str", "int"])
def test_coherent_local_hit(benchmark, server, key):
    plain = infcore.Cache(1 << 30, policy="lru")
    with cache_at(server) as cache:
        for each in (cache, plain):
            assert each.put(key, b"value")
        asked = cache.stats().far_requests
        arguments = [key] * (HITS if benchmark.enabled else 10)
        ratio, ours, theirs = alternating(benchmark, cache.get, plain.get, arguments)
        assert cache.get(key) == plain.get(key) == b"value" and cache.stats().far_requests == asked
    told(benchmark, of_a_plain_get=ratio, ns=ours * 1e9, ns_plain=theirs * 1e9)


@pytest.mark.parametrize("n_bytes", SIZES.values(), ids=SIZES)
def test_coherent_far_hit(benchmark, server, n_bytes):
    import redis

    bare = redis.Redis(port=server.port)
    names = [f"key-{i}" for i in range(500 if benchmark.enabled else 5)]
    with cache_at(server) as cache:
        for name in names:
            cache.put(name, bytes(n_bytes))
            bare.set(name, bytes(n_bytes))
        hits = cache.stats().far_hits
        ratio, ours, theirs = alternating(benchmark, cache.get, bare.get, names, cache._near.forget_all)
        assert (cache.stats().far_hits - hits) % len(names) == 0 and len(cache) == len(names)
    told(benchmark, of_a_bare_GET=ratio, us=ours * 1e6, us_bare=theirs * 1e6)


WRITER = """
import sys, time
import redis
client = redis.Redis(port=int(sys.argv[1]))
client.ping()
for line in sys.stdin:
    before_ns = time.monotonic_ns()  # the same clock in every process of a machine
    client.set("infcore:k:s:key", "theirs")
    print(before_ns, flush=True)
"""


class BareListener:
    """What the machine can do: a thread that waits for the same message, and notes the time."""

    def __init__(self, port):
        self.heard, self.heard_ns = threading.Event(), 0
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(b"HELLO 3\r\nCLIENT TRACKING ON BCAST PREFIX infcore:\r\n")
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self):
        while data := self._socket.recv(4096):
            if b"infcore:k:s:key" in data:
                self.heard_ns = time.monotonic_ns()
                self.heard.set()

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def test_coherent_invalidation(benchmark, server):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(server.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    gone, gone_ns, ours, bare = threading.Event(), [0], [], []

    def note():
        gone_ns[0] = time.monotonic_ns()
        gone.set()

    def kept(cache):
        """Kept here; what it does when it is let go is noted."""
        array = np.zeros(1)
        weakref.finalize(array, note)
        assert cache.put("key", array)

    listener = BareListener(server.port)
    with cache_at(server) as cache:

        def turns():
            for _ in range(2000 if benchmark.enabled else 3):
                kept(cache)
                settle(cache)
                assert "key" in cache
                gone.clear(), listener.heard.clear()
                writer.stdin.write("\n")
                writer.stdin.flush()
                before_ns = int(writer.stdout.readline())
                assert gone.wait(30.0) and listener.heard.wait(30.0)
                ours.append((gone_ns[0] - before_ns) / 1e3)
                bare.append((listener.heard_ns - before_ns) / 1e3)

        benchmark.pedantic(turns, rounds=1, iterations=1)
    listener.close()
    writer.communicate()
    for name, us in (("us", sorted(ours)), ("us_bare_listener", sorted(bare))):
        figures = {"p50": us[len(us) // 2], "p99": us[len(us) * 99 // 100], "max": us[-1]}
        told(benchmark, **{f"{name}_{quantile}": value for quantile, value in figures.items()})


def test_coherent_put(benchmark, server):
    """A put, with its version compared in Redis, beside a bare SET."""
    import redis

    bare = redis.Redis(port=server.port)
    names = [f"key-{i}" for i in range(300 if benchmark.enabled else 5)]
    with cache_at(server) as cache:
        ratio, ours, theirs = alternating(
            benchmark, lambda name: cache.put(name, b"value"), lambda name: bare.set(name, b"value"), names
        )
        assert cache.get(names[0]) == b"value"
    told(benchmark, of_a_bare_SET=ratio, us=ours * 1e6, us_bare=theirs * 1e6)
