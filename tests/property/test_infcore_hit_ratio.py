"""What infcore promises of its hit ratio, on small seeded workloads: frequency where nothing changes, recency else."""

import numpy as np
import pytest

from infcore.cache import replay

N_KEYS, CAPACITY, N = 20_000, 2_000, 200_000


def ranks(exponent: float = 1.0) -> np.ndarray:
    weights = 1.0 / np.arange(1, N_KEYS + 1) ** exponent
    return np.random.default_rng(1).choice(N_KEYS, N, p=weights / weights.sum())


def hit_ratio(keys: np.ndarray, policy: str, sizes: np.ndarray | None = None, capacity: int = CAPACITY) -> float:
    return replay(keys, sizes, capacity=capacity, policy=policy).hit_ratio


def test_counts_where_nothing_changes() -> None:
    keys = ranks()
    assert hit_ratio(keys, "infcore") > hit_ratio(keys, "lru") + 0.04


def test_not_below_lru_where_ranks_move() -> None:
    drifting = (ranks() + np.arange(N) // 20) % N_KEYS
    permuted = ranks()
    for begin in range(0, N, 20_000):
        permuted[begin : begin + 20_000] = np.random.default_rng(begin).permutation(N_KEYS)[
            permuted[begin : begin + 20_000]
        ]
    for keys in (drifting, permuted):
        assert hit_ratio(keys, "infcore") >= hit_ratio(keys, "lru") - 0.005


def test_loops_longer_than_the_cache() -> None:
    """LRU finds nothing of a loop that is longer than it; what is possible is capacity / length."""
    loop = np.arange(N) % (2 * CAPACITY)
    assert hit_ratio(loop, "lru") == 0.0
    assert hit_ratio(loop, "infcore") > 0.4


def test_a_scan_does_not_flush() -> None:
    keys = ranks()
    scan = np.arange(N) // 5_000 % 2 == 1
    keys[scan] = N_KEYS + np.flatnonzero(scan)
    assert hit_ratio(keys, "infcore") > hit_ratio(keys, "lru") + 0.02


def test_what_is_too_large_for_what_it_saves_is_not_admitted() -> None:
    """One key in ten takes half of the room: without it, nearly all others fit."""
    keys = np.arange(N) % 1_000 + 1
    keys[::10] = N_KEYS + np.arange(N // 10) % 7
    sizes = np.where(keys >= N_KEYS, 500, 1)
    assert hit_ratio(keys, "infcore", sizes, 1_000) > hit_ratio(keys, "lru", sizes, 1_000) + 0.2


def test_what_costs_more_stays() -> None:
    rng = np.random.default_rng(2)
    keys = rng.integers(0, N_KEYS, N)
    costs = np.where(keys % 10 == 0, 100.0, 1.0)
    stats = replay(keys, costs=costs, capacity=CAPACITY, policy="infcore")
    missed = stats.cost_missed_us / stats.cost_requested_us
    dear = 100.0 / (100.0 + 9.0)  # of what is asked for, by cost; all of it fits
    assert missed == pytest.approx(1.0 - dear, abs=0.15)
