"""infcore.Queue under asyncio."""

import asyncio
import threading

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
