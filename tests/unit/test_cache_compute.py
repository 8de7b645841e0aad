"""get_or_compute and aget_or_compute: one computation for many waiters, on threads and event loops.

No test waits for time: threads and loops meet at events, and who is said to wait is seen to wait.
"""

import asyncio
import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from cache_rig import LONG_S, Slow, until, wait_for

import infcore
from infcore.cache.flight import Flight
from infcore.cache.flights import Flights


@pytest.fixture
def clock():
    return infcore.ManualClock()


@pytest.fixture
def cache(clock):
    return infcore.Cache(10**6, policy="lru", clock=clock)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as threads:
        yield threads


def test_what_is_there_is_not_computed(cache):
    assert cache.get_or_compute("a", lambda: None) is None
    assert cache.get_or_compute("a", lambda: 1 / 0) is None
    assert asyncio.run(cache.aget_or_compute("a", lambda: 1 / 0)) is None


def test_one_computation_for_many_threads(cache, pool):
    slow = Slow("value")
    futures = [pool.submit(cache.get_or_compute, "a", slow, size_bytes=3, cost_us=7.0) for _ in range(8)]
    wait_for(cache, 7)
    slow.go.set()
    assert [future.result(LONG_S) for future in futures] == ["value"] * 8
    assert slow.n_calls == 1
    assert [told["size_bytes"] for *_, told in cache.entries()] == [3]
    assert cache._flights._current == cache._flights._waits == {}


def test_errors_are_shared_once(cache, pool):
    slow = Slow(error=ZeroDivisionError("no"))
    futures = [pool.submit(cache.get_or_compute, "a", slow) for _ in range(4)]
    wait_for(cache, 3)
    slow.go.set()
    assert [future.exception(LONG_S) for future in futures] == [slow.error] * 4
    assert cache.get_or_compute("a", lambda: 5) == 5


def test_errors_that_are_remembered(cache, clock):
    def fail():
        raise ZeroDivisionError

    for key in ("a", "b"):
        with pytest.raises(ZeroDivisionError):
            cache.get_or_compute(key, fail, error_ttl_s=2.0, tags=("red",) if key == "b" else ())
    clock.advance(1.0)
    with pytest.raises(ZeroDivisionError) as first:
        cache.get_or_compute("a", lambda: 1)
    length = len(first.traceback)
    for _ in range(20):  # it does not get longer each time
        with pytest.raises(ZeroDivisionError) as again:
            cache.get_or_compute("a", lambda: 1)
    assert len(again.traceback) == length
    with pytest.raises(ZeroDivisionError):
        asyncio.run(cache.aget_or_compute("a", lambda: 1))
    cache.delete("other")
    with pytest.raises(ZeroDivisionError):
        cache.get_or_compute("b", lambda: 2)
    cache.invalidate_tag("red")
    assert cache.get_or_compute("b", lambda: 2) == 2
    clock.advance(1.0)
    assert cache.get_or_compute("a", lambda: 3) == 3


def test_a_remembered_error_is_forgotten_with_its_key(cache):
    for forget in (lambda: cache.delete("a"), cache.clear, lambda: cache.invalidate_older(1)):
        with pytest.raises(ZeroDivisionError):
            cache.get_or_compute("a", lambda: 1 / 0, error_ttl_s=100.0)
        forget()
        assert cache.get_or_compute("a", lambda: 1, version=1) == 1
        cache.delete("a")


def test_a_remembered_error_says_where_it_came_from(cache):
    """Each time, whoever holds the one before: that one stays as it was."""

    def fail():
        raise ZeroDivisionError("no")

    class Uncopied(ZeroDivisionError):
        def __init__(self, one, *, two):
            super().__init__(one)

    def fail_uncopied():
        raise Uncopied("no", two=2) from ValueError("why")

    for compute, is_copied in ((fail, True), (fail_uncopied, False)):
        said = []
        for _ in range(3):
            with pytest.raises(ZeroDivisionError, match="no") as raised:
                cache.get_or_compute(compute, compute, error_ttl_s=9.0)
            frames = raised.tb
            said.append((raised.value, frames, [frame.name for frame in raised.traceback]))
        assert all(names[-1] == compute.__name__ for *_, names in said)
        assert said[1][2] == said[2][2]
        for error, frames, _ in said:
            assert error.__traceback__ is frames or not is_copied
            assert (error.__cause__ is None) == is_copied


def test_what_a_forgotten_error_held_may_use_the_cache(cache):
    """On another thread, that it waits for: no lock is held when it goes."""

    class Held(Exception):
        def __del__(self):
            thread = threading.Thread(target=lambda: said.append(cache.get_or_compute("b", lambda: 1)), daemon=True)
            thread.start()
            thread.join(LONG_S)

    def remember(key, error):
        cache._flights.remember(Flight(key, {}, owner=None, loop=None), error, 9.0)

    for forget in (
        lambda: cache.delete("a"),
        cache.clear,
        lambda: remember("a", ValueError()),
        lambda: [remember(at, ValueError()) for at in range(1024)],
        lambda: cache._flights.known_error("a", 9.0),
    ):
        said = []
        remember("a", Held())
        forget()
        assert said == [1]


def test_errors_that_are_remembered_are_bounded(cache):
    for key in range(1500):
        with pytest.raises(ZeroDivisionError):
            cache.get_or_compute(key, lambda: 1 / 0, error_ttl_s=100.0)
    assert len(cache._flights._errors) == 1024


@pytest.mark.parametrize("name", ["timeout_s", "error_ttl_s"])
def test_bad_times(cache, name):
    for bad, error in (
        (-1, infcore.InvalidArgument),
        (float("nan"), infcore.InvalidArgument),
        ("1", infcore.InvalidType),
    ):
        with pytest.raises(error, match=f"{name} is"):
            cache.get_or_compute("a", lambda: 1, **{name: bad})
        with pytest.raises(error, match=f"{name} is"):
            asyncio.run(cache.aget_or_compute("a", lambda: 1, **{name: bad}))
    with pytest.raises(TypeError, match="sice"):
        cache.get_or_compute("a", lambda: 1 / 0, sice=1)


def test_a_time_longer_than_the_system_can_wait(cache, pool):
    slow = Slow("value")
    futures = [pool.submit(cache.get_or_compute, "a", slow)]
    assert slow.begun.wait(LONG_S)
    futures.append(pool.submit(cache.get_or_compute, "a", slow, timeout_s=1e300))
    futures.append(pool.submit(lambda: asyncio.run(cache.aget_or_compute("a", slow, timeout_s=1e300))))
    wait_for(cache, 2)
    slow.go.set()
    assert [future.result(LONG_S) for future in futures] == ["value"] * 3


def test_what_never_returns_is_computed_anew(cache, pool):
    stuck = Slow("of old")
    leader = pool.submit(cache.get_or_compute, "a", stuck)
    assert stuck.begun.wait(LONG_S)
    with pytest.raises(infcore.DeadlineExceeded, match=r"timeout_s is 0\.001"):
        cache.get_or_compute("a", lambda: 1 / 0, timeout_s=0.001)
    assert cache.get_or_compute("a", lambda: "anew") == "anew"
    stuck.go.set()
    assert leader.result(LONG_S) == "of old"
    assert cache.get("a") == "anew"  # what began later knows more
    assert cache._flights._late == {}


def test_what_comes_after_a_timeout_is_kept(cache, pool):
    """Or values that take longer than their readers have time would never get in."""
    slow = Slow("late")
    leader = pool.submit(cache.get_or_compute, "a", slow)
    assert slow.begun.wait(LONG_S)
    with pytest.raises(infcore.DeadlineExceeded):
        cache.get_or_compute("a", lambda: 1 / 0, timeout_s=0.0)
    slow.go.set()
    assert leader.result(LONG_S) == "late"
    assert cache.get("a") == "late"


def test_a_timeout_of_the_computation_itself(cache, pool):
    slow = Slow(error=TimeoutError("its own"))
    futures = [pool.submit(cache.get_or_compute, "a", slow, timeout_s=LONG_S) for _ in range(2)]
    wait_for(cache, 1)
    slow.go.set()
    assert [future.exception(LONG_S) for future in futures] == [slow.error] * 2


@pytest.mark.parametrize("timed_out", [False, True])
@pytest.mark.parametrize(("version", "stays"), [(1, True), (2, True), (0, False)])
def test_what_was_put_meanwhile_is_the_newer(cache, pool, timed_out, version, stays):
    """Unless its version says that it is not."""
    slow = Slow("computed")
    leader = pool.submit(cache.get_or_compute, "a", slow, version=1)
    assert slow.begun.wait(LONG_S)
    if timed_out:
        with pytest.raises(infcore.DeadlineExceeded):
            cache.get_or_compute("a", lambda: 1 / 0, timeout_s=0.0)
    cache.put("a", None, version=version)
    slow.go.set()
    assert leader.result(LONG_S) == "computed"
    assert cache.get("a", "absent") == (None if stays else "computed")


def test_what_began_earlier_and_ends_first_is_replaced(cache, pool):
    slows = [Slow(value) for value in ("first", "second", "third")]
    leaders = []
    for slow in slows:
        leaders.append(pool.submit(cache.get_or_compute, "a", slow))
        assert slow.begun.wait(LONG_S)
        with pytest.raises(infcore.DeadlineExceeded):
            cache.get_or_compute("a", lambda: 1 / 0, timeout_s=0.0)
    for slow, leader in zip(slows, leaders, strict=True):
        slow.go.set()
        assert leader.result(LONG_S) == slow.value == cache.get("a")


@pytest.mark.parametrize("timed_out", [False, True])
@pytest.mark.parametrize(
    "forget",
    [
        lambda cache: cache.delete("a"),
        lambda cache: cache.clear(),
        lambda cache: cache.invalidate_tag("red"),
        lambda cache: cache.invalidate_older(2),
        lambda cache: cache.invalidate_older(2, tag="red"),
    ],
)
def test_what_was_outdated_meanwhile_is_not_kept(cache, pool, forget, timed_out):
    slow = Slow("outdated")
    leader = pool.submit(cache.get_or_compute, "a", slow, tags=["red"], version=1)
    assert slow.begun.wait(LONG_S)
    if timed_out:
        with pytest.raises(infcore.DeadlineExceeded):
            cache.get_or_compute("a", lambda: 1 / 0, timeout_s=0.0)
    forget(cache)
    # Who asks after that must not get what was begun before it.
    assert cache.get_or_compute("a", lambda: "new", tags=["red"], version=2) == "new"
    slow.go.set()
    assert leader.result(LONG_S) == "outdated"
    assert cache.get("a") == "new"


def test_what_others_forget_does_not_concern_it(cache, pool):
    slow = Slow("kept")
    leader = pool.submit(cache.get_or_compute, "a", slow, tags=["red"], version=3)
    assert slow.begun.wait(LONG_S)
    cache.delete("b")
    cache.invalidate_tag("blue")
    cache.invalidate_older(3)
    cache.invalidate_older(9, tag="blue")
    slow.go.set()
    assert leader.result(LONG_S) == "kept"
    assert cache.get("a") == "kept"


def test_a_thread_that_is_stopped_lets_others_try(cache, pool):
    class Stopped(BaseException):
        pass

    slow = Slow(error=Stopped())
    leader = pool.submit(cache.get_or_compute, "a", slow)
    assert slow.begun.wait(LONG_S)
    waiter = pool.submit(cache.get_or_compute, "a", lambda: "again")
    wait_for(cache, 1)
    slow.go.set()
    assert isinstance(leader.exception(LONG_S), Stopped)
    assert waiter.result(LONG_S) == "again"
    with pytest.raises(KeyboardInterrupt):
        cache.get_or_compute("b", _interrupt)
    assert cache.get_or_compute("b", lambda: 1) == 1


def _interrupt():
    raise KeyboardInterrupt


def test_interrupted_before_it_began(cache, monkeypatch):
    """Between becoming the one who computes and computing."""
    monkeypatch.setattr(infcore.Cache, "_compute", lambda *_: _interrupt())
    with pytest.raises(KeyboardInterrupt):
        cache.get_or_compute("a", lambda: 1)
    monkeypatch.undo()
    assert cache.get_or_compute("a", lambda: 1) == 1


def test_computations_that_wait_for_each_other(cache, pool):
    with pytest.raises(infcore.InvalidArgument, match="asks for the key that it computes"):
        cache.get_or_compute("a", lambda: cache.get_or_compute("a", lambda: 1))
    with pytest.raises(infcore.InvalidArgument, match="asks for the key that it computes"):
        cache.get_or_compute("a", lambda: cache.get_or_compute("b", lambda: cache.get_or_compute("a", lambda: 1)))
    met = threading.Barrier(2)

    def both(mine, others):
        def compute():
            met.wait(LONG_S)
            return cache.get_or_compute(others, lambda: 1)

        return cache.get_or_compute(mine, compute)

    futures = [pool.submit(both, "a", "b"), pool.submit(both, "b", "a")]
    said = [future.exception(LONG_S) for future in futures]
    assert any(isinstance(error, infcore.InvalidArgument) for error in said)
    assert cache.get_or_compute("c", lambda: cache.get_or_compute("d", lambda: 4)) == 4


def test_tasks_that_wait_for_each_other(cache):
    async def asks(key, others):
        async def compute():
            await asyncio.sleep(0)
            return await cache.aget_or_compute(others, lambda: asks(others, key))

        return await cache.aget_or_compute(key, compute)

    with pytest.raises(infcore.InvalidArgument, match="asks for the key"):
        asyncio.run(asks("a", "a"))
    with pytest.raises(infcore.InvalidArgument, match="asks for the key"):
        asyncio.run(asks("a", "b"))
    with pytest.raises(infcore.InvalidArgument, match="asks for the key"):
        cache.get_or_compute("a", lambda: asyncio.run(cache.aget_or_compute("a", lambda: 1)))

    async def blocks_its_loop():
        async def compute():
            await asyncio.sleep(LONG_S)

        task = asyncio.ensure_future(cache.aget_or_compute("slow", compute))
        await asyncio.sleep(0)
        try:
            cache.get_or_compute("slow", lambda: 1)
        finally:
            task.cancel()

    with pytest.raises(infcore.InvalidArgument, match="aget_or_compute"):
        asyncio.run(blocks_its_loop())


def test_who_is_about_to_go_on_holds_nobody_up():
    """One has its answer and has not left yet; who gave it may wait for that one."""
    flights = Flights()
    first, second = (Flight(key, {}, owner=owner, loop=None) for key, owner in (("a", 1), ("b", 2)))
    assert flights.join(first, 1) is first and flights.join(second, 2) is second
    assert flights.join(Flight("a", {}, owner=2, loop=None), 2) is first
    with pytest.raises(infcore.InvalidArgument, match="asks for the key"):
        flights.join(Flight("b", {}, owner=1, loop=None), 1)
    flights.end(first)
    first.succeed("value")
    assert flights.join(Flight("b", {}, owner=1, loop=None), 1) is second


def test_an_awaitable_where_nobody_awaits(cache):
    async def compute():
        return 1

    with pytest.raises(infcore.InvalidType, match="aget_or_compute awaits"):
        cache.get_or_compute("a", compute)
    assert asyncio.run(cache.aget_or_compute("a", compute)) == 1


def test_stale_values_are_served_while_one_thread_makes_new_ones(cache, clock, pool):
    told = {"ttl_s": 1.0, "stale_s": 5.0}
    cache.get_or_compute("a", lambda: "first", **told)
    clock.advance(1.0)
    slow = Slow("second")
    assert [cache.get_or_compute("a", slow, **told) for _ in range(5)] == ["first"] * 5
    assert slow.begun.wait(LONG_S)
    slow.go.set()
    until(lambda: cache.get("a") == "second")
    assert slow.n_calls == 1
    clock.advance(6.0)  # nothing stale beyond the bound
    assert cache.get_or_compute("a", lambda: "third", **told) == "third"


def test_a_refresh_that_fails(cache, clock):
    told = {"ttl_s": 1.0, "stale_s": 5.0, "error_ttl_s": 2.0}
    cache.get_or_compute("a", lambda: "first", **told)
    clock.advance(1.0)
    assert cache.get_or_compute("a", lambda: 1 / 0, **told) == "first"
    until(lambda: cache._flights.has_errors and not cache._flights._current)
    assert cache.get_or_compute("a", lambda: "not asked", **told) == "first"  # the error is known
    assert not cache._flights._current
    clock.advance(2.0)
    assert cache.get_or_compute("a", lambda: "second", **told) == "first"
    until(lambda: cache.get("a") == "second")


def test_a_refresh_without_a_thread_to_be_had(cache, clock, monkeypatch):
    told = {"ttl_s": 1.0, "stale_s": 5.0}
    cache.get_or_compute("a", lambda: "first", **told)
    clock.advance(1.0)

    def no_thread(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        assert cache.get_or_compute("a", lambda: "second", **told) == "first"
    assert not cache._flights._current
    clock.advance(6.0)
    assert cache.get_or_compute("a", lambda: "third", **told) == "third"


def test_a_refresh_on_an_event_loop(cache, clock):
    told = {"ttl_s": 1.0, "stale_s": 5.0}

    async def run():
        await cache.aget_or_compute("a", lambda: "first", **told)
        clock.advance(1.0)
        go = asyncio.Event()

        async def compute():
            await go.wait()
            return "second"

        assert await cache.aget_or_compute("a", compute, **told) == "first"
        waiter = asyncio.ensure_future(cache.aget_or_compute("a", compute))  # says nothing of stale_s: it waits
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        go.set()  # the refresh goes on without who waited for it
        while cache.get("a") != "second":
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(run(), LONG_S))


def test_nothing_is_left_of_a_computation(cache):
    class Value:
        pass

    class Failed(Exception):
        pass

    value, error = Value(), Failed()
    gone = weakref.ref(value), weakref.ref(error)

    def fail(error=error):
        raise error

    cache.get_or_compute("a", lambda value=value: value)
    with pytest.raises(Failed):
        cache.get_or_compute("b", fail)
    with pytest.raises(Failed):
        asyncio.run(cache.aget_or_compute("b", fail))
    cache.delete("a")
    del value, error, fail
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_does_not_wait_for_its_parents_threads(cache, pool):
    slow = Slow("parent's")
    leader = pool.submit(cache.get_or_compute, "a", slow)
    assert slow.begun.wait(LONG_S)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"bad"
        try:
            if cache.get_or_compute("a", lambda: "child's", timeout_s=LONG_S) == "child's":
                said = b"good"
        finally:
            os.write(write, said)
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"good"
    os.waitpid(child, 0)
    slow.go.set()
    assert leader.result(LONG_S) == "parent's"
