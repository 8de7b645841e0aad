"""Staging memory: regions of one block that come back when their last view is gone, and no allocation once it is warm."""

import gc

import numpy as np
import pytest

import infcore
from infcore._core.arena import Arena


def test_no_allocation_after_the_first_batches():
    arena = Arena()
    random = np.random.default_rng(1)
    largest = arena.reserve(1 << 20)
    del largest
    warm = arena.n_allocations
    for n_bytes in random.integers(0, 1 << 20, 2000).tolist():
        region = arena.reserve(n_bytes)
        assert region.nbytes == n_bytes
        assert region.array.ctypes.data % 64 == 0
    assert arena.n_allocations == warm == 1


def test_two_batches_at_once_fit_and_do_not_overlap():
    arena = Arena()
    random = np.random.default_rng(2)
    before, value = None, 0
    for n_bytes in random.integers(1, 10_000, 500).tolist():
        now = arena.reserve(n_bytes).array
        now[:] = value = (value + 1) % 251
        if before is not None:
            assert np.all(before == before[0])
        assert np.all(now == value)
        before = now
    warm = arena.n_allocations
    for _ in range(500):
        now = arena.reserve(5_000).array
        assert now.ctypes.data != before.ctypes.data
        before = now
    assert arena.n_allocations == warm


def test_a_view_that_is_kept_keeps_its_bytes():
    arena = Arena(capacity_bytes=4096)
    kept = arena.reserve(1000).array[::7]
    kept[:] = 9
    for _ in range(50):
        arena.reserve(1000).array[:] = 1
    assert np.all(kept == 9)
    more = [arena.reserve(2000).array for _ in range(6)]
    for i, one in enumerate(more):
        one[:] = i
    assert np.all(kept == 9)
    assert [set(one.tolist()) for one in more] == [{i} for i in range(6)]


def test_regions_come_back_in_any_order_and_whatever_becomes_of_the_arena():
    arena = Arena(capacity_bytes=1 << 16)
    held = [arena.reserve(1000) for _ in range(40)]
    allocations = arena.n_allocations
    np.random.default_rng(3).shuffle(held)
    while held:
        held.pop()
    again = [arena.reserve(1000).array for _ in range(40)]
    assert arena.n_allocations == allocations
    del arena
    gc.collect()
    for i, one in enumerate(again):
        one[:] = i
    assert [set(one.tolist()) for one in again] == [{i} for i in range(40)]


def test_memory_of_ones_own():
    asked = []

    def memory(n_bytes):
        asked.append(n_bytes)
        return bytearray(n_bytes)

    arena = Arena(memory=memory)
    region = arena.reserve(100)
    assert asked == [384 + 64]
    assert arena.capacity_bytes == 384
    assert memoryview(region).nbytes == 100
    assert not memoryview(region).readonly


@pytest.mark.parametrize(
    ("memory", "error"),
    [
        (lambda n: bytes(n), "read-only"),
        (lambda n: bytearray(n - 1), "at least"),
        (lambda n: 3, "int"),
        (lambda n: np.zeros(2 * n, np.uint8)[::2], "contiguous"),
    ],
)
def test_memory_that_will_not_do(memory, error):
    with pytest.raises((TypeError, ValueError), match=error):
        Arena(memory=memory).reserve(10)


def test_bad_arguments():
    with pytest.raises(infcore.InvalidType, match="memory"):
        Arena(memory=3)
    with pytest.raises(infcore.InvalidArgument, match="capacity_bytes"):
        Arena(capacity_bytes=1 << 60)
    with pytest.raises(infcore.InvalidArgument, match="n_bytes"):
        Arena().reserve(1 << 60)
    with pytest.raises(OverflowError):
        Arena().reserve(-1)


def test_a_region_of_nothing_is_there():
    assert Arena().reserve(0).array.shape == (0,)


def test_dlpack_shares_the_bytes():
    region = Arena().reserve(8)
    shared = np.from_dlpack(region)
    region.array[:] = 5
    assert shared.tolist() == [5] * 8
    assert region.__dlpack_device__() == (1, 0)
