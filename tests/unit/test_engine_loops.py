"""Event loops around an engine: many in turn, two at once, closed engines; on asyncio's own loop and uvloop."""

import asyncio
import gc
import os
import sys
import threading

import pytest
from engine_rig import LOOP_KINDS, WAIT_S, Gated, double, engine_of, loop_runner, model, x_of

from infcore import CallableDevice, EngineClosed, ManualClock


@pytest.fixture(params=LOOP_KINDS)
def run(request):
    return loop_runner(request.param)


@pytest.fixture
def gated():
    return Gated()


async def entered(gated):
    await asyncio.to_thread(gated.wait_entered)


def y(outputs):
    return float(outputs["y"][0])


def test_deadlines_end_awaiting(run):
    clock = ManualClock()

    async def main():
        future = engine.asubmit("m", x_of(1), deadline_s=1.0)
        clock.advance(2.0)
        with pytest.raises(TimeoutError):
            await future

    with engine_of(clock=clock) as engine:
        run(main())


def test_the_engine_closes_under_those_who_wait(gated, run):
    async def main():
        async with engine_of(CallableDevice("d", gated), models=[model(max_batch_size=1)]) as engine:
            futures = [engine.asubmit("m", x_of(i)) for i in range(3)]
            await entered(gated)
            closing = asyncio.create_task(asyncio.to_thread(engine.close, drain=False))
            for ended in await asyncio.gather(*futures, return_exceptions=True):
                assert isinstance(ended, EngineClosed)
            gated.open()
            assert await closing == []
            with pytest.raises(EngineClosed):
                await engine.asubmit("m", x_of(1))

    run(main())


def test_what_is_submitted_just_before_the_close_is_answered(run):
    """From inside the wake-up that hands answers out, where the dispatcher is told of submits only at the end."""

    async def main():
        await engine.asubmit("m", x_of(1))
        futures = [engine.asubmit("m", x_of(i)) for i in range(5)]
        engine.close(timeout_s=0)
        for ended in await asyncio.gather(*futures, return_exceptions=True):
            assert isinstance(ended, (EngineClosed, dict))

    with engine_of(CallableDevice("d", double)) as engine:
        run(main())
    assert engine.n_open == 0


def test_loops_one_after_another_leave_no_descriptors(run):
    async def main():
        await asyncio.gather(*(engine.asubmit("m", x_of(i)) for i in range(3)))

    with engine_of(CallableDevice("d", double)) as engine:
        run(main())
        gc.collect()  # what earlier tests left: it would go in between
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            run(main())
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before


def test_two_loops_at_once(run):
    n_done, together = [], threading.Barrier(2)

    async def main():
        await asyncio.to_thread(together.wait)
        for _ in range(20):
            outputs = await asyncio.gather(*(engine.asubmit("m", x_of(i)) for i in range(10)))
            assert [y(o) for o in outputs] == [2 * i for i in range(10)]
        n_done.append(1)

    with engine_of(CallableDevice("d", double)) as engine:
        threads = [threading.Thread(target=run, args=(main(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert n_done == [1, 1]


def test_a_loop_that_is_busy_holds_up_no_other(run):
    """One loop's task blocks inside the wake-up that brought its answer; another loop's requests go through."""
    blocked, release = threading.Event(), threading.Event()

    async def blocks():
        await engine.asubmit("m", x_of(1))
        blocked.set()
        assert release.wait(WAIT_S)

    async def asks():
        return [y(await engine.asubmit("m", x_of(i))) for i in range(5)]

    with engine_of(CallableDevice("d", double)) as engine:
        thread = threading.Thread(target=run, args=(blocks(),))
        thread.start()
        assert blocked.wait(WAIT_S)
        try:
            assert run(asks()) == [0, 2, 4, 6, 8]
        finally:
            release.set()
            thread.join()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_eager_tasks(run):
    async def ask(i):
        first = y(await engine.asubmit("m", x_of(i)))
        return first + y(await engine.asubmit("m", x_of(i)))

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        assert await asyncio.gather(*(ask(i) for i in range(20))) == [4 * i for i in range(20)]
        outer = asyncio.create_task(ask(1))
        assert await outer == 4

    with engine_of(CallableDevice("d", double)) as engine:
        run(main())
