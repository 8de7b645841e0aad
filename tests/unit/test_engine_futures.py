"""Futures of Engine.submit: waiting, ending, cancelling, callbacks, what they tell."""

import concurrent.futures
import contextvars
import threading

import pytest
from engine_rig import WAIT_S, Gated, answer, double, engine_of, model, wait_until, x_of

import infcore
from infcore import CallableDevice, Cancelled, DeadlineExceeded, EmulatedDevice, ManualClock


@pytest.fixture
def gated():
    return Gated()


@pytest.fixture
def engine(gated):
    with engine_of(CallableDevice("d", gated)) as running:
        yield running
        gated.open()


def test_done_follows_the_run(engine, gated):
    future = engine.submit("m", x_of(1))
    gated.wait_entered()
    assert not future.done()
    assert future.latency_s is None
    assert future.end_s is None
    assert future.device is None
    assert engine.n_open == 1
    gated.let()
    assert future.result(timeout_s=WAIT_S)["y"].tolist() == [2, 2]
    assert future.done()
    assert not future.cancelled()
    assert future.exception() is None
    assert future.device == "d"
    assert engine.n_open == 0
    assert "'m'" in repr(future)


def test_latency_is_on_the_engines_clock(gated):
    clock = ManualClock(start_s=100.0)
    with engine_of(CallableDevice("d", gated), clock=clock) as engine:
        future = engine.submit("m", x_of(1))
        gated.wait_entered()
        clock.advance(2.5)
        gated.let()
        future.result(timeout_s=WAIT_S)
    assert future.latency_s == 2.5
    assert future.end_s == 102.5


def test_result_times_out_and_the_request_goes_on(engine, gated):
    future = engine.submit("m", x_of(1))
    gated.wait_entered()
    for timeout_s in (0, 0.0, 0.01, 1e-9):
        with pytest.raises(TimeoutError, match="timeout_s"):
            future.result(timeout_s=timeout_s)
    with pytest.raises(TimeoutError):
        future.exception(timeout_s=0.001)
    assert not future.done()
    gated.let()
    assert answer(future) == 2


@pytest.mark.parametrize("bad", [-1, float("nan"), "1", object()])
def test_time_outs_that_are_none(engine, gated, bad):
    future = engine.submit("m", x_of(1))
    with pytest.raises(infcore.InfcoreError, match="timeout_s"):
        future.result(timeout_s=bad)
    gated.let()
    assert answer(future) == 2


def test_cancel_while_it_waits(engine, gated):
    first = engine.submit("m", x_of(1))
    gated.wait_entered()
    second, third = engine.submit("m", x_of(2)), engine.submit("m", x_of(3))
    assert second.cancel() is True
    assert second.done()
    assert second.cancelled()
    assert second.cancel() is False
    with pytest.raises(Cancelled, match="'m'") as caught:
        second.result()
    assert isinstance(caught.value, concurrent.futures.CancelledError)
    with pytest.raises(Cancelled):
        second.exception()
    gated.open()
    assert (answer(first), answer(third)) == (2, 6)
    assert gated.batches == [[1], [3]]
    assert engine.n_open == 0


def test_cancel_while_it_runs(engine, gated):
    future = engine.submit("m", x_of(1))
    gated.wait_entered()
    assert future.cancel() is True
    with pytest.raises(Cancelled):
        future.result()
    wait_until(lambda: engine.n_open == 0, "the engine to let go of a request that was cancelled as it ran")
    gated.open()
    assert answer(engine.submit("m", x_of(2))) == 4


def test_cancel_after_the_end(engine, gated):
    gated.open()
    future = engine.submit("m", x_of(1))
    assert answer(future) == 2
    assert future.cancel() is False
    assert not future.cancelled()
    assert answer(future) == 2


def test_a_waiting_thread_learns_of_the_cancel(engine, gated):
    future = engine.submit("m", x_of(1))
    gated.wait_entered()
    waits = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:

        def wait():
            waits.set()
            future.result(timeout_s=WAIT_S)

        waiting = pool.submit(wait)
        waits.wait()
        assert future.cancel()
        with pytest.raises(Cancelled):
            waiting.result(timeout=WAIT_S)


def test_many_threads_wait_for_one(engine, gated):
    future = engine.submit("m", x_of(4))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(answer, future) for _ in range(8)]
        gated.wait_entered()
        gated.let()
        assert [w.result() for w in waiting] == [8] * 8


def test_callbacks_run_once_with_the_future(engine, gated):
    told, all_told = [], threading.Event()
    future = engine.submit("m", x_of(1))
    for n in range(3):
        future.add_done_callback(lambda ended, n=n: told.append((n, ended)))
    future.add_done_callback(lambda ended: all_told.set())
    assert told == []
    gated.let()
    assert all_told.wait(WAIT_S)  # nobody asks for the result
    assert told == [(0, future), (1, future), (2, future)]


def test_callback_of_an_ended_future_runs_at_once(engine, gated):
    gated.open()
    future = engine.submit("m", x_of(1))
    answer(future)
    told = []
    future.add_done_callback(told.append)
    assert told == [future]


@pytest.mark.parametrize("moment", ["waits", "runs"])
def test_callbacks_of_a_cancelled_future(engine, gated, moment):
    told = []
    first = engine.submit("m", x_of(1))
    gated.wait_entered()
    future = first if moment == "runs" else engine.submit("m", x_of(2))
    future.add_done_callback(told.append)
    future.add_done_callback(told.append)
    future.cancel()
    assert told == [future, future]
    gated.open()
    answer(engine.submit("m", x_of(3)))
    assert told == [future, future]


def test_callbacks_can_be_removed(engine, gated):
    told = []
    future = engine.submit("m", x_of(1))

    def callback(ended):
        told.append("removed")

    future.add_done_callback(callback)
    future.add_done_callback(lambda ended: told.append("kept"))
    future.add_done_callback(callback)
    assert future.remove_done_callback(callback) == 2
    assert future.remove_done_callback(callback) == 0
    gated.let()
    answer(future)
    assert told == ["kept"]


def test_callback_runs_in_the_given_context(engine, gated):
    var = contextvars.ContextVar("var", default="outside")
    context = contextvars.copy_context()
    context.run(var.set, "inside")
    told, all_told = [], threading.Event()
    future = engine.submit("m", x_of(1))
    future.add_done_callback(lambda ended: told.append(var.get()), context=context)
    future.add_done_callback(lambda ended: all_told.set())
    gated.let()
    assert all_told.wait(WAIT_S)
    assert told == ["inside"]


def test_a_callback_may_submit(engine, gated):
    gated.open()
    chain, done = [], threading.Event()

    def go_on(ended):
        chain.append(float(ended.result()["y"][0]))
        if len(chain) == 20:
            return done.set()
        engine.submit("m", x_of(len(chain))).add_done_callback(go_on)

    engine.submit("m", x_of(0)).add_done_callback(go_on)
    assert done.wait(WAIT_S)
    assert chain == [2 * i for i in range(20)]


def test_callbacks_of_requests_that_a_device_never_saw():
    clock, told = ManualClock(), threading.Event()
    with engine_of(clock=clock) as engine:
        future = engine.submit("m", x_of(1), deadline_s=1)
        future.add_done_callback(lambda ended: told.set())
        clock.advance(2)
        assert told.wait(WAIT_S)
        assert isinstance(future.exception(), DeadlineExceeded)


def test_callbacks_of_an_emulated_device():
    told = threading.Event()
    with engine_of(EmulatedDevice("e", base_s=0.01)) as engine:
        engine.submit("m", x_of(1)).add_done_callback(lambda ended: told.set())
        assert told.wait(WAIT_S)


def test_no_callback_is_lost_to_a_fast_device():
    """A callback is added while the request is ending, again and again."""
    n, told = 2000, threading.Semaphore(0)
    with engine_of(CallableDevice("d", double)) as engine:
        for i in range(n):
            engine.submit("m", x_of(i)).add_done_callback(lambda ended: told.release())
        for _ in range(n):
            assert told.acquire(timeout=WAIT_S)
    assert not told.acquire(blocking=False)


def test_a_future_outlives_its_engine():
    with engine_of(CallableDevice("d", double), models=[model()]) as engine:
        future, never_asked = engine.submit("m", x_of(1)), engine.submit("m", x_of(2))
        answer(future)
    del engine
    assert (answer(future), answer(never_asked)) == (2, 4)
    assert future.device == "d"
    assert future.cancel() is False


def test_a_future_of_submit_is_not_awaited(engine, gated):
    gated.open()
    future = engine.submit("m", x_of(1))

    async def main():
        await future

    with pytest.raises(infcore.InvalidType, match="asubmit"):
        import asyncio

        asyncio.run(main())
