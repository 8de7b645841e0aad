"""Coherent caches, two steps of which meet: who writes at once, who is cancelled, who has an old value in hand."""

import asyncio
import contextlib
import signal
import threading
import time

import pytest
from coherent_rig import cache_at, elsewhere, settle, two
from redis_rig import RedisServer, eventually

from infcore.cache import CoherentCache
from infcore.cache.far_scripts import open_tags
from infcore.errors import CacheUnreachable

KEY_OF_ITS_SLOT = 4096 + 1  # as 1 is


@pytest.fixture(scope="module")
def server():
    with RedisServer() as server:
        yield server


@pytest.fixture
def site(server):
    server.client().flushall()
    with RedisServer() as site:
        yield site


@contextlib.contextmanager
def chained(*servers):
    """Near, and these, read from the beginning; what they have stays for as long as a test runs."""
    urls = [server.url for server in servers]
    with CoherentCache(1 << 20, urls, policy="lru", staleness_s_max=60.0, timeout_s=10.0, copy_ttl_s=1e-3) as cache:
        eventually(lambda: all(level.may_be_read for level in cache._far.levels), "all levels are read")
        for level in cache._far.levels:
            level.copy_ttl_s = 1000.0
        yield cache


@pytest.fixture
def chain(site, server):
    with chained(site, server) as cache:
        yield cache


async def cancelled_as_it_is_done(server, cache, start, meanwhile):
    """Of who awaits start(), cancelled before it hears that Redis has done it; before that, meanwhile()."""
    server.signal(signal.SIGSTOP)
    try:
        task = asyncio.ensure_future(start())
        await asyncio.sleep(0)
        await asyncio.to_thread(eventually, lambda: not cache._far.home.link._orders, "it is sent")
        meanwhile()
        task.cancel()
    finally:
        server.signal(signal.SIGCONT)
    settle(cache, cache)  # the event loop stands still until the answer is there
    with pytest.raises(asyncio.CancelledError):
        await task


CHANGES = {
    "put": (lambda cache: cache.aput("key", "new"), "new"),
    "delete": (lambda cache: cache.adelete("key"), None),
    "tag": (lambda cache: cache.ainvalidate_tag("t"), None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_who_is_cancelled_as_it_is_done_keeps_nothing_old(server, change):
    start, left = CHANGES[change]
    with two(server) as (a, b):
        a.put("key", "old", tags=["t"])
        settle(a)

        def read():  # as who read just before it was done
            assert a._near.keep("key", "old", a._near.seen("key"), tags=("t",), version=0)

        asyncio.run(cancelled_as_it_is_done(server, a, lambda: start(a), read))
        settle(a, b)
        assert b.get("key") == left and a.get("key") == left


@pytest.mark.parametrize("change", CHANGES)
def test_who_is_cancelled_as_it_is_done_leaves_no_copy(server, chain, change):
    start, left = CHANGES[change]
    chain.put("key", "old", tags=["t"])
    asyncio.run(cancelled_as_it_is_done(server, chain, lambda: start(chain), lambda: None))
    settle(chain, chain)
    assert chain.get("key") == left


@pytest.mark.parametrize("other", ["key", 1])
def test_of_two_own_puts_at_once_the_later_one_is_not_undone_by_a_copy(server, chain, other):
    """They share a key, or just its generation: one of them is not kept, and its copy must go."""
    keys = ("key", "key") if other == "key" else (1, KEY_OF_ITS_SLOT)

    async def put(*values):
        await asyncio.gather(*(chain.aput(key, value) for key, value in zip(keys, values, strict=True)))

    for values in (("a", "b"), ("c", "d"), ("e", "f")):
        asyncio.run(put(*values))
        settle(chain, chain)
        with cache_at(elsewhere(server.url)) as fresh:
            for key in keys:
                assert chain.get(key) == fresh.get(key) is not None


@pytest.mark.parametrize("change", ["delete", "put"])
def test_a_change_in_one_turn_of_redis_with_what_was_computed_before_it(server, change):
    """Redis tells who touched a key last in a turn of its loop of nothing that others did to it in there."""
    with two(server) as (a, b):
        threads = []

        def start(work):
            threads.append(threading.Thread(target=work))
            threads[-1].start()

        def is_sent(cache, n):
            return eventually(lambda: not cache._far.home.link._orders and len(cache._far.home.link._sent) > n, "sent")

        def go_on():
            is_sent(a, n_before)
            server.signal(signal.SIGCONT)

        def compute():
            nonlocal n_before
            server.signal(signal.SIGSTOP)
            start((lambda: b.delete("key")) if change == "delete" else (lambda: b.put("key", "new")))
            is_sent(b, 0)
            n_before = len(a._far.home.link._sent)
            start(go_on)
            return "old"

        n_before = 0
        assert a.get_or_compute("key", compute) == "old"
        for thread in threads:
            thread.join(30.0)
        settle(a, b)
        left = None if change == "delete" else "new"
        assert a.get("key") == left and b.get("key") == left


NAME = b"infcore:k:s:key"


def foreign(*commands):
    """As by somebody who is no cache; who sends it is told, too."""
    return lambda cache: cache._far.home.link.send(commands, names=[NAME]).result(30.0)


BEHIND = {
    "put": (lambda cache: cache.put("key", "new"), "new"),
    "delete": (lambda cache: cache.delete("key"), None),
    "tag": (lambda cache: cache.invalidate_tag("t"), None),
    "set": (foreign((b"SET", NAME, b"not ours")), None),
    "list": (foreign((b"DEL", NAME), (b"RPUSH", NAME, b"not ours")), None),
}


@pytest.mark.parametrize("change", BEHIND)
@pytest.mark.parametrize("how", ["put", "compute", "lost"])
def test_a_change_in_one_turn_of_redis_behind_what_was_written(server, how, change):
    """Redis 6.0 tells who touched a key first in a turn of its loop of nothing that others do to it in there."""
    work, left = BEHIND[change]
    with two(server) as (a, b):
        if how == "lost":  # against what is there, which a has
            a.put("key", "old", tags=["t"], version=0)
            b.put("key", "mine", tags=["t"], version=2)
            settle(a, b)
            assert a.get("key") == "mine"
        else:
            a.put("other", "mine", tags=["t"])  # the tag is there

        def write():
            if how == "put":
                with contextlib.suppress(CacheUnreachable):  # refused, where a list came first
                    a.put("key", "mine", tags=["t"])
            elif how == "compute":
                a.get_or_compute("key", compute, tags=["t"])
            else:
                with contextlib.suppress(CacheUnreachable):  # refused, where a list is in the way
                    a.put("key", "older", tags=["t"], version=1)  # or done after all, where nothing is any more

        def compute():
            stop()
            return "mine"

        def stop():
            nonlocal n_before
            server.signal(signal.SIGSTOP)
            n_before = len(a._far.home.link._sent)
            threads.append(threading.Thread(target=change_behind))
            threads[-1].start()

        def is_sent(cache, n):
            return eventually(lambda: not cache._far.home.link._orders and len(cache._far.home.link._sent) > n, "sent")

        def change_behind():
            is_sent(a, n_before)
            threads.append(threading.Thread(target=lambda: work(b)))
            threads[-1].start()
            is_sent(b, 0)
            server.signal(signal.SIGCONT)

        threads, n_before = [], 0
        if how != "compute":
            stop()
        write()
        for thread in threads:
            thread.join(30.0)
        settle(a, b)
        if how != "compute":  # Redis may read from b's connection before a's, once in many times
            with cache_at(server.url) as fresh:
                left = fresh.get("key")
        assert a.get("key") == left and b.get("key") == left


def test_a_tag_that_is_invalidated_in_the_turn_of_redis_that_opened_it(server):
    with two(server) as (a, b):
        a.put("key", "old", tags=["t"])
        name = a._far.names.of_tag("t")
        b.invalidate_tag("t")
        settle(a)
        link = a._far.home.link
        link_b = b._far.home.link
        server.signal(signal.SIGSTOP)
        opening = threading.Thread(target=lambda: a._run(a._far._write_ours([name], open_tags([name], b"m" * 8))))
        opening.start()
        eventually(lambda: not link._orders and link._sent, "sent")
        gone = link_b.send([(b"DEL", name)], writer=b._far.home.ear, names=[name])
        eventually(lambda: not link_b._orders and link_b._sent, "sent")
        a._near.marks[name] = b"m" * 8  # as who reads it in that turn, behind the one and before the other
        server.signal(signal.SIGCONT)
        opening.join(30.0)
        gone.result(30.0)
        settle(a, b)
        assert a._near.marks.get(name) in (None, server.client().get(name))


def test_what_is_written_behind_ones_own_change_stays(server):
    """Whatever Redis tells the writer of that has arrived before, however slowly it is heard."""
    with two(server) as (a, _):
        ear = a._far.home.ear
        hear = ear.on_changed

        def hear_late(link, name):
            time.sleep(0.01)
            hear(link, name)

        ear.on_changed = hear_late
        for i in range(10):
            a.delete("key")
            a.put("key", i)
            settle(a)
            assert a.peek("key") == i
            a.delete("key")
            assert a.get_or_compute("key", lambda i=i: i + 1) == i + 1
            settle(a)
            assert a.peek("key") == i + 1
            a.invalidate_tag("t")
            a.put("key", i, tags=("t",))
            settle(a)
            assert a.peek("key") == i
            a.clear()
            a.put("key", "last")
            settle(a)
            assert a.peek("key") == "last"


def test_who_has_an_old_value_in_hand_does_not_copy_it_behind_the_change(server, site, chain):
    far = chain._far
    with cache_at(elsewhere(server.url)) as other:
        other.put("key", "old")
        settle(chain, chain)
        seen, data = chain._near.seen("key"), far.home.reader.get(b"infcore:k:s:key")
        drop = far.drop_copies

        def drop_and_let_the_reader_go_on(*args):
            site.signal(signal.SIGSTOP)  # or what it says may come first, after which nobody copies
            try:
                drop(*args)
                far._copy("key", data, seen, (), None, far.levels[:1])
            finally:
                site.signal(signal.SIGCONT)

        far.drop_copies = drop_and_let_the_reader_go_on
        other.put("key", "new")
        settle(chain, chain)
        far.drop_copies = drop
        assert not site.client().exists("infcore:k:s:key") and chain.get("key") == "new"


def test_a_copy_that_is_read_before_it_goes_is_not_copied_to_stay(server, site):
    with RedisServer() as region, chained(site, region, server) as cache, cache_at(elsewhere(server.url)) as other:
        far, name = cache._far, b"infcore:k:s:key"
        cache.put("key", "old")
        settle(cache, cache)
        assert site.client().exists(name) and region.client().exists(name)
        tell, read, late = far._tell, [], []

        def read_and_tell(level, commands, name, done=lambda _: None):
            if level is far.levels[1] and not read:  # its copy goes only now, and another thread was faster
                read.append(cache._run(far.read("key", None)))
            elif not read:  # and faster than what the site says
                late.append(done)
                done = late.count
            tell(level, commands, name, done)

        far._tell = read_and_tell
        site.client().delete(name)
        other.put("key", "new")
        settle(other)
        eventually(lambda: read, "it was read")
        far._tell = tell
        for done in late:
            done(None)
        settle(cache, cache, cache)
        assert read == ["old"] and cache.get("key") == "new"
        assert not site.client().exists(name) or b"new" in site.client().get(name)
