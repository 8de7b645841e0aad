"""Coherent caches whose Redis dies, hangs, forgets everything or cannot be reached: nothing stale beyond the bound."""

import gc
import os
import signal
import subprocess
import sys
import threading

import pytest
from coherent_rig import cache_at, settle, two
from redis_rig import Proxy, RedisServer, eventually

import infcore
from infcore.cache import CoherentCache
from infcore.cache.redis_client import Reader, redis_errors

BOUND_S = 100.0  # by a clock that only the test turns


@pytest.fixture
def server():
    with RedisServer() as server:
        yield server


@pytest.fixture
def proxy(server):
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


def is_down(cache):
    return not cache.stats().connected


def test_what_is_near_is_served_up_to_the_bound_and_no_longer(server):
    clock = infcore.ManualClock()
    with cache_at(server.url, clock=clock, staleness_s_max=BOUND_S) as cache:
        cache.put("key", 1)
        server.kill()
        eventually(lambda: is_down(cache), "it notices")
        clock.advance(BOUND_S - 1.0)
        assert cache.get("key") == 1 and cache.get("other", 7) == 7
        stats = cache.stats()
        assert BOUND_S - 1.0 <= stats.staleness_s <= BOUND_S and not stats.connected
        assert stats.levels_connected == (False,) and stats.unreachable >= 1
        clock.advance(2.0)
        eventually(lambda: cache.get("key") is None, "it is not served any more")
        assert cache.stats().staleness_s > BOUND_S


def test_a_restart_is_survived_and_what_was_near_is_forgotten(server):
    with cache_at(server.url) as cache:
        cache.put("key", 1)
        server.kill()
        eventually(lambda: is_down(cache), "it notices")
        for write in (lambda: cache.put("key", 2), lambda: cache.delete("key"), lambda: cache.invalidate_tag("t")):
            with pytest.raises(infcore.CacheUnreachable, match="is not connected"):
                write()
        server.start()
        assert cache.wait_until_connected(30.0)
        assert cache.get("key") is None  # the new Redis is empty
        assert cache.put("key", 3) and cache.get("key") == 3 and cache.stats().staleness_s < 30.0


def test_writes_stay_local_where_asked_for(server):
    clock = infcore.ManualClock()
    with cache_at(server.url, clock=clock, staleness_s_max=BOUND_S, on_down="local") as cache:
        server.kill()
        eventually(lambda: is_down(cache), "it notices")
        assert cache.put("key", 1) and cache.get("key") == 1 and cache.stats().kept_alone == 1
        with pytest.raises(infcore.CacheUnreachable):
            cache.delete("key")  # others could not be told
        clock.advance(BOUND_S + 1.0)
        eventually(lambda: cache.get("key") is None, "the bound is for it, too")
        assert cache.put("key", 2)
        server.start()
        assert cache.wait_until_connected(30.0)
        assert cache.get("key") is None


def test_without_redis_it_computes(server):
    with cache_at(server.url) as cache:
        server.kill()
        eventually(lambda: is_down(cache), "it notices")
        assert cache.get_or_compute("key", lambda: "made", tags=["t"]) == "made"
        assert cache.get_or_compute("key", lambda: pytest.fail("it is kept for a while"), tags=["t"]) == "made"
        server.start()
        assert cache.wait_until_connected(30.0)
        assert cache.get("key") is None


def test_a_connection_that_is_cut_misses_changes_and_forgets(server, proxy):
    clock = infcore.ManualClock()
    with cache_at(proxy.url, clock=clock, staleness_s_max=BOUND_S) as cut, cache_at(server.url) as other:
        cut.put("key", 1)
        proxy.cut()
        eventually(lambda: is_down(cut), "it notices")
        other.put("key", 2)
        assert cut.get("key") == 1  # within the bound
        proxy.mend()
        assert cut.wait_until_connected(30.0)
        assert cut.get("key") == 2


def test_a_connection_that_is_silent_is_given_up(server, proxy):
    clock = infcore.ManualClock()
    with cache_at(proxy.url, clock=clock, staleness_s_max=0.02, timeout_s=0.3) as held, cache_at(server.url) as other:
        held.put("key", 1)
        proxy.hold()
        other.put("key", 2)
        with pytest.raises(infcore.CacheUnreachable):
            held.put("other", 1)
        eventually(lambda: is_down(held), "no heartbeat comes back")
        clock.advance(0.1)
        eventually(lambda: held.get("key") is None, "beyond the bound")
        proxy.let_go()
        eventually(lambda: held.get("key") == 2, "it is connected again")


def test_the_bound_holds_while_the_connection_looks_alive(server):
    """The server is stopped: the connection stands, nothing is confirmed."""
    clock = infcore.ManualClock()
    with cache_at(server.url, clock=clock, staleness_s_max=0.1, timeout_s=10.0) as cache:
        cache.put("key", 1)
        server.signal(signal.SIGSTOP)
        try:
            clock.advance(2 * BOUND_S)
            eventually(lambda: cache.peek("key") is None, "nothing was confirmed for longer than the bound")
        finally:
            server.signal(signal.SIGCONT)
        eventually(lambda: cache.stats().connected, "it is confirmed again")
        assert cache.get("key") == 1


def test_what_is_deleted_goes_also_where_memory_is_full(server):
    with two(server) as (a, b):
        a.put("key", 1)
        assert b.get("key") == 1
        server.client().config_set("maxmemory", 1)
        for _ in range(2):
            with pytest.raises(infcore.CacheUnreachable, match="refused it"):
                a.put("other", 1)
        assert b.delete("key") and not b.delete("key") and b.get("key") is None
        settle(a)
        assert a.get("key") is None and server.client().keys("infcore:*") == []
        a.clear()


def test_a_reader_waits_once_however_many_connections_are_silent(server, proxy):
    reader = Reader(proxy.url, 1.0, {})
    for _ in range(3):
        connection = reader._make()
        connection.connect()
        reader._free.append(connection)
    proxy.hold()
    with pytest.raises(redis_errors(), match=r"[Tt]ime"):
        reader.get(b"key")
    assert len(reader._free) == 2
    proxy.let_go()
    assert reader.get(b"key") is None
    proxy.cut()
    proxy.mend()
    assert reader.get(b"key") is None  # over a new one: those that are closed are known at once
    reader.close()


def test_flushall_and_killed_clients_are_noticed(server):
    with two(server) as (a, b):
        a.put("key", 1)
        assert b.get("key") == 1
        server.client().flushall()
        settle(a, b)
        assert a.get("key") is None and b.get("key") is None
        a.put("key", 2)
        n = b._far.home.link.n_connects
        for client in server.client().client_list():
            if "t" in client["flags"]:
                server.client().client_kill_filter(_id=client["id"])
        eventually(lambda: b._far.home.link.n_connects > n and b.stats().connected and a.stats().connected, "both back")
        assert b.get("key") == 2 and a.get("key") == 2


def test_in_mid_traffic(server):
    """Threads of two caches put, read, compute and invalidate while Redis is killed, restarted and flushed."""
    stop, wrong, n = threading.Event(), [], [0] * 6
    with two(server, timeout_s=5.0) as (a, b):

        def work(index, cache):
            i = 0
            while not stop.is_set():
                i += 1
                key, at = f"k{i % 5}", n[index]
                try:
                    if i % 3 == 0:
                        cache.put(key, (index, i), tags=["t"])
                    elif i % 7 == 0:
                        cache.delete(key)
                    elif i % 11 == 0:
                        cache.invalidate_tag("t")
                    else:
                        found = cache.get_or_compute(key, lambda made=(index, i): made, tags=["t"])
                        assert isinstance(found, tuple)
                except infcore.CacheUnreachable:
                    pass
                except BaseException as error:
                    wrong.append(error)
                    raise
                n[index] = at + 1

        threads = [threading.Thread(target=work, args=(i, (a, b)[i % 2])) for i in range(6)]
        for thread in threads:
            thread.start()

        def more(of):
            return eventually(lambda: all(now > was + 30 for now, was in zip(n, of, strict=True)), "all go on")

        more(list(n))
        for _ in range(2):
            server.kill()
            more(list(n))
            server.start()
            assert a.wait_until_connected(30.0) and b.wait_until_connected(30.0)
            more(list(n))
            server.client().flushall()
            more(list(n))
        stop.set()
        for thread in threads:
            thread.join(30.0)
        assert wrong == [] and not any(thread.is_alive() for thread in threads)
        assert a.wait_until_connected(30.0) and b.wait_until_connected(30.0)
        settle(a, b)
        with cache_at(server.url, namespace="infcore", redis_options={"client_name": "fresh"}) as fresh:
            for i in range(5):
                assert a.get(f"k{i}") == b.get(f"k{i}") == fresh.get(f"k{i}")


def test_a_reader_never_goes_back(server):
    """Another process counts up; here it never counts down, and ends where that one does."""
    program = f"""
import sys
sys.path.insert(0, "tests")
from coherent_rig import cache_at
with cache_at({server.url!r}) as cache:
    for i in range(1, 301):
        cache.put("key", i, version=i)
"""
    with cache_at(server.url) as cache:
        child = subprocess.Popen([sys.executable, "-c", program])
        seen = [0]
        eventually(lambda: seen.append(cache.get("key", 0)) or seen[-1] == 300, "the last one is seen")
        assert child.wait(30.0) == 0 and seen == sorted(seen)


def test_a_forked_child_has_connections_of_its_own(server):
    program = f"""
import os, sys
sys.path.insert(0, "tests")
from coherent_rig import cache_at, settle
with cache_at({server.url!r}) as cache:
    cache.put("key", 1)
    child = os.fork()
    if child == 0:
        assert "key" not in cache and cache.get("key") == 1, "asked anew"
        assert cache.wait_until_connected(30.0) and cache.put("key", 2) and cache.get("key") == 2
        cache.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    settle(cache)
    assert cache.get("key") == 2 and cache.stats().flushes == 1
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, cwd=os.getcwd(), timeout=60
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_threads_of_a_forked_child_connect_once(server):
    program = f"""
import os, sys, threading
sys.path.insert(0, "tests")
from coherent_rig import cache_at
from infcore.cache import coherent
with cache_at({server.url!r}) as cache:
    cache.put("key", 1)
    child = os.fork()
    if child == 0:
        found, shared = [], coherent.shared
        other = threading.Thread(target=lambda: found.append(cache.get("key")))

        def shared_while_another_asks(*args):
            other.start()
            other.join(0.2)  # it waits until there is something to ask
            return shared(*args)

        coherent.shared = shared_while_another_asks
        assert cache.get("key") == 1
        other.join()
        print(found, cache._far.home.link.n_users, flush=True)
        cache.close()
        os._exit(0)
    os.waitpid(child, 0)
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("[1] 1\n", "")


def test_what_was_invalidated_stays_so_when_forked_children_open_its_tag_anew(server):
    """All of them were loaded once, and count their writes from there."""
    program = f"""
import os, sys
sys.path.insert(0, "tests")
from coherent_rig import cache_at, settle
with cache_at({server.url!r}) as cache:
    for at in range(4):
        child = os.fork()
        if child == 0:
            assert cache.wait_until_connected(30.0) and cache.put(at, "old", tags=["t"])
            assert all(cache.get(of) is None for of in range(at)), "dead, whoever opened the tag again"
            print(cache._far.home.reader.get(b"infcore:t:t").hex(), flush=True)
            cache.invalidate_tag("t")
            cache.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    cache.put(4, "old", tags=["t"])
    settle(cache)
    assert [cache.get(of) for of in range(5)] == [None] * 4 + ["old"]
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "") and len(set(run.stdout.split())) == 4


def test_a_destructor_where_changes_are_heard_may_not_wait_for_them(server):
    said = []

    class Value:
        def __del__(self):
            said.append(a.get("other"))
            for call in (lambda: a.put("other", 2), lambda: a.get_or_compute("third", lambda: 3)):
                with pytest.raises(infcore.CacheUnreachable, match="a destructor on the thread that hears of changes"):
                    call()
            said.append("refused")

    with two(server, pickle=True) as (a, b):
        a.put("other", 1)
        assert a._near.keep("key", Value(), a._near.seen("key"), tags=(), version=0)
        b.put("key", 1)
        settle(a)
        assert said == [1, "refused"] and a.get("key") == 1 and a.put("other", 3) and a.stats().flushes == 1


def test_no_thread_hears_of_changes_any_more_when_the_interpreter_ends(server):
    program = f"""
import atexit, sys, threading
atexit.register(lambda: print([each.name for each in threading.enumerate() if each.name == "infcore-redis"]))
sys.path.insert(0, "tests")
from coherent_rig import cache_at
cache = cache_at({server.url!r})
print(cache.put("key", 1))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("True\n[]\n", "")


def test_the_garbage_collector_may_run_wherever_it_likes(server):
    """It lets go of caches that nobody closed, and of what uses one in its destructor, from within our own steps."""
    program = f"""
import collections, faulthandler, gc, sys, threading
sys.path.insert(0, "tests")
from coherent_rig import cache_at, elsewhere, settle
from infcore.cache import redis_link
faulthandler.dump_traceback_later(50.0, exit=True)
gc.disable()

class Holder:
    def __init__(self, cache):
        self.cache, self.itself = cache, self

class Late:
    def __init__(self, notes):
        self.notes, self.itself = notes, self

    def __del__(self):
        assert cache.put(self.notes, "late")

class Collecting(collections.deque):
    def append(self, *args):
        super().append(*args)
        if threading.current_thread() is threading.main_thread():
            gc.collect()

def collecting(self, *args):
    made(self, *args)
    gc.collect()

made, redis_link.Link.__init__ = redis_link.Link.__init__, collecting
url = {server.url!r}
Holder(cache_at(url))
with cache_at(elsewhere(url)) as cache:
    for notes in ("_orders", "_coming"):
        setattr(cache._far.home.link, notes, Collecting())
        Holder(cache_at(elsewhere(url)))
        Late(notes)
        assert cache.put("key", notes)
        cache_at(elsewhere(url), namespace="of_its_own").close()
        settle(cache)
        assert cache.get("key") == notes and cache.get(notes) == "late" and cache.stats().connected
print("done")
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("done\n", "")


def test_nothing_is_left_behind(server):
    def held():
        gc.collect()
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    cache_at(server.url).close()
    eventually(lambda: not any(each.name.startswith("infcore") for each in threading.enumerate()), "they end")
    before = held()
    for i in range(5):
        cache = cache_at(server.url)
        cache.put("key", i)
        cache.delete("other")
        if i % 2:
            cache.close()
        del cache  # also without close()
    eventually(lambda: held() <= before, "threads and files are let go")
    unreachable = CoherentCache(1, "redis://127.0.0.1:1", policy="lru")
    with pytest.raises(infcore.CacheUnreachable):
        unreachable.put("key", 1)
    unreachable.close()
    eventually(lambda: held() <= before, "threads and files are let go")
