"""Random operations of two coherent caches on one Redis, beside a dict: what is read was true since the last time that
all changes are known to have arrived; and then it is what the dict has.
"""

import pytest
from coherent_rig import settle, two
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_rig import RedisServer

from infcore.cache.far_value import NotOurs, body_of, pack, unpack, value_of

KEYS, TAGS = ["a", "b", 3], ["x", "y"]
WHO, KEY = st.integers(0, 1), st.sampled_from(KEYS)
TAGGED = st.lists(st.sampled_from(TAGS), unique=True).map(tuple)
STEP = st.one_of(
    st.tuples(st.just("put"), WHO, KEY, st.integers(0, 3), TAGGED),
    st.tuples(st.just("compute"), WHO, KEY, TAGGED),
    st.tuples(st.just("get"), WHO, KEY),
    st.tuples(st.just("get"), WHO, KEY),
    st.tuples(st.just("delete"), WHO, KEY),
    st.tuples(st.just("tag"), WHO, st.sampled_from(TAGS)),
    st.tuples(st.just("settle"), WHO),
    st.tuples(st.just("flush"), WHO),
)


class Model:
    """What Redis has: (value, version, tags) by key; and what each cache may still believe of each key."""

    def __init__(self):
        self.now, self.believed = {}, [{key: {None} for key in KEYS} for _ in range(2)]

    def value(self, key):
        return self.now.get(key, (None,))[0]

    def set(self, key, entry):
        if entry is None:
            self.now.pop(key, None)
        else:
            self.now[key] = entry
        for believed in self.believed:
            believed[key].add(self.value(key))

    def settle(self, who):
        self.believed[who] = {key: {self.value(key)} for key in KEYS}

    def end_tag(self, tag):
        for key in [key for key, (_, _, tags) in self.now.items() if tag in tags]:
            self.set(key, None)


@pytest.fixture(scope="module")
def server():
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def pair(server):
    with two(server) as caches:
        yield caches


@settings(max_examples=100)
@given(st.lists(STEP, max_size=30))
def test_nothing_is_older_than_what_was_told(server, pair, steps):
    pair[0].clear()
    settle(*pair)
    model = Model()
    for n, (what, who, *rest) in enumerate(steps):
        cache = pair[who]
        if what == "put":
            key, version, tags = rest
            wins = version >= model.now.get(key, (None, 0))[1]
            assert cache.put(key, n, version=version, tags=tags) == wins
            if wins:
                model.set(key, (n, version, tags))
                model.believed[who][key] = {n}
        elif what == "compute":
            key, tags = rest
            settle(
                cache
            )  # or a change from before, told only now, would be one that came meanwhile: it is not kept then
            model.settle(who)
            found = cache.get_or_compute(key, lambda n=n: n, tags=tags)
            if model.value(key) is None:
                model.set(key, (n, 0, tags))
                model.believed[who][key] = {n}
            assert found == model.value(key)
        elif what == "get":
            assert cache.get(rest[0]) in model.believed[who][rest[0]]
        elif what == "delete":
            was_there = cache.delete(rest[0])
            assert was_there or rest[0] not in model.now  # what a tag has ended may not have been met yet
            model.set(rest[0], None)
            model.believed[who][rest[0]] = {None}
        elif what == "tag":
            cache.invalidate_tag(rest[0])
            model.end_tag(rest[0])
        elif what == "flush":
            server.client().flushall()
            for key in KEYS:
                model.set(key, None)
        else:
            settle(cache)
            model.settle(who)
    settle(*pair)
    for cache in pair:
        assert {key: cache.get(key) for key in KEYS} == {key: model.value(key) for key in KEYS}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner),
    max_leaves=8,
)


def packed(value, **changed):
    kind, body = body_of(value, pickled=False)
    told = {"version": 7, "expires_ms": 9, "nonce": b"12345678", "cost_us": 0.5, "tags": [(b"tag", b"abcdefgh")]}
    return pack(kind, body, **told | changed)


@settings(max_examples=40)
@given(PLAIN, st.integers(0, (1 << 63) - 1))
def test_a_value_comes_back(value, version):
    found = unpack(packed(value, version=version))
    back = value_of(found, pickled=False)
    assert back == value and type(back) is type(value)
    assert (found.version, found.expires_ms, found.nonce, found.cost_us) == (version, 9, b"12345678", 0.5)
    assert list(found.tags) == [(b"tag", b"abcdefgh")]


@settings(max_examples=40)
@given(PLAIN, st.data())
def test_a_torn_value_is_refused(value, data):
    good = packed(value)
    torn = bytearray(good)
    at = data.draw(st.integers(0, len(good) - 1))
    torn[at] ^= data.draw(st.integers(1, 255))
    for bad in (bytes(torn), good[:at], good + b"\0"):
        with pytest.raises(NotOurs):
            unpack(bad)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    with pytest.raises(NotOurs):
        unpack(b"INFC\1" + data)
