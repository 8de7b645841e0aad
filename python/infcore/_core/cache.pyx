# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The result cache's border: keys are found and compared here, values stay here; the mechanism is cache_shard.hpp."""
cimport cython
from cpython.exc cimport PyErr_Clear, PyErr_ExceptionMatches
from cpython.list cimport PyList_Append, PyList_GET_SIZE
from cpython.object cimport Py_EQ, PyObject, PyObject_RichCompareBool
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

from infcore._core.base cimport Clock, as_clock, finite, until_ns
from infcore._core.fleet cimport whole
from infcore._cpp.base cimport add_ns, never_ns, seconds
from infcore._cpp.cache cimport (CacheCounters, CacheShard, EntryId, NewEntry, Outcome, TagSpan, no_entry,
                                 string_view)
from infcore._cpp.kv cimport EvictionPolicy, eviction_policies, make_eviction_policy

from infcore.errors import InvalidArgument, InvalidType

cdef extern from "Python.h":
    PyObject* PyList_GET_ITEM(object, size_t)  # cpython.list's counts a reference
    int PyGC_Disable()
    int PyGC_Enable()

include "cache_key.pxi"


@cython.final
@cython.no_gc_clear  # the list is there to the very end; a cycle breaks elsewhere instead
cdef class Shard:
    def __cinit__(self, uint64_t capacity_bytes, str policy):
        cdef unique_ptr[EvictionPolicy] chosen = make_eviction_policy(policy.encode())
        self.c_obj.reset(new CacheShard(capacity_bytes, move(chosen)))
        self.pairs = []


@cython.no_gc_clear  # the same: it leans on its shards
cdef class Store:
    """Keys to values, with what each weighs and costs: what infcore.Cache is built on. Thread-safe.

    estimate  estimate(value) -> bytes, where put() is not told
    """

    def __cinit__(self, *_, **__):
        self.clock = as_clock(None)
        self.shards = []

    def __init__(self, capacity_bytes, *, estimate, policy="infcore", ttl_s=None, shards=None, clock=None):
        if self.shards:
            raise InvalidArgument("Cache.__init__ was called twice; allowed: once")
        capacity = whole("capacity_bytes", capacity_bytes, 0, 0x7FFFFFFFFFFFFFFF)
        if not isinstance(policy, str):
            raise InvalidType(f"policy is {type(policy).__name__}; allowed: a str, one of {policies()}")
        n_shards = 1 if shards is None else whole("shards", shards, 1, 4096)
        if n_shards & (n_shards - 1):
            raise InvalidArgument(f"shards is {n_shards}; allowed: a power of two")
        self.clock = as_clock(clock)
        self.ttl_ns = until_ns("ttl_s", ttl_s, 0)
        self.timed = self.ttl_ns != never_ns
        self.capacity_bytes = capacity
        self.policy = policy
        self.estimate = estimate
        self.goes_on = type(self).missed is not Store.missed
        self.shards = [Shard(capacity // n_shards, policy) for _ in range(n_shards)]
        if n_shards == 1:
            self.only = self.shards[0]
            self.c_only = self.only.c_obj.get()
            self.pairs = <PyObject*>self.only.pairs

    def __reduce__(self):
        raise InvalidType(f"{type(self).__name__} cannot be copied or pickled: its values are shared by who uses it; "
                          "allowed: entries() and put() into another")

    cdef int64_t now_ns(self) except? -1:
        return self.clock.now_ns() if self.timed else 0

    def now_s(self) -> float:
        """Seconds of the cache's clock."""
        return seconds(self.clock.now_ns())

    def get(self, key, default=None):
        """The key's value, or `default` where it is not there, has expired or was invalidated. O(1)."""
        cdef int64_t now_ns = self.clock.now_ns() if self.timed else 0
        cdef PyObject* missing = <PyObject*>absent if self.goes_on else <PyObject*>default
        if self.c_only != NULL:
            value = get_plain(self.c_only[0], self.pairs, <PyObject*>key, now_ns, missing, <PyObject*>unsure)
            if value is not unsure:
                return value if value is not absent else self.missed(key, default)
        value = get_closely(self, key, <object>missing, now_ns)
        return value if value is not absent else self.missed(key, default)

    def missed(self, key, default):
        """What get() answers for what is not here: for who keeps values elsewhere, too."""
        return default

    def peek(self, key, default=None):
        """As get(), and nothing of it is remembered: no hit, no use."""
        value = look(self, key, False)
        return default if value is absent else value

    def stale(self, key, default=None):
        """As get(), also of what has expired, as long as its stale_s; nothing of it is remembered."""
        value = look(self, key, True)
        return default if value is absent else value

    def __contains__(self, key):
        return look(self, key, False) is not absent

    def __len__(self):
        """Entries, with those that are dead and that nobody has met yet."""
        cdef size_t n = 0
        cdef Shard shard
        for shard in self.shards:
            shard.c_obj.get().lock.lock()
            n += shard.c_obj.get().n_entries()
            shard.c_obj.get().lock.unlock()
        return n

    def put(self, key, value, *, size_bytes=None, cost_us=1.0, ttl_s=None, stale_s=0.0, tags=(), version=0, reuse=1.0):
        """Keep the value under the key, in place of what was there.

        size_bytes  what it weighs, at least 1; None: estimated (infcore.cache.estimated_bytes)
        cost_us     of making it again, microseconds >= 0
        ttl_s       seconds until it expires; None: the cache's
        stale_s     seconds after that in which get_or_compute() still serves it while it is made anew
        tags        names that invalidate_tag() knows it by
        version     0 and up; a put with an older one than what is there, or than invalidate_older() asked for, loses
        reuse       how many times likelier than others it is to be asked for, as far as the caller knows
        Returns     False: not kept (not worth the room, too large, or of an old version)
        Raises      InvalidArgument, InvalidType. What the new one pushes out is let go once the put is done
        """
        cdef CacheKey known
        cdef NewEntry entry
        cdef vector[string_view] names
        cdef list encoded = None
        cdef int64_t now_ns
        key_of(key, &known)
        cdef Shard shard = self.only if self.only is not None else shard_of(self, &known)
        read_figures(&entry, self.estimate(value) if size_bytes is None else size_bytes, cost_us, version, reuse)
        if tags is not no_tags:
            encoded = encoded_tags(tags)
            for name in encoded:
                names.push_back(string_view(<bytes>name, len(<bytes>name)))
            entry.tags = TagSpan(names.data(), names.size())
        if ttl_s is not None:
            self.timed = True
        now_ns = self.clock.now_ns() if self.timed else 0
        entry.expires_ns = until_ns("ttl_s", ttl_s, now_ns) if ttl_s is not None else add_ns(now_ns, self.ttl_ns)
        entry.stale_until_ns = entry.expires_ns
        if stale_s is not nothing_stale:
            entry.stale_until_ns = until_ns("stale_s", 0.0 if stale_s is None else stale_s, entry.expires_ns)
        read_content(<PyObject*>key, known)
        entry.key, entry.kind = known.content, known.kind
        return place(shard, key, value, &known, entry, now_ns)

    def check_put(self, *, size_bytes=None, cost_us=1.0, ttl_s=None, stale_s=0.0, tags=(), version=0, reuse=1.0):
        """Raises what put() would raise of these arguments."""
        cdef NewEntry entry
        read_figures(&entry, 1 if size_bytes is None else size_bytes, cost_us, version, reuse)
        encoded_tags(tags)
        until_ns("ttl_s", ttl_s, 0)
        until_ns("stale_s", stale_s, 0)

    def delete(self, key) -> bool:
        """Let go of the key's value; whether there was one."""
        cdef CacheKey known
        cdef EntryId id
        cdef int64_t now_ns = self.now_ns()
        key_of(key, &known)
        cdef Shard shard = shard_of(self, &known)
        cdef CacheShard* entries = shard.c_obj.get()
        entries.lock.lock()
        compared = find(shard, key, &known, &id)
        cdef cbool was_there = id != no_entry and entries.is_live(id, now_ns)
        if id != no_entry:
            entries.remove(id)
        unlock(shard, NULL, NULL)
        return was_there

    def clear(self) -> None:
        """Let go of everything, pinned or not."""
        cdef Shard shard
        for shard in self.shards:
            shard.c_obj.get().lock.lock()
            shard.c_obj.get().clear()
            unlock(shard, NULL, NULL)

    def pin(self, key) -> bool:
        """From now on it is not evicted, until there were as many unpin() as pin(). False where it is not there."""
        return pinned(self, key, True)

    def unpin(self, key) -> bool:
        """False where it is not there, or has no pin."""
        return pinned(self, key, False)

    def invalidate_tag(self, tag) -> int:
        """What bears the tag is gone; how many that were. O(1): their room is freed when somebody meets them."""
        (name,) = encoded_tags((tag,))
        cdef string_view seen = string_view(<bytes>name, len(<bytes>name))
        cdef uint64_t n = 0
        cdef Shard shard
        for shard in self.shards:
            shard.c_obj.get().lock.lock()
            n += shard.c_obj.get().invalidate(seen)
            shard.c_obj.get().lock.unlock()
        return n

    def invalidate_older(self, version, *, tag=None) -> None:
        """What bears the tag (None: everything) is gone unless its version is at least this, and later puts of an older
        one are refused. O(1); such a tag is remembered for good."""
        cdef uint64_t floor = whole("version", version, 0, 0x7FFFFFFFFFFFFFFF)
        (name,) = encoded_tags(("" if tag is None else tag,))
        cdef string_view seen = string_view(<bytes>name, len(<bytes>name))
        cdef Shard shard
        for shard in self.shards:
            shard.c_obj.get().lock.lock()
            try:
                if tag is None:
                    shard.c_obj.get().raise_all(floor)
                else:
                    shard.c_obj.get().raise_floor(seen, floor)
            finally:
                shard.c_obj.get().lock.unlock()

    def entries(self) -> list:
        """(key, value, what put() was told of it) of each live entry; of ttl_s and stale_s what is left of them, and
        cost_us as it is kept, in single precision."""
        return [row for shard in self.shards for row in rows_of(self, shard)]

    def bring(self, key, value, *, instead_of=(), gone=None, **told) -> bool:
        """put() of what nobody asked for yet: kept only where it is absent, or of an older version, and there is room.

        It counts as no miss. The other arguments are those of put()
        instead_of  keys that go for it, as by evict(), in the same step: where it is not kept, they stay
        gone        a list that takes what is to be let go, for who has a lock that its destructors may wait for
        Returns     whether it is kept
        """
        return brought(self, key, value, instead_of, told, [] if gone is None else gone)

    def land(self, key, value, *, over, gone, told) -> bool:
        """put() of what was computed since the key was not there; what was put meanwhile stays, unless its version is
        older, or it is `over`. `gone` as for bring(), `told` the other arguments of put(); a class that has a put() of
        its own keeps it by that."""
        if type(self).put is not Store.put:
            return self.put(key, value, **told)
        return landed(self, key, value, over, told, gone)

    def evict(self, key) -> bool:
        """Let go of the key's value to make room; False where it is not there, or pinned. What is being computed for it
        will be kept."""
        return evicted(self, key, [])

    def version_of(self, key) -> int:
        """Of the key's live entry; -1 where it is not there."""
        return version_of(self, key)

    def place_of(self, key) -> int:
        """Which shard the key belongs to: an index of free_bytes()."""
        cdef CacheKey known
        known.hash = 0  # gcc does not see that key_of() raises where it does not set it
        key_of(key, &known)
        return self.shards.index(shard_of(self, &known))

    def free_bytes(self) -> list:
        """Bytes that each shard has left; what is dead and was not met yet still takes its room."""
        return [free_of(shard) for shard in self.shards]

    def residents(self) -> list:
        """(key, shard, size_bytes, cost_us, whether it is pinned) of each entry; the cost is 0 of what is dead."""
        return [row for place, shard in enumerate(self.shards) for row in residents_of(self, shard, place)]

    def counters(self) -> dict:
        """Counts since the cache was made; bytes_used and n_entries now."""
        cdef CacheCounters c
        cdef Shard shard
        totals = {}
        for shard in self.shards:
            shard.c_obj.get().lock.lock()
            c = shard.c_obj.get().counters()
            shard.c_obj.get().lock.unlock()
            for name, value in _named(c).items():
                totals[name] = totals.get(name, 0) + value
        return totals


def policies() -> list:
    """Names of the eviction policies."""
    return [name.decode() for name in eviction_policies()]


include "cache_store.pxi"
