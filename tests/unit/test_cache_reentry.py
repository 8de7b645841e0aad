"""Code of others that runs inside calls of infcore.Cache, and comes back to it: destructors, __eq__, __hash__, the
garbage collector's. Each test runs on a thread that has to end: a lock that is still held would be waited for."""

import gc
import threading

import pytest

import infcore
from infcore.cache import policies

ENDS_WITHIN_S = 30.0
absent = object()


def ends(run):
    """Runs it on a thread; raises what it raised."""
    said = []

    def guarded():
        try:
            said.append((run(), None))
        except BaseException as error:
            said.append((None, error))

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(ENDS_WITHIN_S)
    assert said, "it does not end"
    if said[0][1] is not None:
        raise said[0][1]
    return said[0][0]


def is_usable(cache):
    """Its locks are free, for this thread and others."""
    cache.put("is usable", 1, size_bytes=1)
    return ends(lambda: cache.get("is usable")) == 1


class CallsBack:
    """A value whose end does something with the cache."""

    def __init__(self, cache, do):
        self.cache, self.do = cache, do

    def __del__(self):
        self.do(self.cache)


@pytest.fixture
def cache():
    return infcore.Cache(100, policy="lru", clock=infcore.ManualClock())


@pytest.mark.parametrize(
    "do",
    [
        lambda cache: cache.get("other"),
        lambda cache: cache.put("other", 1, size_bytes=50),
        lambda cache: cache.delete("other"),
        lambda cache: cache.clear(),
        lambda cache: cache.entries(),
        lambda cache: cache.pin("other"),
        lambda cache: cache.invalidate_older(0),
        lambda cache: cache.invalidate_tag("red"),
        lambda cache: cache.get_or_compute("other", lambda: 1, size_bytes=1),
        lambda cache: len(cache),
        lambda cache: cache.stats(),
    ],
)
def test_destructors_that_come_back(cache, do):
    calls = []

    def told(cache):
        do(cache)
        calls.append(1)

    def run():
        for key in range(40):
            cache.put(key, CallsBack(cache, told), size_bytes=25)
        cache.put(39, "new")  # replaced
        cache.put("value", CallsBack(cache, told), size_bytes=25)
        cache.delete("value")
        cache.put(CallsBack(cache, told), "key", size_bytes=25)
        cache.clear()
        cache.put("last", CallsBack(cache, told), size_bytes=25, ttl_s=0.0)
        cache.get("last")
        cache.clear()

    ends(run)
    gc.collect()
    assert len(calls) == 43
    assert is_usable(cache)


@pytest.mark.parametrize("shards", [1, 8])
def test_destructors_that_wait_for_other_threads(shards):
    """Of what a computation pushes out, replaces, or goes for it: no lock is held that the other thread may want."""
    cache, ended = infcore.Cache(100 * shards, policy="lru", shards=shards, clock=infcore.ManualClock()), []

    def on_another_thread(cache):
        thread = threading.Thread(target=lambda: ended.append(cache.get_or_compute("other", lambda: 1, size_bytes=1)))
        thread.daemon = True
        thread.start()
        thread.join(ENDS_WITHIN_S)

    def victim(key):
        ended.clear()
        cache.put(key, CallsBack(cache, on_another_thread), size_bytes=90)

    at = cache.place_of("computed")
    near = next(key for key in range(1000) if cache.place_of(key) == at)
    far = next((key for key in range(1000) if cache.place_of(key) != at), near)
    told = {"size_bytes": 50, "version": 1}

    def replaced():
        victim("computed")
        return "computed"

    victim(near)
    ends(lambda: cache.get_or_compute("computed", lambda: 1, **told))
    assert ended == [1] and "computed" in cache
    cache.clear()
    ends(lambda: cache.get_or_compute("computed", replaced, **told))
    assert ended == [1] and "computed" in cache
    for key in {near, far}:
        cache.clear()
        victim(key)
        assert ends(lambda key=key: cache.compute_ahead("computed", lambda: 1, instead_of=[key], **told))
        assert ended == [1]


def test_destructors_that_put_what_they_destroy(cache):
    """One that comes back to life in the cache, some times over."""
    n_left = [50]

    class Phoenix:
        def __del__(self):
            if n_left[0]:
                n_left[0] -= 1
                cache.put("phoenix", Phoenix(), size_bytes=60)

    def run():
        cache.put("phoenix", Phoenix(), size_bytes=60)
        cache.put("other", 1, size_bytes=60)
        cache.clear()

    ends(run)
    assert is_usable(cache)
    assert cache.stats().bytes_used <= 100


@pytest.mark.parametrize("call", ["put", "entries", "get_or_compute", "stale", "delete", "clear"])
def test_the_collector_may_run_at_any_time(cache, call):
    """Cyclic garbage whose destructors use the cache, and a collector that runs as often as it can."""
    calls = []

    def use(cache):
        calls.append(1)
        cache.get(1)
        cache.put("by the collector", 1, size_bytes=1)

    def run():
        for at in range(300):
            junk = CallsBack(cache, use)
            junk.itself = junk
            del junk
            cache.put(at % 20, at, size_bytes=9, tags=("red", "blue"), version=at)
            if call == "entries":
                cache.entries()
            elif call == "put":
                cache.put((at, "tuple"), [at], size_bytes=3)
            elif call == "get_or_compute":
                cache.get_or_compute((at % 7,), lambda: [1], size_bytes=3)
            elif call == "clear":
                cache.clear()
            else:
                getattr(cache, call)((at % 7,))

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        ends(run)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert len(calls) == 300
    assert is_usable(cache)


class Key:
    """Equal to others of its number; __eq__ does something first."""

    def __init__(self, number, do=lambda: None):
        self.number, self.do = number, do

    def __hash__(self):
        return 12345678901  # all alike, and no small int

    def __eq__(self, other):
        self.do()
        return isinstance(other, Key) and self.number == other.number


CALLS = [
    lambda cache, key: cache.get(key),
    lambda cache, key: cache.peek(key),
    lambda cache, key: key in cache,
    lambda cache, key: cache.put(key, 1, size_bytes=1),
    lambda cache, key: cache.delete(key),
    lambda cache, key: cache.pin(key),
    lambda cache, key: cache.unpin(key),
    lambda cache, key: cache.get_or_compute(key, lambda: 1, size_bytes=1),
]


@pytest.mark.parametrize("call", CALLS)
def test_an_eq_that_raises_leaves_no_lock_held(cache, call):
    def fail():
        raise ZeroDivisionError

    first = Key(1, fail)
    cache.put(first, "one", size_bytes=1)
    with pytest.raises(ZeroDivisionError):
        ends(lambda: call(cache, Key(2)))
    assert is_usable(cache)
    first.do = lambda: None
    assert cache.get(Key(1)) == "one"


def test_a_key_put_anew_behind_another_while_it_is_compared_stays_one(cache):
    first, stranger = Key(1), Key(2)
    cache.put(first, "old", size_bytes=1)

    def meddle():
        first.do = lambda: None
        cache.delete(first)
        cache.put(stranger, "another", size_bytes=1)
        cache.put(first, "old", size_bytes=1)

    first.do = meddle
    cache.put(Key(1), "new", size_bytes=1)
    assert sorted(value for _, value, _ in cache.entries()) == ["another", "new"]
    assert cache.delete(Key(1)) and cache.get(Key(1)) is None


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "do",
    [
        lambda cache: cache.put("another", 1, size_bytes=1),
        lambda cache: cache.put(len(cache), 1, size_bytes=1),  # the table grows under the search
        lambda cache: cache.clear(),
        lambda cache: cache.get("another"),
        lambda cache: cache.entries(),
    ],
)
def test_an_eq_that_changes_the_cache(cache, call, do):
    n_compared = [0]

    def back():
        n_compared[0] += 1
        do(cache)

    keys = [Key(number) for number in range(3)]
    for key in keys:
        cache.put(key, key.number, size_bytes=1)
    for key in keys:
        key.do = back
    ends(lambda: call(cache, Key(9)))
    ends(lambda: call(cache, Key(1)))
    assert 1 <= n_compared[0] <= 50  # each is asked a few times, not again and again
    for key in keys:
        key.do = lambda: None
    assert is_usable(cache)


def test_a_key_that_replaces_the_one_it_is_compared_with(cache):
    first = Key(1)
    first.do = lambda: (cache.delete(first), cache.put(Key(1), "came meanwhile", size_bytes=1))
    cache.put(first, "was there", size_bytes=1)
    second = Key(1)
    assert ends(lambda: cache.get(second)) in ("came meanwhile", None, "was there")
    first.do = lambda: None
    assert cache.get(Key(1)) == "came meanwhile"


def test_equal_keys_of_other_types_are_found():
    cache = infcore.Cache(100, policy="lru")

    class Text(str):
        __slots__ = ()

    class Number(int):
        pass

    for at, key in enumerate(("a", 5, Text("b"), Number(6)), start=1):
        cache.put(key, at, size_bytes=1)
    assert [cache.get(key) for key in (Text("a"), Number(5), "b", 6, 6.0, 5.0)] == [1, 2, 3, 4, 4, 2]
    assert len(cache) == 4


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, MemoryError])
def test_a_hash_that_raises_is_heard(cache, error):
    class Bad:
        def __hash__(self):
            raise error

    for call in CALLS:
        with pytest.raises(error):
            call(cache, Bad())
    assert is_usable(cache)


def test_a_hash_that_comes_back(cache):
    class Curious:
        def __hash__(self):
            cache.put("curious", 1, size_bytes=1)
            return 5

    for call in CALLS:
        ends(lambda call=call: call(cache, Curious()))
    assert cache.get("curious") == 1


def test_an_estimate_that_raises_or_comes_back(cache):
    class Value:
        def __sizeof__(self):
            cache.put("by the estimate", 1, size_bytes=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ends(lambda: cache.put("a", Value()))
    with pytest.raises(ZeroDivisionError):
        ends(lambda: cache.get_or_compute("a", Value))
    assert cache.get("by the estimate") == 1
    assert "a" not in cache
    assert is_usable(cache)


def test_a_clock_that_raises(cache):
    class Broken:
        is_broken = False

        def now_s(self):
            if self.is_broken:
                raise ZeroDivisionError
            return 1.0

    clock = Broken()
    cache = infcore.Cache(100, policy="lru", ttl_s=5.0, clock=clock)
    cache.put("a", 1, size_bytes=1)
    clock.is_broken = True
    for call in CALLS:
        with pytest.raises(ZeroDivisionError):
            call(cache, "a")
    clock.is_broken = False
    assert cache.get("a") == 1
    assert is_usable(cache)


@pytest.mark.parametrize("policy", [name for name in policies() if name != "belady"])
def test_destructors_under_every_policy(policy):
    cache = infcore.Cache(300, policy=policy)

    def use(cache):
        cache.put("by a destructor", 1, size_bytes=20)
        cache.get("by a destructor")

    def run():
        for key in range(300):
            cache.put(key % 50, CallsBack(cache, use), size_bytes=20, cost_us=float(key % 7))
            cache.get(key % 11)
        cache.clear()

    ends(run)
    assert is_usable(cache)
