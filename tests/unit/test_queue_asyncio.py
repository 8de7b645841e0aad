"""infcore.Queue under asyncio."""

import asyncio
import gc
import threading
import weakref

import pytest

import infcore


def test_aget_is_served_from_this_loop_and_from_threads() -> None:
    q: infcore.Queue[int] = infcore.Queue(100)

    async def main() -> list[int]:
        getters = [asyncio.create_task(q.aget()) for _ in range(10)]
        await asyncio.sleep(0)
        q.put_many(range(5))
        thread = threading.Thread(target=q.put_many, args=(range(5, 10),))
        thread.start()
        got = await asyncio.wait_for(asyncio.gather(*getters), 60)
        thread.join()
        q.put(10)
        return [*got, await q.aget()]

    assert sorted(asyncio.run(main())) == list(range(11))


def test_cancelling_aget_loses_no_item() -> None:
    q: infcore.Queue[int] = infcore.Queue(100)

    async def main() -> None:
        for when in range(4):  # cancel before, at and after the wake-up is under way
            first = asyncio.create_task(q.aget())
            second = asyncio.create_task(q.aget())
            await asyncio.sleep(0)
            q.put(when)
            for _ in range(when):
                await asyncio.sleep(0)
            if first.done():
                q.put(-1)
            else:
                first.cancel()
            assert await asyncio.wait_for(second, 60) in (when, -1)
            await asyncio.gather(first, return_exceptions=True)
            assert len(q) == 0

    asyncio.run(main())


def test_close_ends_aget() -> None:
    q: infcore.Queue[int] = infcore.Queue(1)

    async def main() -> None:
        task = asyncio.create_task(q.aget())
        await asyncio.sleep(0)
        q.close()
        with pytest.raises(infcore.QueueClosed):
            await asyncio.wait_for(task, 60)

    asyncio.run(main())


def test_aget_and_get_together_take_everything() -> None:
    q: infcore.Queue[int] = infcore.Queue(1000)
    got: list[int] = []

    def getter() -> None:
        while (item := q.get(timeout_s=60.0)) >= 0:
            got.append(item)

    async def agetter() -> None:
        while (item := await q.aget()) >= 0:
            got.append(item)

    async def main() -> None:
        threads = [threading.Thread(target=getter) for _ in range(2)]
        tasks = [asyncio.create_task(agetter()) for _ in range(2)]
        for thread in threads:
            thread.start()
        for i in range(500):
            q.put(i)
            if i % 50 == 0:
                await asyncio.sleep(0)
        for _ in range(4):
            q.put(-1)
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
        for thread in threads:
            thread.join(60)

    asyncio.run(main())
    assert sorted(got) == list(range(500))


class CountingLoop(asyncio.SelectorEventLoop):
    n_wakes = 0

    def call_soon_threadsafe(self, *args, **kwargs):
        self.n_wakes += 1
        return super().call_soon_threadsafe(*args, **kwargs)


def run_on(loop: asyncio.AbstractEventLoop, main) -> None:
    try:
        loop.run_until_complete(asyncio.wait_for(main, 60))
    finally:
        loop.close()


def test_many_puts_cost_one_wake_up_of_the_loop() -> None:
    q: infcore.Queue[int] = infcore.Queue(1000)
    loop = CountingLoop()

    async def main() -> None:
        getters = [asyncio.ensure_future(q.aget()) for _ in range(100)]
        await asyncio.sleep(0)
        for i in range(100):
            q.put(i)
        assert loop.n_wakes == 1
        assert sorted(await asyncio.gather(*getters)) == list(range(100))
        more = [asyncio.ensure_future(q.aget()) for _ in range(2)]
        await asyncio.sleep(0)
        q.put_many(range(50))  # two are woken for; the others' items find nobody waiting
        assert loop.n_wakes == 2
        assert await asyncio.gather(*more) == [0, 1]
        assert len(q) == 48

    run_on(loop, main())


@pytest.mark.parametrize("n_cancelled", [0, 1, 3, 5])
def test_a_turn_that_was_given_to_a_cancelled_getter_goes_on(n_cancelled: int) -> None:
    q: infcore.Queue[int] = infcore.Queue(1000)
    loop = CountingLoop()

    async def main() -> None:
        getters = [asyncio.ensure_future(q.aget()) for _ in range(10)]
        await asyncio.sleep(0)
        q.put_many(range(5))  # five are told, by one wake-up
        for getter in getters[:n_cancelled]:
            getter.cancel()
        done, waiting = await asyncio.wait(getters[n_cancelled:], return_when=asyncio.ALL_COMPLETED, timeout=0.05)
        assert sorted(getter.result() for getter in done) == list(range(5))
        assert len(q) == 0
        q.put_many(range(5, 5 + len(waiting)))
        assert sorted(await asyncio.gather(*waiting)) == list(range(5, 5 + len(waiting)))

    run_on(loop, main())


def test_a_closed_loop_s_turns_go_to_others() -> None:
    q: infcore.Queue[int] = infcore.Queue(10)
    dead = CountingLoop()
    tasks = [dead.create_task(q.aget()) for _ in range(2)]
    dead.run_until_complete(asyncio.sleep(0))
    dead.close()

    async def main() -> None:
        getters = [asyncio.ensure_future(q.aget()) for _ in range(2)]
        await asyncio.sleep(0)
        q.put_many(range(2))
        assert sorted(await asyncio.gather(*getters)) == [0, 1]

    run_on(CountingLoop(), main())
    for task in tasks:
        task._log_destroy_pending = False


def test_a_queue_that_was_awaited_goes_when_nobody_holds_it() -> None:
    class Item:
        pass

    async def use(q: infcore.Queue[Item]) -> None:
        getter = asyncio.ensure_future(q.aget())
        await asyncio.sleep(0)
        q.put(Item())
        await getter

    def used() -> weakref.ref[infcore.Queue[Item]]:
        q: infcore.Queue[Item] = infcore.Queue(10)
        run_on(CountingLoop(), use(q))
        return weakref.ref(q)

    gc.collect()
    gc.disable()  # by its reference count alone: no cycle holds it
    try:
        assert used()() is None
    finally:
        gc.enable()
