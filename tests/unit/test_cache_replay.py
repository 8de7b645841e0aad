"""infcore.cache.replay: what its arguments mean, and what they may be."""

import signal
import time
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import infcore
from infcore.cache import policies, replay


def test_counts_bytes_and_costs() -> None:
    stats = replay(["a", "b", "a", "c", "a"], {"a": 2, "b": 3, "c": 4}, [1.0, 2.0, 4.0, 8.0, 16.0], 6, "lru")
    assert (stats.requests, stats.hits, stats.misses, stats.evictions, stats.rejected) == (5, 2, 3, 1, 0)
    assert (stats.bytes_used, stats.bytes_requested, stats.bytes_missed) == (6, 13, 9)
    assert (stats.cost_requested_us, stats.cost_missed_us) == (31.0, 11.0)
    assert stats.hit_ratio == 0.4 and stats.miss_ratio == 0.6
    assert stats.byte_miss_ratio == 9 / 13 and stats.cost_miss_ratio == 11 / 31
    assert replay([], capacity=5, policy="lru") == infcore.CacheStats()


@pytest.mark.parametrize("requests", [None, np.arange(12_000_000) // 4])
def test_a_signal_ends_a_replay(requests: np.ndarray | None) -> None:
    keys = np.arange(12_000_000) % 64

    def interrupt(*_: object) -> None:
        raise InterruptedError

    def run() -> float:
        begin_s = time.thread_time()
        with suppress(InterruptedError):
            replay(keys, capacity=100, policy="lru", requests=requests)
        return time.thread_time() - begin_s

    whole_s = run()
    before = signal.signal(signal.SIGVTALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, whole_s / 10)
        assert run() < 0.7 * whole_s
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize(
    "keys",
    [
        [5, -1, 5], np.array([2**64 - 1, 1, 2**64 - 1], np.uint64), ["x", "y", "x"], [b"x", b"y", b"x"],
        [("m", 1), ("m", 2), ("m", 1)], [2**80, "mixed", 2**80], np.array([1, 2, 1], np.int8), [None, (), None],
    ],
)  # fmt: skip
def test_keys_of_any_kind(keys: Any) -> None:
    assert replay(keys, capacity=2, policy="lru").hits == 1
    assert replay(keys, capacity=1, policy="lru").hits == 0


def test_time_to_live_and_sizes_that_change() -> None:
    stats = replay([1, 1, 1, 1], capacity=9, policy="lru", times_s=[0.0, 0.9, 1.0, 1.5], ttl_s=1.0)
    assert (stats.hits, stats.expired) == (2, 1)
    stats = replay([1, 1, 1], [4, 5, 5], capacity=9, policy="lru")
    assert (stats.hits, stats.bytes_used, stats.evictions) == (1, 5, 0)


def test_prompts_hit_from_their_start_only() -> None:
    """A, B, C; then D behind A: C's place goes, the leaf. The last prompt finds A and B, and C after a gap no more."""
    stats = replay([1, 2, 3, 1, 4, 1, 2, 3], capacity=3, policy="lru", requests=[0, 0, 0, 1, 1, 2, 2, 2])
    assert (stats.hits, stats.evictions, stats.rejected) == (3, 2, 0)
    whole = replay([1, 2, 3, 4], capacity=3, policy="gdsf", requests=[7, 7, 7, 7])
    assert (whole.rejected, whole.bytes_used) == (1, 3)
    partial = replay([1, 2, 1, 2], capacity=3, policy="lru", requests=[0, 0, 1, 1], admit=[True, False, True, False])
    assert (partial.hits, partial.rejected, partial.bytes_used) == (1, 2, 1)
    with pytest.raises(infcore.InvalidArgument, match=r"sizes\[1\] is 5; allowed: 4, as at its key's access before"):
        replay([1, 1], [4, 5], capacity=9, policy="lru", requests=[0, 1])


def test_clairvoyant_is_a_bound_where_all_are_equal() -> None:
    draw = np.random.default_rng(5)
    keys = draw.zipf(1.3, 5000) % 400
    for capacity in (3, 20, 100):
        least = replay(keys, capacity=capacity, policy="belady").misses
        assert all(least <= replay(keys, capacity=capacity, policy=policy).misses for policy in policies())


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"keys": 5}, TypeError, "keys is int; allowed: an array"),
        ({"keys": "abc"}, TypeError, "keys is str; allowed"),
        ({"keys": np.zeros((2, 2), np.int64)}, ValueError, "keys has 2 dimensions"),
        ({"keys": [1.5]}, TypeError, "keys is an array of float64; allowed: integers"),
        ({"keys": [1, []]}, TypeError, r"keys\[1\] is list; allowed: what hashes"),
        ({"sizes": [1]}, ValueError, "sizes has 1 entries; allowed: 2"),
        ({"sizes": [1, -2]}, ValueError, r"sizes\[1\] is -2; allowed: integers >= 0"),
        ({"sizes": [1.0, 2.0]}, TypeError, "sizes is an array of float64; allowed: integers"),
        ({"sizes": [1, 2**70]}, ValueError, "sizes has 1180591620717411303424; allowed: integers of 64 bits"),
        ({"sizes": [2**62, 2**62]}, ValueError, "bytes in all"),
        ({"sizes": {7: 1}}, ValueError, "sizes has no key 8"),
        ({"costs": [1.0, float("nan")]}, ValueError, r"costs\[1\] is nan; allowed: finite"),
        ({"costs": [1.0, -1.0]}, ValueError, r"costs\[1\] is -1.0; allowed: finite numbers >= 0"),
        ({"costs": ["x", "y"]}, TypeError, "costs is an array of <U1"),
        ({"costs": [1e308, 1e308]}, ValueError, "a finite sum"),
        ({"capacity": -1}, ValueError, "capacity is -1"),
        ({"capacity": 1.5}, TypeError, "capacity is float"),
        ({"policy": "best"}, LookupError, "policy is 'best'; known: "),
        ({"times_s": [1.0, 0.5]}, ValueError, r"times_s\[1\] is 0.5; allowed: none below"),
        ({"ttl_s": 1.0}, ValueError, "ttl_s is 1.0; allowed: None without times_s"),
        ({"ttl_s": 0.0, "times_s": [0, 0]}, ValueError, "ttl_s is 0.0; allowed: a finite number > 0"),
        ({"requests": [1.0, 1.0]}, TypeError, "requests is an array of float64"),
        ({"admit": [1, 0]}, TypeError, "admit is an array of int64; allowed: bool"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as raised:
        replay(**{"keys": [7, 8], "capacity": 4, "policy": "lru"} | arguments)
    assert isinstance(raised.value, infcore.InfcoreError)
