"""Staging memory: regions of one block that come back when their last view is gone; nothing is allocated once warm."""

import gc
import sys

import numpy as np
import pytest

import infcore
from infcore._core.arena import Arena
from infcore.kernels import staging


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


@pytest.mark.parametrize("n_bytes", [-1, (1 << 41) + 1, 1 << 64, 1.5, None, True])
def test_sizes_that_are_none(n_bytes):
    kind = infcore.InvalidArgument if type(n_bytes) is int else infcore.InvalidType
    with pytest.raises(kind, match=r"capacity_bytes is .*; allowed: an integer, 0 to 2199023255552"):
        infcore.Arena(capacity_bytes=n_bytes)
    with pytest.raises(kind, match=r"n_bytes is .*; allowed: an integer, 0 to 2199023255552"):
        infcore.Arena().reserve(n_bytes)


def test_views_leave_no_references_behind():
    region = infcore.Arena().reserve(64)
    counted = [None, region]
    before = [sys.getrefcount(one) for one in counted]
    for _ in range(1000):
        memoryview(region).release()
    assert all(sys.getrefcount(one) <= was + 100 for one, was in zip(counted, before, strict=True))


def test_a_region_of_nothing_is_there():
    assert Arena().reserve(0).array.shape == (0,)


def test_dlpack_shares_the_bytes():
    region = Arena().reserve(8)
    shared = np.from_dlpack(region)
    region.array[:] = 5
    assert shared.tolist() == [5] * 8
    assert region.__dlpack_device__() == (1, 0)


def rows(n, seed=5):
    random = np.random.default_rng(seed)
    return [random.random((int(length), 3), np.float32) for length in random.integers(0, 40, n)]


def test_staged_rows_are_what_the_kernels_read():
    arena = infcore.Arena()
    for n in (1, 2, 17, 100):
        given = rows(n)
        staged = arena.stage(given)
        memory = staged.region.array
        by_numpy = np.zeros(memory.nbytes, np.uint8)
        expected = staging.stage(given, by_numpy)
        assert staged.rows._replace(lengths=None) == expected._replace(lengths=None)
        assert np.array_equal(staged.rows.lengths, expected.lengths)
        assert memory.nbytes == staging.staged_bytes(expected.lengths, 12)
        # Between the rows is what was there before.
        tables = 12 * n + 4
        assert np.array_equal(memory[:tables], by_numpy[:tables])
        for at, row in zip(memory[: 8 * n].view(np.int64).tolist(), given, strict=True):
            assert np.array_equal(memory[at : at + row.nbytes].view(np.float32), row.reshape(-1))


def test_staging_allocates_no_block_once_warm():
    pytest.importorskip("torch")
    arena = infcore.Arena()
    arena.stage(rows(200))
    warm = arena.n_allocations
    for seed in range(200):
        staged = arena.stage(rows(90, seed))
        assert arena.upload(staged.region, "cpu") is not None
    assert arena.n_allocations == warm
    assert arena.n_under_way == 0


def test_lengths_and_what_cannot_be_staged():
    arena = infcore.Arena()
    assert arena.stage([np.arange(9), np.arange(4)], lengths=[2, 4]).rows.lengths.tolist() == [2, 4]
    with pytest.raises(infcore.InvalidArgument, match=r"lengths\[1\] is 5"):
        arena.stage([np.arange(9), np.arange(4)], lengths=[2, 5])
    with pytest.raises(infcore.InvalidArgument, match="at least one"):
        arena.stage([1.0, 2.0])
    with pytest.raises(infcore.InvalidArgument, match="rows is empty"):
        arena.stage([])


class Copy:
    """What both libraries call an event: a copy to a device that is under way until it has `landed`."""

    def __init__(self):
        self.landed = False
        self.waited_for = 0

    def query(self):
        return self.landed

    def synchronize(self):
        self.waited_for += 1
        self.landed = True


def copying_arena(monkeypatch):
    """An arena whose uploads stay under way, and their events. No GPU is needed: who keeps what, and until when."""
    copies = []

    def upload(memory, device, *, backend, stream, event=None):
        copies.append(Copy() if event is None else event)
        return memory.copy(), copies[-1]

    monkeypatch.setattr("infcore.kernels.transfer.upload", upload)
    return infcore.Arena(capacity_bytes=4096), copies


def test_a_region_is_nobody_elses_until_its_copy_is_made(monkeypatch):
    arena, copies = copying_arena(monkeypatch)
    first = arena.reserve(1000)
    at = first.array.ctypes.data
    arena.upload(first, "cuda")
    del first
    for _ in range(3):
        assert not at - 1000 < arena.reserve(1000).array.ctypes.data < at + 1000
    assert (arena.n_under_way, copies[0].waited_for) == (1, 0)
    copies[0].landed = True
    assert arena.n_under_way == 0
    assert arena.reserve(1000).array.ctypes.data == at


def test_an_event_of_the_callers_says_when_the_copy_is_made(monkeypatch):
    arena, _ = copying_arena(monkeypatch)
    event = Copy()
    arena.upload(arena.reserve(1000), "cuda", event=event)
    assert arena.n_under_way == 1
    event.landed = True
    assert arena.n_under_way == 0


def test_an_arena_that_goes_waits_for_its_copies(monkeypatch):
    arena, copies = copying_arena(monkeypatch)
    for _ in range(3):
        arena.upload(arena.reserve(1000), "cuda")
    copies[0].landed = True
    del arena
    gc.collect()
    assert [copy.landed for copy in copies] == [True] * 3


@pytest.mark.parametrize("region", [None, np.zeros(8, np.uint8), b"12345678"])
def test_uploads_of_what_is_no_region(region):
    with pytest.raises(infcore.InvalidType, match=r"region is .*; allowed: a Region"):
        infcore.Arena().upload(region, "cpu")


@pytest.mark.parametrize("device", ["cpu:foo", "cuda:", "cuda:x", "cuda:-1", "cudas", "", None, 0])
def test_uploads_to_what_is_no_device(device):
    arena = infcore.Arena()
    with pytest.raises(infcore.InvalidArgument, match=r"device is .*, allowed are 'cuda', 'cuda:N' and 'cpu'"):
        arena.upload(arena.reserve(8), device)


def test_uploads_to_a_gpu_that_is_not_there(monkeypatch):
    pytest.importorskip("torch")
    arena = infcore.Arena()
    monkeypatch.setattr("infcore.kernels.transfer.n_gpus", lambda backend: 2)
    with pytest.raises(
        infcore.InvalidArgument, match=r"'cuda:2', but .* finds 2 GPU; allowed is 'cpu' and 'cuda:0' to"
    ):
        arena.upload(arena.reserve(8), "cuda:2")


def test_cupy_has_no_arrays_on_the_cpu():
    pytest.importorskip("cupy")
    arena = infcore.Arena()
    with pytest.raises(infcore.InvalidArgument, match="device is 'cpu', but 'cupy'"):
        arena.upload(arena.reserve(8), "cpu", backend="cupy")


def test_uploads_name_what_is_not_there():
    pytest.importorskip("torch")
    arena = infcore.Arena()
    region = arena.reserve(64)
    with pytest.raises(infcore.InvalidArgument, match="device is 'tpu'"):
        arena.upload(region, "tpu")
    with pytest.raises(infcore.InvalidArgument, match="backend is 'jax'"):
        arena.upload(region, "cpu", backend="jax")


def test_torch_shares_a_regions_bytes():
    torch = pytest.importorskip("torch")
    arena = infcore.Arena()
    region = arena.reserve(64)
    here = arena.upload(region, "cpu", backend="triton")
    region.array[:] = 3
    assert here.sum().item() == 3 * 64
    assert torch.from_dlpack(region).data_ptr() == region.array.ctypes.data


def test_pinned_is_ordinary_memory_where_there_is_no_gpu():
    torch = pytest.importorskip("torch")
    arena = infcore.Arena(pinned=True)
    memory = arena.reserve(1000).array
    memory[:] = 1
    assert torch.from_numpy(memory).is_pinned() == torch.cuda.is_available()
    with pytest.raises(infcore.InvalidArgument, match="pinned"):
        infcore.Arena(pinned=True, memory=bytearray)
