"""A chain of two Redis: near, site, region. The region decides, the site holds copies for a while."""

import contextlib

import pytest
from coherent_rig import elsewhere, settle
from redis_rig import Proxy, RedisServer, eventually

import infcore
from infcore.cache import CoherentCache

COPY_TTL_S = 0.05


@pytest.fixture(scope="module")
def sites():
    with RedisServer() as one, RedisServer() as two, RedisServer() as region:
        yield one, two, region


@contextlib.contextmanager
def chain(*urls, copy_ttl_s=COPY_TTL_S):
    """A cache that trusts its site: what may be older than it is has expired there."""
    with CoherentCache(
        1 << 20, urls, policy="lru", staleness_s_max=60.0, timeout_s=10.0, copy_ttl_s=copy_ttl_s
    ) as cache:
        eventually(lambda: all(level.may_be_read for level in cache._far.levels), "all levels are read")
        yield cache


def name(key):
    return f"infcore:k:s:{key}"


def test_values_come_by_the_nearest_way(sites):
    site, _, region = sites
    for server in sites:
        server.client().flushall()
    with chain(site.url, region.url) as a, chain(elsewhere(site.url), elsewhere(region.url)) as b:
        for cache in (a, b):  # from here on, copies last
            for level in cache._far.levels:
                level.copy_ttl_s = 1000.0
        a.put("key", [1], tags=["t"])
        settle(b, b, a)  # b was told by the region, and had the site forget a copy that may be older
        assert b.get("key") == [1]
        settle(b)
        assert site.client().get(name("key")) == region.client().get(name("key")) is not None
        assert 0 < site.client().pttl(name("key")) <= 1_000_000 and region.client().pttl(name("key")) == -1
        b._near.forget_all()
        gets = calls(region, "get")
        assert b.get("key") == [1] and "key" in b
        assert calls(region, "get") == gets + 1  # of the mark of its tag; the value is at the site
        a.put("key", 2)
        settle(b, b)
        assert b.get("key") == 2
        site.client().delete(name("key"))
        b._near.forget_all()
        assert b.get("key") == 2 and eventually(lambda: site.client().get(name("key")), "it is copied again")
        b.delete("key")
        settle(b, a)
        assert a.get("key") is None and not site.client().exists(name("key"))


def calls(server, command):
    return server.client().info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]


def test_another_site_is_told(sites):
    one, two, region = sites
    with chain(one.url, region.url, copy_ttl_s=1e-3) as a, chain(two.url, elsewhere(region.url), copy_ttl_s=1e-3) as b:
        for cache in (a, b):
            for level in cache._far.levels:
                level.copy_ttl_s = 1000.0
        for i in range(20):
            a.put("key", i)
            settle(b, b)
            assert b.get("key") == i and b.get("key") == i
            settle(b)
            assert two.client().exists(name("key"))
        b.put("key", "theirs")
        settle(a, a)
        assert not one.client().exists(name("key")) and a.get("key") == "theirs"
        a.put("tagged", 1, tags=["t"])
        settle(b)
        assert b.get("tagged") == 1
        a.invalidate_tag("t")
        settle(b)
        assert b.get("tagged") is None and b._far.levels[0].reader.get(name("tagged").encode()) is not None


def test_without_the_site_the_region_is_asked(sites):
    site, _, region = sites
    proxy = Proxy(site.port)
    try:
        with chain(proxy.url, region.url) as a, chain(site.url, elsewhere(region.url)) as b:
            a.put("key", 1)
            proxy.cut()
            eventually(lambda: a.stats().levels_connected == (False, True), "the site is lost")
            assert a.stats().connected and a.get("key") == 1
            b.put("key", 2)
            settle(a)
            assert a.get("key") == 2 and a.put("key", 3)
            settle(b, b)
            assert b.get("key") == 3
            proxy.mend()
            eventually(lambda: a.stats().levels_connected == (True, True), "the site is back")
            assert not a._far.levels[0].may_be_read or a.get("key") == 3
    finally:
        proxy.close()


def test_without_the_region_nothing_is_read_that_it_could_not_take_back(sites):
    site, _, region = sites
    proxy = Proxy(region.port)
    try:
        with chain(site.url, proxy.url) as a, chain(elsewhere(site.url), region.url) as b:
            a.put("near", 1)
            b.put("far", 1)
            proxy.cut()
            eventually(lambda: not a.stats().connected, "the region is lost")
            assert a.get("near") == 1 and a.get("far") is None
            with pytest.raises(infcore.CacheUnreachable):
                a.put("near", 2)
            b.put("near", 3)
            proxy.mend()
            assert a.wait_until_connected(30.0)
            assert a.get("near") == 3 and a.get("far") == 1
    finally:
        proxy.close()
