"""engine.stream of token models: parts as they come, and a reader who leaves; asyncio's own loop and uvloop."""

import asyncio
import gc
import weakref

import numpy as np
import pytest
from engine_rig import LOOP_KINDS, loop_runner, wait_until
from token_device_rig import (
    GatedTokens,
    Watched,
    emulated,
    engine_of_tokens,
    expected,
    inputs_of,
    prompt_of,
    token_model,
)

import infcore


@pytest.fixture(params=LOOP_KINDS)
def run(request):
    return loop_runner(request.param)


@pytest.fixture
def gated():
    return emulated(kind=GatedTokens)


@pytest.fixture
def engine(gated):
    with engine_of_tokens(gated) as running:
        yield running
        gated.open()
    assert gated.is_clean()


async def entered(gated, n=1):
    for _ in range(n):
        await asyncio.to_thread(gated.wait_entered)


async def read(stream):
    return [token async for part in stream for token in part["tokens"].tolist()]


async def ended(engine):
    await asyncio.to_thread(wait_until, lambda: engine.n_open == 0, "the request to end")


def test_each_token_comes_when_it_is_made(engine, gated, run):
    async def main():
        stream = engine.stream("t", inputs_of([1, 2]))
        for token in expected([1, 2], 8):
            await entered(gated)
            gated.let()
            part = await anext(stream)
            assert (list(part), part["tokens"].dtype, part["tokens"].tolist()) == (["tokens"], np.int64, [token])
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    run(main())


def test_a_slow_reader_gets_what_has_come_in_one_part(engine, gated, run):
    async def main():
        stream = engine.stream("t", inputs_of([1, 2]))
        gated.let(5)
        await entered(gated, 6)
        assert (await anext(stream))["tokens"].tolist() == expected([1, 2], 5)
        gated.open()
        assert await read(stream) == expected([1, 2], 8)[5:]

    run(main())


def test_many_streams_at_once(run):
    device = emulated(kind=Watched, n_blocks=60, max_running=16, slots=32)

    async def main():
        async with engine_of_tokens(device) as engine:
            prompts = [prompt_of(1 + i % 20, i) for i in range(120)]
            found = await asyncio.gather(*(read(engine.stream("t", inputs_of(prompt))) for prompt in prompts))
            assert found == [expected(prompt, 8) for prompt in prompts]

    run(main())
    assert device.is_clean()


def test_a_step_wakes_its_readers_once(monkeypatch):
    """However many of them wait on a loop."""
    device = emulated(kind=GatedTokens, token_budget=256, max_running=32)
    ready = []

    async def main():
        loop = asyncio.get_running_loop()
        add_reader = loop.add_reader
        monkeypatch.setattr(
            loop, "add_reader", lambda fd, call: add_reader(fd, lambda: (ready.append(len(device.steps)), call()))
        )
        async with engine_of_tokens(device) as engine:
            streams = [engine.stream("t", inputs_of([i])) for i in range(32)]
            tasks = [asyncio.create_task(read(stream)) for stream in streams]
            await asyncio.sleep(0)
            device.open()
            assert await asyncio.gather(*tasks) == [expected([i], 8) for i in range(32)]

    loop_runner("asyncio")(main())
    assert len(device.steps) <= 10
    assert len(ready) <= 3 * len(device.steps)  # of 256 tokens; where it is awake already, ends and parts add to one


def test_leaving_the_loop_takes_the_request_back(engine, gated, run):
    async def main():
        gated.let(2)
        async for part in engine.stream("t", inputs_of([1])):
            assert part["tokens"].tolist()[0] == expected([1], 1)[0]
            break
        gated.open()
        await ended(engine)

    run(main())
    assert len(gated.steps) <= 4
    assert engine.stats()["models"]["t"]["cancelled"] == 1


@pytest.mark.parametrize("how", ["aclose", "drop", "cancel the task", "raise in the loop"])
@pytest.mark.parametrize("where", ["in its lane", "on its device"])
def test_a_reader_that_goes_away(where, how, run):
    device = emulated(kind=GatedTokens, slots=1)

    async def main():
        async with engine_of_tokens(device) as engine:
            first = engine.stream("t", inputs_of([1]))
            await entered(device)
            doomed = engine.stream("t", inputs_of([2])) if where == "in its lane" else first
            if how == "cancel the task":
                task = asyncio.create_task(read(doomed))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            elif how == "raise in the loop":
                device.let(1)
                with pytest.raises(ZeroDivisionError):
                    async for _ in first:
                        first = doomed = None
                        raise ZeroDivisionError
            elif how == "aclose":
                await doomed.aclose()
                with pytest.raises(StopAsyncIteration):
                    await anext(doomed)
            if doomed is first:
                first = None
            del doomed
            device.open()
            if first is not None:
                assert await read(first) == expected([1], 8)
            await ended(engine)
            assert engine.stats()["models"]["t"]["cancelled"] >= 1

    run(main())
    assert device.is_clean()


def test_errors_come_after_the_tokens_that_were_made(run):
    device = emulated(kind=GatedTokens)

    async def main():
        engine = engine_of_tokens(device).start()
        stream = engine.stream("t", inputs_of([1, 2]))
        device.let(3)
        await entered(device, 4)
        closing = asyncio.create_task(asyncio.to_thread(engine.close, drain=False))
        await ended(engine)
        device.open()
        await closing
        assert (await anext(stream))["tokens"].tolist() == expected([1, 2], 3)
        with pytest.raises(infcore.EngineClosed):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    run(main())
    assert device.is_clean()


def test_one_reader_at_a_time(engine, gated, run):
    async def main():
        stream = engine.stream("t", inputs_of([1]))
        task = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one task"):
            await anext(stream)
        gated.open()
        assert (await task)["tokens"].tolist()[0] == expected([1], 1)[0]
        await read(stream)

    run(main())


def test_refused_at_once_and_outside_a_loop(engine):
    with pytest.raises(RuntimeError, match="loop"):
        engine.stream("t", inputs_of([1]))

    async def main():
        with pytest.raises(infcore.UnknownName):
            engine.stream("nobody", inputs_of([1]))

    asyncio.run(main())


def test_a_loop_that_ends_with_streams_open(run):
    device = emulated(kind=GatedTokens)
    refs = []

    async def leave(engine):
        streams = [engine.stream("t", inputs_of([i])) for i in range(3)]
        refs.extend(weakref.ref(stream) for stream in streams)
        tasks = [asyncio.create_task(read(stream)) for stream in streams[:2]]
        await entered(device)
        assert not any(task.done() for task in tasks)

    async def stay(engine):
        device.open()
        assert await read(engine.stream("t", inputs_of([7]))) == expected([7], 8)
        await ended(engine)

    with engine_of_tokens(device) as engine:
        run(leave(engine))
        gc.collect()
        run(stay(engine))
    assert all(ref() is None for ref in refs)
    assert device.is_clean()


def test_a_model_of_one_token(run):
    async def main():
        async with engine_of_tokens(emulated(), models=[token_model(max_new_tokens=1)]) as engine:
            return [part["tokens"].tolist() async for part in engine.stream("t", inputs_of([3]))]

    assert run(main()) == [expected([3], 1)]
