"""Coherent caches that compute, and on event loops: one computation, kept unless what it was made of has changed."""

import asyncio
import signal
import threading

import pytest
from coherent_rig import cache_at, settle, two
from redis_rig import Proxy, RedisServer, eventually


@pytest.fixture(scope="module")
def server():
    with RedisServer() as server:
        yield server


@pytest.fixture
def pair(server):
    with two(server) as caches:
        yield caches


def test_one_computation_and_all_find_it(pair):
    a, b = pair
    begun, go_on, found, n = threading.Event(), threading.Event(), [], []

    def compute():
        n.append(1)
        begun.set()
        assert go_on.wait(30.0)
        return "made"

    threads = [threading.Thread(target=lambda: found.append(a.get_or_compute("key", compute))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(30.0)
    go_on.set()
    for thread in threads:
        thread.join(30.0)
    assert found == ["made"] * 4 and n == [1]
    assert b.get_or_compute("key", lambda: pytest.fail("it is in Redis")) == "made" and "key" in a


CHANGES = ["delete", "put and delete", "adelete", "clear", "own delete", "tag", "put", "own put", "flush"]


@pytest.mark.parametrize("tags", [(), ("t",)], ids=["bare", "tagged"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_was_computed_before_a_change_is_not_kept_after_it(pair, server, change, tags):
    if change == "tag" and not tags:
        return  # it does not concern it
    a, b = pair

    def compute():
        {
            "delete": lambda: b.delete("key"),  # which Redis does not have
            "put and delete": lambda: b.put("key", "x") and b.delete("key"),
            "adelete": lambda: asyncio.run(b.adelete("key")),
            "clear": lambda: b.clear(),
            "own delete": lambda: a.delete("key"),
            "tag": lambda: b.invalidate_tag("t"),
            "put": lambda: b.put("key", "newer"),
            "own put": lambda: a.put("key", "newer"),
            "flush": lambda: server.client().flushall(),
        }[change]()
        if change != "tag":  # of a tag Redis itself knows, even before it is told
            settle(a)
        return "older"

    assert a.get_or_compute("key", compute, tags=tags) == "older"
    settle(a, b)
    left = "newer" if change in ("put", "own put") else None
    assert a.get("key") == left and b.get("key") == left


def test_on_a_loop_what_was_computed_before_a_delete_is_not_kept_after_it(pair):
    a, b = pair

    async def compute():
        assert not await b.adelete("key")
        settle(a)
        return "older"

    assert asyncio.run(a.aget_or_compute("key", compute)) == "older"
    settle(a, b)
    assert a.get("key") is None and b.get("key") is None


def test_what_was_computed_is_taken_back_where_the_change_is_told_only_after_it_was_written(server):
    proxy = Proxy(server.port)
    with cache_at(proxy.url) as a, cache_at(server.url) as b:

        def compute():
            proxy.hold()  # a is told late
            assert not b.delete("key")
            return "older"

        def let_go():
            eventually(lambda: server.client().exists("infcore:k:s:key"), "it is written")
            proxy.let_go()

        b.delete("key")
        settle(a, b)
        waiter = []

        def begin():
            value = compute()
            waiter.append(threading.Thread(target=let_go))
            waiter[0].start()
            return value

        assert a.get_or_compute("key", begin) == "older"
        waiter[0].join(30.0)
        settle(a, b)
        assert a.get("key") is None and b.get("key") is None
    proxy.close()


def test_what_redis_refuses_leaves_nothing_there(pair, server):
    a, b = pair

    def compute():
        server.client().delete("infcore:t:t")
        server.client().rpush("infcore:t:t", "a list")
        return "made"

    assert a.get_or_compute("key", compute, tags=["t"]) == "made"
    assert server.client().keys("infcore:k:*") == [] and b.get("key") is None


def test_errors_are_not_kept_unless_asked(pair):
    a, _ = pair
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            a.get_or_compute("key", lambda: 1 // 0)
    assert a.get_or_compute("key", lambda: 3) == 3


def test_on_an_event_loop(pair):
    a, b = pair

    async def run():
        assert await a.aput("key", [1], tags=["t"], version=1)
        assert await b.aget("key") == [1] and await b.aget("key") == [1] and await b.aget("none", 5) == 5
        assert not await b.aput("key", [0], version=0)
        n = []

        async def compute():
            n.append(1)
            await asyncio.sleep(0)
            assert a.get("key") == [1]  # another key may be asked for meanwhile
            return "made"

        found = await asyncio.gather(*(a.aget_or_compute("made", compute, tags=["t"]) for _ in range(5)))
        assert found == ["made"] * 5 and n == [1] and await b.aget_or_compute("made", compute) == "made"
        assert await a.ainvalidate_tag("t") == 2
        settle(b)
        assert await b.aget("key") is None and await b.aget("made") is None
        await b.aput("key", 1)
        assert await a.adelete("key")
        settle(b)
        assert await b.aget("key") is None

    asyncio.run(run())


def test_a_loop_whose_task_is_cancelled_keeps_nothing_old(pair, server):
    a, _ = pair

    async def run():
        a.put("key", 1)
        link = a._far.home.link
        server.signal(signal.SIGSTOP)  # it is done after nobody waits for it any more
        try:
            put = asyncio.ensure_future(a.aput("key", 2))
            await asyncio.sleep(0)
            await asyncio.to_thread(eventually, lambda: not link._orders, "it is sent")
            put.cancel()
            with pytest.raises(asyncio.CancelledError):
                await put
            assert a._near.keep("key", 1, a._near.seen("key"), tags=())  # as who reads just before it is done
        finally:
            server.signal(signal.SIGCONT)
        settle(a)
        assert a.peek("key") is None and await a.aget("key") == 2

    asyncio.run(run())
