"""A client that goes away takes its request with it, wherever that is: in the ring, waiting, in an open batch, running."""

import asyncio
import sys

import pytest
from engine_rig import WAIT_S, Gated, answer, engine_of, model, wait_until, x_of

from infcore import CallableDevice


@pytest.fixture
def gated():
    return Gated()


@pytest.fixture
def engine(gated):
    with engine_of(CallableDevice("d", gated), models=[model(max_batch_size=1)]) as running:
        yield running
        gated.open()


@pytest.fixture
def holds_gil():
    """No other thread gets the interpreter unless this one gives it up."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    yield
    sys.setswitchinterval(before)


def let_go(engine):
    wait_until(lambda: engine.n_open == 0, "the engine to let go of what was cancelled")


@pytest.mark.parametrize("how", ["future", "task"])
def test_in_the_ring(engine, gated, how):
    async def main():
        async def ask():
            await engine.asubmit("m", x_of(1))

        if how == "future":
            future = engine.asubmit("m", x_of(1))  # deferred to the end of this callback
            assert future.cancel()
        else:
            task = asyncio.ensure_future(ask())
            asyncio.get_running_loop().call_soon(task.cancel)  # behind the task's first step, before anything else
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    let_go(engine)
    assert gated.batches in ([], [[1]])  # a worker may have been faster; never twice
    gated.open()
    assert answer(engine.submit("m", x_of(2))) == 4
    assert engine.stats()["models"]["m"]["cancelled"] == 1


@pytest.mark.parametrize("how", ["future", "task"])
def test_while_it_waits(engine, gated, how):
    first = engine.submit("m", x_of(0))
    gated.wait_entered()
    if how == "future":
        assert engine.submit("m", x_of(1)).cancel()
    else:

        async def main():
            task = asyncio.ensure_future(asyncio.wait_for(engine.asubmit("m", x_of(1)), WAIT_S))
            await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
    wait_until(lambda: engine.n_open == 1, "the engine to let go of what was cancelled")
    gated.open()
    assert answer(first) == 0
    assert gated.batches == [[0]]


def test_in_an_open_batch(engine, gated, holds_gil):
    """The device is called and its batch open, but its worker cannot take it while this thread holds the interpreter."""
    future = engine.submit("m", x_of(1))
    for _ in range(200_000):  # meanwhile the dispatcher, which needs no interpreter, opens the batch
        pass
    assert future.cancel()
    let_go(engine)
    assert gated.batches == []
    gated.open()
    assert answer(engine.submit("m", x_of(2))) == 4
    assert gated.batches == [[2]]


@pytest.mark.parametrize("how", ["future", "task"])
def test_while_it_runs(engine, gated, how):
    if how == "future":
        future = engine.submit("m", x_of(1))
        gated.wait_entered()
        assert future.cancel()
    else:

        async def main():
            task = asyncio.ensure_future(asyncio.wait_for(engine.asubmit("m", x_of(1)), WAIT_S))
            await asyncio.get_running_loop().run_in_executor(None, gated.wait_entered)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
    let_go(engine)  # though the run is still under way
    gated.open()
    assert answer(engine.submit("m", x_of(2))) == 4
    assert gated.batches == [[1], [2]]
    assert engine.stats()["models"]["m"]["cancelled"] == 1
