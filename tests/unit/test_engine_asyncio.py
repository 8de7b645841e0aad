"""Engine.asubmit under asyncio: awaiting, combining, cancelling, contexts, callbacks; asyncio's own loop and uvloop."""

import asyncio
import contextvars
import threading

import pytest
from engine_rig import LOOP_KINDS, WAIT_S, Gated, engine_of, loop_runner, model, wait_until, x_of

import infcore
from infcore import CallableDevice, DeviceError, EmulatedDevice


@pytest.fixture(params=LOOP_KINDS)
def run(request):
    return loop_runner(request.param)


@pytest.fixture
def gated():
    return Gated()


@pytest.fixture
def engine(gated):
    with engine_of(CallableDevice("d", gated), models=[model(max_batch_size=1)]) as running:
        yield running
        gated.open()


async def entered(gated):
    await asyncio.to_thread(gated.wait_entered)


def y(outputs):
    return float(outputs["y"][0])


def test_await_and_gather(engine, gated, run):
    gated.open()

    async def main():
        assert y(await engine.asubmit("m", x_of(3))) == 6
        return [y(o) for o in await asyncio.gather(*(engine.asubmit("m", x_of(i)) for i in range(50)))]

    assert run(main()) == [2 * i for i in range(50)]


def test_await_twice_and_by_many(engine, gated, run):
    async def main():
        future = engine.asubmit("m", x_of(3))

        async def wait():
            return y(await future)

        tasks = [asyncio.create_task(wait()) for _ in range(5)]
        await entered(gated)
        gated.let()
        assert [await task for task in tasks] == [6] * 5
        assert (y(await future), y(await future), y(future.result())) == (6, 6, 6)

    run(main())


def test_a_future_looks_like_asyncios(engine, gated, run):
    async def main():
        future = engine.asubmit("m", x_of(1))
        assert asyncio.isfuture(future)
        assert asyncio.ensure_future(future) is future
        assert future.get_loop() is asyncio.get_running_loop()
        assert not future.done()
        with pytest.raises(asyncio.InvalidStateError):
            future.result()
        with pytest.raises(asyncio.InvalidStateError):
            future.exception()
        gated.open()
        await future
        assert future.done()
        assert future.exception() is None

    run(main())


def test_errors_come_through(run):
    def fails(name, inputs):
        raise ValueError("planned")

    async def main():
        with pytest.raises(DeviceError, match="planned"):
            await engine.asubmit("m", x_of(1))
        mixed = [engine.asubmit("m", x_of(1)), engine.asubmit("e", x_of(1))]
        found = await asyncio.gather(*mixed, return_exceptions=True)
        assert isinstance(found[0], DeviceError)
        assert y(found[1]) == 0
        with pytest.raises(infcore.UnknownName):
            await engine.asubmit("nobody", x_of(1))
        with pytest.raises(DeviceError):
            async for _ in engine.stream("m", x_of(1)):
                pass

    devices = [CallableDevice("d", fails, models=["m"]), EmulatedDevice("e", base_s=1e-4, models=["e"])]
    with engine_of(*devices, models=[model("m"), model("e")]) as engine:
        run(main())


def test_wait_for_cancels_the_request(engine, gated, run):
    async def main():
        first = engine.asubmit("m", x_of(1))
        await entered(gated)
        late = engine.asubmit("m", x_of(2))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(late, 0.01)
        assert late.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await late
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(third := engine.asubmit("m", x_of(3))), 0.01)
        assert not third.done()
        gated.open()
        assert [y(o) for o in await asyncio.gather(first, third)] == [2, 6]
        assert y(await asyncio.wait_for(engine.asubmit("m", x_of(4)), WAIT_S)) == 8

    run(main())
    assert gated.batches == [[1], [3], [4]]


def test_wait_and_as_completed(engine, gated, run):
    async def main():
        futures = [engine.asubmit("m", x_of(i)) for i in range(4)]
        await entered(gated)
        gated.let()
        done, pending = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        assert done == {futures[0]}
        gated.open()
        done, pending = await asyncio.wait(pending)
        assert (len(done), len(pending)) == (3, 0)
        futures = [engine.asubmit("m", x_of(i)) for i in range(10)]
        assert sorted([y(await each) for each in asyncio.as_completed(futures)]) == [2 * i for i in range(10)]

    run(main())


def test_task_group(engine, gated, run):
    async def ask(i):
        return y(await engine.asubmit("m", x_of(i)))

    async def main():
        gated.open()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(i)) for i in range(20)]
        assert [task.result() for task in tasks] == [2 * i for i in range(20)]

    run(main())


def test_a_task_group_that_fails_takes_its_requests_back(engine, gated, run):
    async def main():
        async def fail():
            await entered(gated)
            raise ValueError("planned")

        async def ask(i):
            await engine.asubmit("m", x_of(i))

        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask(i)) for i in range(4)]
                group.create_task(fail())
        assert all(task.cancelled() for task in tasks)

    run(main())
    wait_until(lambda: engine.n_open == 0, "the requests to end")
    gated.open()
    assert gated.batches == [[0]]


def test_cancelling_a_task_that_waits(engine, gated, run):
    async def main():
        ended = []

        async def ask():
            try:
                await engine.asubmit("m", x_of(1))
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            finally:
                ended.append("finally")

        task = asyncio.create_task(ask())
        await entered(gated)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["cancelled", "finally"]
        assert task.cancelled()
        gated.open()
        assert y(await engine.asubmit("m", x_of(2))) == 4

    run(main())


def test_a_task_may_go_on_after_its_cancel(engine, gated, run):
    async def main():
        async def ask():
            try:
                return y(await engine.asubmit("m", x_of(1)))
            except asyncio.CancelledError:
                gated.open()
                return y(await engine.asubmit("m", x_of(2)))

        task = asyncio.create_task(ask())
        await entered(gated)
        task.cancel()
        assert await task == 4

    run(main())


def test_a_cancel_that_comes_too_late(engine, gated, run):
    """The answer is there, the task not yet awake: it is cancelled at its next await, as with asyncio's futures."""

    async def main():
        async def ask():
            outputs = await engine.asubmit("m", x_of(1))
            await asyncio.sleep(0)
            return y(outputs)

        task = asyncio.create_task(ask())
        await entered(gated)
        gated.open()
        wait_until(lambda: engine.n_open == 0, "the request to end")  # the loop stands still meanwhile
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_context_is_the_tasks_own(engine, gated, run):
    var = contextvars.ContextVar("var")

    async def ask(i):
        var.set(i)
        await engine.asubmit("m", x_of(i))
        assert var.get() == i
        var.set(-i)
        await engine.asubmit("m", x_of(i))
        return var.get()

    async def main():
        gated.open()
        var.set("main")
        assert await asyncio.gather(*(ask(i) for i in range(20))) == [-i for i in range(20)]
        assert var.get() == "main"
        told = []
        future = engine.asubmit("m", x_of(1))
        future.add_done_callback(lambda ended: told.append(var.get()))
        var.set("later")
        await future
        await asyncio.sleep(0)
        assert told == ["main"]

    run(main())


def test_callbacks_run_on_the_loop(engine, gated, run):
    async def main():
        told, ident = [], threading.get_ident()
        future = engine.asubmit("m", x_of(1))
        future.add_done_callback(lambda ended: told.append((ended is future, threading.get_ident() == ident)))
        gated.open()
        await future
        future.add_done_callback(lambda ended: told.append("late"))
        assert len(told) == 1  # never from inside add_done_callback
        await asyncio.sleep(0)
        assert told == [(True, True), "late"]

    run(main())


def test_a_callback_that_raises_reaches_the_loops_handler(engine, gated, run):
    async def main():
        seen = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context["exception"]))
        future = engine.asubmit("m", x_of(1))
        future.add_done_callback(lambda ended: 1 / 0)
        gated.open()
        assert y(await future) == 2
        while not seen:  # it may have ended before it was awaited; the loop calls back at its next turn
            await asyncio.sleep(0)
        assert [type(error) for error in seen] == [ZeroDivisionError]

    run(main())
