"""Coherent caches over a real redis-server: what one puts, the other finds; what one changes, the other forgets."""

import asyncio
import subprocess
import sys
import threading

import numpy as np
import pytest
from coherent_rig import cache_at, elsewhere, settle, two
from redis_rig import RedisServer, eventually, servers

import infcore
from infcore.cache import CoherentCache


@pytest.fixture(scope="module")
def server():
    with RedisServer() as server:
        yield server


@pytest.fixture
def pair(server):
    with two(server) as caches:
        yield caches


def weak(server, *rules):
    """An address of a user with fewer rights."""
    server.client().execute_command("ACL", "SETUSER", "weak", "reset", "on", ">pw", "~*", "+@all", *rules)
    return elsewhere(server.url).replace("redis://", "redis://weak:pw@")


VALUES = [None, True, 7, 1 << 80, 0.5, "text", b"bytes", [1, (2, "x")], {"a": {"b": [None]}}, {1: 2, b"k": 3}]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_another_finds_what_was_put(pair, value):
    a, b = pair
    assert a.put("key", value)
    settle(b)
    assert b.get("key", "nothing") == value and type(b.get("key")) is type(value)
    assert "key" in a and "key" in b


def test_arrays_are_the_same_and_of_their_own(pair):
    a, b = pair
    outputs = {"x": np.arange(12, dtype=np.int16).reshape(3, 4), "y": np.float32(0.5), "z": np.array(["ab", "c"])}
    a.put(b"key", outputs)
    found = b.get(b"key")
    for name, array in outputs.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype and found[name] is not array


def test_keys_of_other_types_are_other_keys(pair):
    a, b = pair
    for key in ("1", 1, b"1", "ü", -5, "k:s:1", ""):
        a.put(key, repr(key))
    assert [b.get(key) for key in ("1", 1, b"1", "ü", -5, "k:s:1", "")] == [
        repr(key) for key in ("1", 1, b"1", "ü", -5, "k:s:1", "")
    ]
    for key in (1.0, True, None, ("a",)):
        with pytest.raises(infcore.InvalidType, match="allowed: str, int or bytes"):
            a.put(key, 1)


def test_a_hit_asks_nobody(pair):
    a, b = pair
    a.put("key", 1)
    settle(b)
    assert b.get("key") == 1
    before = b.stats().far_requests
    assert [b.get("key") for _ in range(5)] == [1] * 5
    assert b.stats().far_requests == before and b.stats().hits >= 5


def test_a_change_is_told(pair):
    a, b = pair
    a.put("key", 1)
    assert b.get("key") == 1
    a.put("key", 2)
    settle(b)
    assert b.peek("key") is None and b.get("key") == 2
    assert b.delete("key") and not b.delete("key")
    settle(a)
    assert a.get("key") is None


def test_who_writes_keeps_what_it_wrote(pair):
    """Redis does not tell the writer (NOLOOP), in spite of the script that compares versions."""
    a, _ = pair
    for i in range(20):
        a.put("key", i, tags=("t",))
    settle(a)
    assert a.peek("key") == 19 and a.stats().changes_heard == 0


@pytest.mark.parametrize("binary", servers())
def test_every_server_here_can_do_it(binary):
    with RedisServer(binary) as server, two(server) as (a, b):
        a.put("key", 1, tags=["t"], version=3, ttl_s=1000.0)
        settle(a, b)
        assert a.peek("key") == 1 and a.stats().changes_heard == 0
        assert b.get("key") == 1 and not b.put("key", 0, version=2)
        assert a.get("key") == 1
        b.put("key", 2, tags=["t"], version=4)
        settle(a)
        assert a.get("key") == 2
        a.invalidate_tag("t")
        settle(b)
        assert b.get("key") is None
        b.put("key", 3)
        assert a.get("key") == 3
        server.client().flushall()
        settle(a, b)
        assert a.get("key") is None and b.get("key") is None


def test_an_older_version_loses_everywhere(pair):
    a, b = pair
    big = (1 << 63) - 1
    assert a.put("key", "new", version=big)
    assert not b.put("key", "old", version=big - 1) and not a.put("key", "old", version=255)
    assert a.get("key") == b.get("key") == "new"
    assert b.put("key", "same", version=big) and b.get("key") == "same"
    settle(a)
    assert a.get("key") == "same"
    for low, high in ((1, 2), (255, 256), (2**32 - 1, 2**32), (2**53, 2**53 + 1)):
        b.delete("v")
        assert a.put("v", high, version=high) and not b.put("v", low, version=low)


def test_a_version_that_a_tag_ended_does_not_stand_in_the_way(pair):
    a, b = pair
    a.put("key", "new", version=9, tags=["t"])
    b.invalidate_tag("t")
    assert b.put("key", "old", version=1) and b.get("key") == "old"


def test_a_tag_ends_what_bears_it(pair):
    a, b = pair
    a.put("x", 1, tags=["one", "two"])
    b.put("y", 2, tags=["two"])
    a.put("z", 3)
    assert [b.get(key) for key in "xyz"] == [a.get(key) for key in "xyz"] == [1, 2, 3]
    assert a.invalidate_tag("one") == 1
    settle(b)
    assert [a.get(key) for key in "xyz"] == [b.get(key) for key in "xyz"] == [None, 2, 3]
    b.invalidate_tag("two")
    settle(a)
    assert [a.get(key) for key in "xyz"] == [b.get(key) for key in "xyz"] == [None, None, 3]
    a.put("x", 4, tags=["one", "two"])
    assert b.get("x") == 4


def test_a_tag_that_redis_evicted_ends_what_bears_it(pair, server):
    a, b = pair
    a.put("x", 1, tags=["t"])
    server.client().delete("infcore:t:t")
    settle(a, b)
    assert b.get("x") is None
    a.put("y", 1, tags=["t"])
    assert b.get("x") is None and b.get("y") == 1


class Held:
    """A value whose unpickling waits: between its being read from Redis and its being kept."""

    reached, go_on = threading.Event(), threading.Event()

    def __init__(self, number):
        self.number = number

    def __setstate__(self, state):
        Held.reached.set()
        assert Held.go_on.wait(30.0)
        self.__dict__.update(state)


@pytest.mark.parametrize("change", ["put", "delete", "tag", "own put", "flush"])
def test_what_was_read_before_a_change_is_not_kept_after_it(server, change):
    Held.reached.clear()
    Held.go_on.clear()
    with two(server, pickle=True) as (a, b):
        a.put("key", Held(1), tags=["t"])
        settle(b)
        found = []
        reader = threading.Thread(target=lambda: found.append(b.get("key")))
        reader.start()
        assert Held.reached.wait(30.0)
        {
            "put": lambda: a.put("key", 2),
            "delete": lambda: a.delete("key"),
            "tag": lambda: a.invalidate_tag("t"),
            "own put": lambda: b.put("key", 2),
            "flush": lambda: server.client().flushall(),
        }[change]()
        settle(b)
        Held.go_on.set()
        reader.join(30.0)
        assert found[0].number == 1 and b.stats().outdated == 1
        assert b.get("key") == (2 if "put" in change else None)


def test_pickles_only_where_asked_for(server):
    with two(server) as (a, b):
        with pytest.raises(infcore.InvalidType, match=r"allowed: None.*pickle=True"):
            a.put("key", {1, 2})
        with cache_at(server.url, pickle=True) as c:
            c.put("key", {1, 2})
            assert c.get("key") == {1, 2}
            with pytest.raises(infcore.InvalidType, match=r"value is function, which cannot be pickled: .*lambda"):
                c.put("other", lambda: 1)
        settle(a, b)
        assert b.get("key") is None and b.stats().refused_values == 1


def test_what_is_torn_or_foreign_is_refused(pair, server):
    a, b = pair
    client = server.client()
    a.put("key", b"some bytes", tags=["t"])
    good = client.get("infcore:k:s:key")
    for bad in (
        b"",
        b"INFC",
        good[:-1],
        good + b"x",
        b"x" + good[1:],
        good[:60] + b"?" + good[61:],
        good[:4] + b"\2" + good[5:],
    ):
        client.set("infcore:k:s:key", bad)
        settle(b)
        before = b.stats().refused_values
        assert b.get("key") is None and b.stats().refused_values == before + 1
    client.delete("infcore:k:s:key")
    client.rpush("infcore:k:s:key", "a list")
    assert b.get("key") is None
    with pytest.raises(infcore.CacheUnreachable, match=r"refused it: .*WRONGTYPE"):
        b.put("key", 1)
    client.set("infcore:k:s:key", good)
    settle(a, b)
    assert b.get("key") == a.get("key") == b"some bytes"


def test_time_to_live(server):
    clock = infcore.ManualClock()
    with two(server, clock=clock) as (a, b):
        a.put("key", 1, ttl_s=1000.0)
        assert b.get("key") == 1 and 990_000 < server.client().pttl("infcore:k:s:key") <= 1_000_000
        clock.advance(1001.0)
        assert a.peek("key") is None and b.peek("key") is None and b.get("key") == 1  # Redis has a clock of its own
        a.put("short", 1, ttl_s=0.05)
        eventually(lambda: b.get("short") is None and a.get("short") is None, "it expires in Redis, which tells")


@pytest.mark.parametrize("ttl_s", [1e16, 1e20, 1e308])
def test_any_time_to_live_that_a_plain_cache_takes(pair, server, ttl_s):
    a, b = pair
    assert a.put("key", 1, ttl_s=ttl_s) and b.get("key") == 1
    assert server.client().pttl("infcore:k:s:key") > 1e15


def test_a_tag_whose_mark_is_torn_gets_another(pair, server):
    a, b = pair
    for torn in (b"", b"a", b"0123456789"):
        server.client().set("infcore:t:t", torn)
        settle(a, b)
        assert a.put("key", torn, tags=["t"]) and b.get("key") == torn


def test_what_is_near_grows_too_old(server):
    clock = infcore.ManualClock()
    with two(server, clock=clock, near_ttl_s=8.0, staleness_s_max=1e9) as (a, b):
        a.put("key", 1)
        assert b.get("key") == 1
        for _ in range(6):
            clock.advance(1.0)
        clock.advance(2.5)
        eventually(lambda: "key" not in b and "key" not in a, "older than near_ttl_s")
        assert b.get("key") == 1 and "\0" not in repr(b.stats())


def test_caches_of_one_process_share_the_connection(server):
    with two(server) as (a, _), cache_at(server.url) as c, cache_at(server.url, namespace="other") as d:
        clients = [client for client in server.client().client_list() if "t" in client["flags"]]
        assert len(clients) == 2  # of the address of a, c, d, and of the other one
        a.put("key", 1)
        assert c.get("key") == 1 and d.get("key") is None
        c.put("key", 2)
        settle(a)
        assert a.get("key") == 2 and c.get("key") == 2
        d.put("key", 3)
        settle(a, c, d)
        assert (a.get("key"), d.get("key")) == (2, 3)
        c.invalidate_tag("t")
        a.clear()
        settle(c)
        assert c.get("key") is None and d.get("key") == 3


def test_two_processes(server):
    program = f"""
import sys
sys.path.insert(0, "tests")
from coherent_rig import cache_at
with cache_at({server.url!r}) as cache:
    for line in sys.stdin:
        cache.put("key", int(line))
        print(cache.get("key"), flush=True)
"""
    with two(server) as (a, b):
        child = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for i in range(5):
            child.stdin.write(f"{i}\n")
            child.stdin.flush()
            assert child.stdout.readline() == f"{i}\n"
            settle(a, b)
            assert a.get("key") == b.get("key") == i
        child.communicate()


def test_arguments(server):
    for wrong, error, text in (
        ({"redis": "http://x"}, infcore.InvalidArgument, r"redis\[0\] is 'http://x'"),
        ({"redis": []}, infcore.InvalidArgument, "redis is"),
        ({"redis": [server.url] * 2}, infcore.InvalidArgument, "several different ones"),
        ({"redis": 5}, infcore.InvalidType, r"redis\[0\] is int"),
        ({"namespace": "a:b"}, infcore.InvalidArgument, "namespace is 'a:b'"),
        ({"on_down": "wait"}, infcore.InvalidArgument, "on_down is 'wait'"),
        ({"staleness_s_max": 0}, infcore.InvalidArgument, "staleness_s_max is 0"),
        ({"ttl_s": float("nan")}, infcore.InvalidArgument, "ttl_s is nan"),
        ({"pickle": 1}, infcore.InvalidType, "pickle is int"),
        ({"policy": "none"}, infcore.InfcoreError, "none"),
    ):
        with pytest.raises(error, match=text):
            CoherentCache(1, **{"redis": server.url, "policy": "lru"} | wrong)
    with cache_at(server.url) as cache:
        for wrong, text in (
            ({"version": -1}, "version is -1"),
            ({"ttl_s": 0}, "ttl_s is 0"),
            ({"cost_us": -1.0}, "cost_us"),
            ({"tags": ["\0x"]}, "a tag is"),
            ({"tags": map(str, range(1 << 16))}, "tags has 65536; allowed: at most 65535"),
        ):
            with pytest.raises(infcore.InvalidArgument, match=text):
                cache.put("key", 1, **wrong)
        with pytest.raises(infcore.InvalidArgument, match="key is an int of 16610 bits"):
            cache.put(10**5000, 1)
        with pytest.raises(infcore.InvalidType, match="tags is str"):
            cache.put("key", 1, tags="t")
    with pytest.raises(infcore.CacheUnreachable):
        cache.put("key", 1)
    assert cache.get("key") is None


@pytest.mark.parametrize("on_down", ["raise", "local"])
def test_what_is_closed_stays_closed_where_others_share_the_connection(server, on_down):
    async def on_a_loop(cache):
        assert await cache.aget("key", 5) == 5
        for start in (
            lambda: cache.aput("key", 2),
            lambda: cache.adelete("key"),
            lambda: cache.ainvalidate_tag("t"),
            lambda: cache.aget_or_compute("key", lambda: 2),
        ):
            with pytest.raises(infcore.CacheUnreachable, match="is closed"):
                await start()

    with cache_at(server.url) as other:
        cache = cache_at(server.url, on_down=on_down)
        cache.put("key", 1, tags=["t"])
        cache.close()
        assert cache.get("key", 5) == 5
        for call in (
            lambda: cache.put("key", 2),
            lambda: cache.delete("key"),
            lambda: cache.invalidate_tag("t"),
            lambda: cache.clear(),
            lambda: cache.get_or_compute("key", lambda: 2),
            lambda: cache.wait_until_connected(0.0),
        ):
            with pytest.raises(infcore.CacheUnreachable, match="is closed"):
                call()
        asyncio.run(on_a_loop(cache))
        assert cache.get("key") is None and other.get("key") == 1 and other.stats().connected
        cache.close()
        assert cache.stats().kept_alone == 0 and other.put("key", 3)


def test_what_is_computed_as_it_is_closed_is_not_kept(server):
    cache = cache_at(server.url)

    def compute():
        cache.close()
        return "made"

    assert cache.get_or_compute("of its own", compute) == "made" and cache.get("of its own") is None


def test_it_says_which_extra_it_needs():
    program = """
import sys
import infcore, infcore.cache
assert "redis" not in sys.modules
sys.modules["redis"] = None
try:
    infcore.cache.CoherentCache(1, "redis://x")
except infcore.MissingExtra as e:
    print(e)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == (
        "a coherent cache needs the package 'redis': pip install 'infcore[redis]'\n",
        "",
    )


@pytest.mark.parametrize(
    "url, place",
    [
        ("redis://user:S3cret@127.0.0.1:1/0", "redis://127.0.0.1:1/0"),
        ("redis://:S3cret@127.0.0.1:1", "redis://127.0.0.1:1"),
        ("redis://127.0.0.1:1/0?password=S3cret", "redis://127.0.0.1:1/0"),
        ("redis://127.0.0.1:1/0?password=S3@cret", "redis://..."),
        ("unix://user:S3cret@/no/such/place", "unix:///no/such/place"),
        ("redis://user:S3?cret@127.0.0.1:1/0", "redis://..."),
        ("http://user:S3cret@127.0.0.1:1/0", "http://127.0.0.1:1/0"),
        ("user:S3cret@127.0.0.1:1", "127.0.0.1:1"),
    ],
)
def test_no_error_tells_the_password(url, place):
    with pytest.raises(infcore.InfcoreError) as raised, CoherentCache(1, url, policy="lru") as cache:
        cache.put("key", 1)
    assert place in str(raised.value) and "S3" not in str(raised.value) and "cret" not in str(raised.value)
    with pytest.raises(infcore.InvalidArgument) as raised:
        CoherentCache(1, [url, url], policy="lru")
    assert place in str(raised.value) and "S3" not in str(raised.value) and "cret" not in str(raised.value)


def test_a_server_that_it_cannot_use_is_named(server):
    with CoherentCache(1, weak(server, "-client"), policy="lru") as cache:
        why = eventually(lambda: cache._far.home.link.refusal, "it was refused")
        assert "no permissions" in why and not cache.stats().connected
        with pytest.raises(infcore.CacheUnreachable, match="no permissions"):
            cache.put("key", 1)


def test_who_is_refused_to_be_told_is_not_trusted_and_who_was_there_knows(server):
    url = weak(server)
    with cache_at(url, namespace="one") as one:
        weak(server, "-client")
        with CoherentCache(1 << 20, url, namespace="two", policy="lru", staleness_s_max=60.0, timeout_s=10.0) as two_:
            why = eventually(lambda: two_._far.home.link.refusal, "it was refused")
            assert "no permissions" in why and not two_.stats().connected
            eventually(lambda: not one.stats().connected, "they share the connection")
            with pytest.raises(infcore.CacheUnreachable, match="no permissions"):
                two_.put("key", 1)
            weak(server)
            assert two_.wait_until_connected(30.0) and one.wait_until_connected(30.0)
            with cache_at(server.url, namespace="two") as other:
                two_.put("key", "old")
                other.put("key", "new")
                settle(two_)
                assert two_.get("key") == "new"


def test_who_may_not_look_for_all_names_is_told_so(server):
    with CoherentCache(1, weak(server, "-scan"), policy="lru", timeout_s=10.0) as cache:
        assert cache.wait_until_connected(30.0)
        with pytest.raises(infcore.CacheUnreachable, match=r"refused it: .*no permissions"):
            cache.clear()


def test_each_namespace_is_followed_once_on_a_connection(server):
    client = server.client()

    def n_asked():
        stats = client.info("commandstats")
        return sum(of["calls"] for name, of in stats.items() if name.startswith("cmdstat_client"))

    with cache_at(server.url) as a:
        before = n_asked()
        with cache_at(server.url) as b, cache_at(server.url, namespace="other"):
            assert n_asked() == before + 1 and a._far.home.link is b._far.home.link
