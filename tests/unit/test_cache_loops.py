"""aget_or_compute: computations on event loops: cancelled, late, shared between loops, or closed under who waits."""

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from cache_rig import LONG_S, Slow, wait_for

import infcore
from infcore.cache import flight as flight_module


@pytest.fixture
def cache():
    return infcore.Cache(10**6, policy="lru", clock=infcore.ManualClock())


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as threads:
        yield threads


def test_one_computation_for_many_tasks(cache):
    calls = []

    async def compute():
        calls.append(1)
        await asyncio.sleep(0)
        return "value"

    async def run():
        return await asyncio.gather(*(cache.aget_or_compute("a", compute) for _ in range(10)))

    assert asyncio.run(run()) == ["value"] * 10
    assert calls == [1]


def test_cancelling_who_waits_stops_it_only_where_nobody_else_does(cache, pool):
    async def run():
        stopped, go, begun = [], asyncio.Event(), asyncio.Event()

        async def compute():
            begun.set()
            try:
                await go.wait()
            except asyncio.CancelledError:
                stopped.append(1)
                raise
            return "value"

        first, second = (asyncio.ensure_future(cache.aget_or_compute("a", compute)) for _ in range(2))
        await begun.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert not stopped
        thread = pool.submit(cache.get_or_compute, "a", lambda: 1 / 0)
        while len(cache._flights._waits) < 2:
            await asyncio.sleep(0)
        second.cancel()  # a thread waits still
        await asyncio.gather(second, return_exceptions=True)
        await asyncio.sleep(0)
        assert not stopped
        go.set()
        assert await asyncio.wrap_future(thread) == "value"
        go.clear()
        cache.delete("a")
        begun.clear()
        last = asyncio.ensure_future(cache.aget_or_compute("a", compute))
        await begun.wait()
        last.cancel()
        await asyncio.gather(last, return_exceptions=True)
        while not stopped:
            await asyncio.sleep(0)
        assert await cache.aget_or_compute("a", lambda: "anew") == "anew"

    asyncio.run(asyncio.wait_for(run(), LONG_S))


def test_a_task_that_is_cancelled_before_it_ran(cache):
    async def run():
        first = asyncio.ensure_future(cache.aget_or_compute("a", lambda: 1))
        second = asyncio.ensure_future(cache.aget_or_compute("a", lambda: 2))
        first.cancel()
        await asyncio.sleep(0)
        for flight in list(cache._flights._current.values()):
            flight.task.cancel()
        assert await second == 2
        assert first.cancelled()

    asyncio.run(asyncio.wait_for(run(), LONG_S))


def test_a_timeout_on_an_event_loop(cache):
    async def run():
        stopped = asyncio.Event()

        async def compute():
            try:
                await asyncio.sleep(LONG_S)
            finally:
                stopped.set()

        with pytest.raises(infcore.DeadlineExceeded, match=r"timeout_s is 0\.001"):
            await cache.aget_or_compute("a", compute, timeout_s=0.001)
        await stopped.wait()  # nobody else waited
        assert await cache.aget_or_compute("a", lambda: 1) == 1

    asyncio.run(asyncio.wait_for(run(), LONG_S))


def test_two_event_loops_and_a_thread_share_one_computation(cache, pool):
    begun, go = threading.Event(), threading.Event()
    calls = []

    async def compute():
        calls.append(1)
        begun.set()
        while not go.is_set():
            await asyncio.sleep(0.001)
        return "value"

    def loop():
        return asyncio.run(cache.aget_or_compute("a", compute))

    futures = [pool.submit(loop)]
    assert begun.wait(LONG_S)
    futures += [pool.submit(loop), pool.submit(cache.get_or_compute, "a", lambda: 1 / 0)]
    wait_for(cache, 3)
    go.set()
    assert [future.result(LONG_S) for future in futures] == ["value"] * 3
    assert calls == [1]


@pytest.mark.parametrize("other_is", ["a thread", "a loop"])
def test_a_loop_that_is_closed_under_its_computation(cache, pool, monkeypatch, other_is):
    """Without cancelling its tasks, so that nobody tells who waits elsewhere."""
    monkeypatch.setattr(flight_module, "LOOK_S", 0.01)
    begun = threading.Event()

    async def compute():
        begun.set()
        await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    leader = loop.create_task(cache.aget_or_compute("a", compute))

    async def a_while():
        while not begun.is_set():
            await asyncio.sleep(0)

    loop.run_until_complete(a_while())
    if other_is == "a thread":
        waiter = pool.submit(cache.get_or_compute, "a", lambda: "anew")
    else:
        waiter = pool.submit(lambda: asyncio.run(cache.aget_or_compute("a", lambda: "anew")))
    wait_for(cache, 2)
    leader._log_destroy_pending = False  # it is meant to be destroyed
    for flight in cache._flights._current.values():
        flight.task._log_destroy_pending = False
    loop.close()
    assert waiter.result(LONG_S) == "anew"
    del leader, loop
    gc.collect()


def test_a_closed_loop_is_noticed_by_who_comes_later(cache):
    loop = asyncio.new_event_loop()
    task = loop.create_task(cache.aget_or_compute("a", asyncio.Event().wait))
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    (flight,) = cache._flights._current.values()
    task._log_destroy_pending = flight.task._log_destroy_pending = False
    loop.close()
    assert cache.get_or_compute("a", lambda: "anew") == "anew"
    del task, flight, loop
    gc.collect()


def test_a_loop_that_ends_properly(cache, pool):
    """asyncio.run cancels what still runs: who waits on another thread computes."""
    begun = threading.Event()

    async def compute():
        begun.set()
        await asyncio.sleep(LONG_S)

    async def run():
        task = asyncio.ensure_future(cache.aget_or_compute("a", compute))
        while not begun.is_set():
            await asyncio.sleep(0)
        waiter = pool.submit(cache.get_or_compute, "a", lambda: "anew")
        while len(cache._flights._waits) < 2:
            await asyncio.sleep(0)
        return task, waiter

    _, waiter = asyncio.run(run())
    assert waiter.result(LONG_S) == "anew"


def test_a_computation_that_awaits_what_somebody_cancelled(cache):
    """It would find it cancelled each time: who waits is told, as of any error."""

    async def run():
        shared = asyncio.get_running_loop().create_future()
        shared.cancel()
        calls = []

        async def compute():
            calls.append(1)
            return await shared

        asked = [asyncio.ensure_future(cache.aget_or_compute("a", compute, error_ttl_s=9.0)) for _ in range(3)]
        said = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(error) for error in said] == [asyncio.CancelledError] * 3
        assert calls == [1]
        with pytest.raises(asyncio.CancelledError):
            await cache.acompute_ahead("a", compute)
        assert await cache.aget_or_compute("a", lambda: "anew") == "anew"

    asyncio.run(asyncio.wait_for(run(), LONG_S))


def test_a_computation_ahead_that_somebody_cancels(cache):
    async def run():
        ahead = asyncio.ensure_future(cache.acompute_ahead("a", asyncio.Event().wait))
        await asyncio.sleep(0)
        (flight,) = cache._flights._current.values()
        flight.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ahead
        assert await cache.acompute_ahead("a", lambda: 1)

    asyncio.run(asyncio.wait_for(run(), LONG_S))


def test_a_loop_that_waits_for_who_waits_for_it(cache, pool):
    """Not for the key that it computes itself, but for that of a thread which waits for that one."""

    async def run():
        go = asyncio.Event()
        computed = asyncio.ensure_future(cache.aget_or_compute("on the loop", go.wait))
        await asyncio.sleep(0)
        thread = pool.submit(
            cache.get_or_compute, "on a thread", lambda: cache.get_or_compute("on the loop", lambda: 1 / 0)
        )
        while len(cache._flights._waits) < 2:
            await asyncio.sleep(0)
        with pytest.raises(infcore.InvalidArgument, match="event loop that computes the key, or what that waits for"):
            cache.get_or_compute("on a thread", lambda: 1 / 0, timeout_s=LONG_S)
        waiter = asyncio.ensure_future(cache.aget_or_compute("on a thread", lambda: 1 / 0))  # the loop goes on
        await asyncio.sleep(0)
        go.set()
        assert await waiter is await computed is await asyncio.wrap_future(thread) is True

    asyncio.run(asyncio.wait_for(run(), LONG_S))


def test_a_thread_that_waits_holds_up_its_loop(cache, pool):
    """What that loop's tasks compute waits for it, whatever they await themselves."""
    loops = []

    def run():
        async def both():
            other = asyncio.ensure_future(cache.aget_or_compute("of a task", asyncio.Event().wait))
            await asyncio.sleep(0)
            try:
                return cache.get_or_compute("of a thread", lambda: 1 / 0)
            finally:
                other.cancel()

        return asyncio.run(both())

    def compute():
        loops.append(pool.submit(run))
        wait_for(cache, 2)
        return cache.get_or_compute("of a task", lambda: 1 / 0, timeout_s=LONG_S)

    with pytest.raises(infcore.InvalidArgument, match="asks for the key"):
        cache.get_or_compute("of a thread", compute)
    assert isinstance(loops[0].exception(LONG_S), infcore.InvalidArgument)


def test_computing_ahead_is_waiting(cache):
    async def inner():
        return await cache.aget_or_compute("a", lambda: 1)

    async def ahead():
        return await cache.acompute_ahead("b", inner)

    async def run():
        with pytest.raises(infcore.InvalidArgument, match="asks for the key"):
            await cache.aget_or_compute("a", ahead)
        assert not cache._flights._waits

    asyncio.run(asyncio.wait_for(run(), LONG_S))


def test_who_stops_waiting_leaves_nothing_behind(cache, pool):
    slow = Slow("value")
    leader = pool.submit(cache.get_or_compute, "a", slow)
    assert slow.begun.wait(LONG_S)
    (flight,) = cache._flights._current.values()

    async def run():
        for _ in range(20):
            waiter = asyncio.ensure_future(cache.aget_or_compute("a", lambda: 1 / 0))
            await asyncio.sleep(0)
            waiter.cancel()
            await asyncio.gather(waiter, return_exceptions=True)
        assert not flight._woken and not flight._future._done_callbacks
        waiter = asyncio.ensure_future(cache.aget_or_compute("a", lambda: 1 / 0))
        await asyncio.sleep(0)
        assert len(flight._woken) == 1
        slow.go.set()
        assert await waiter == "value"

    asyncio.run(asyncio.wait_for(run(), LONG_S))
    assert leader.result(LONG_S) == "value"


def test_a_refresh_that_fails_is_not_tried_again_at_once():
    clock = infcore.ManualClock()
    cache, told, calls = infcore.Cache(1000, clock=clock), {"ttl_s": 1.0, "stale_s": 99.0, "error_ttl_s": 9.0}, []
    cache.put("a", "old", ttl_s=1.0, stale_s=99.0)
    clock.advance(1.0)

    def fail():
        calls.append(1)
        raise ZeroDivisionError

    async def run():
        for _ in range(5):
            assert await cache.aget_or_compute("a", fail, **told) == "old"
            while cache._flights._current:
                await asyncio.sleep(0)
        assert calls == [1]
        clock.advance(9.0)
        assert await cache.aget_or_compute("a", lambda: "new", **told) == "old"
        while cache.get("a") != "new":
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(run(), LONG_S))
