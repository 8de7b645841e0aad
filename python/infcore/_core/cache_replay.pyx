# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""A trace through an eviction policy, in one call without the GIL; and policies for owners in Python.

Columns of a trace are checked in infcore.cache.replay.
"""
from cython.operator cimport dereference
from libc.math cimport INFINITY
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.vector cimport vector

from infcore._cpp.cache_replay cimport (EntryIds, EvictionEntry, EvictionLimits, ReplayConfig, ReplayStats, ReplayTrace,
                                        ToldEntries, ToldPolicy, no_entry, replay)
from infcore._cpp.kv cimport EvictionPolicy, make_eviction_policy

from infcore.errors import InvalidArgument

cdef extern from *:
    """
    static inline int infcore_pending() { return PyErr_Occurred() != nullptr ? -1 : 0; }
    """
    int infcore_pending() except -1
    int PyErr_CheckSignals() noexcept  # what it raises waits until the replay has ended


cdef cbool goes_on() noexcept with gil:
    return PyErr_CheckSignals() == 0


def run(str policy not None, uint64_t capacity_bytes, const uint64_t[::1] keys not None,
        const uint64_t[::1] sizes, const double[::1] costs, const double[::1] times_s, const int64_t[::1] requests,
        const uint8_t[::1] admit, ttl_s) -> dict:
    """The counts of ReplayStats, by name. Columns that are not None are as long as keys."""
    cdef unique_ptr[EvictionPolicy] chosen = make_eviction_policy(policy.encode("utf-8", "backslashreplace"))
    cdef ReplayTrace trace
    cdef ReplayConfig config
    cdef ReplayStats stats
    config.capacity_bytes = capacity_bytes
    if ttl_s is not None:
        config.ttl_s = ttl_s
    trace.n = keys.shape[0]
    if trace.n > 0:
        trace.keys = &keys[0]
        trace.bytes = &sizes[0] if sizes is not None else NULL
        trace.costs_us = &costs[0] if costs is not None else NULL
        trace.times_s = &times_s[0] if times_s is not None else NULL
        trace.requests = &requests[0] if requests is not None else NULL
        trace.is_admitted = &admit[0] if admit is not None else NULL
    config.goes_on = goes_on
    with nogil:
        stats = replay(trace, config, dereference(chosen))
    infcore_pending()
    return stats


cdef class Policy:
    """An eviction policy for an owner in Python: it is told of each entry by its id, and says which goes next.

    What may be called when is EvictionPolicy's contract (csrc/infcore/contracts/eviction.hpp). Ids that are out of range
    or in the wrong state are refused.
    """

    cdef ToldEntries entries  # before the policy, which looks at it
    cdef unique_ptr[EvictionPolicy] c_obj
    cdef uint32_t n_entries_max
    cdef dict is_evictable  # of each entry that is in

    def __init__(self, str policy not None, uint32_t n_entries_max, uint64_t capacity_bytes):
        cdef EvictionLimits limits
        self.is_evictable = {}
        self.c_obj = make_eviction_policy(policy.encode("utf-8", "backslashreplace"))
        self.entries.grow(n_entries_max)
        limits.n_entries_max = self.n_entries_max = n_entries_max
        limits.capacity_bytes = capacity_bytes
        self.told().attach(self.entries, limits)

    cdef ToldPolicy* told(self) noexcept:
        return <ToldPolicy*>self.c_obj.get()

    cdef uint32_t known(self, object id, object is_evictable=None) except? 0:
        found = self.is_evictable.get(id)
        if found is None or found is not (found if is_evictable is None else is_evictable):
            state = {None: "in", True: "in and evictable", False: "in and held"}[is_evictable]
            raise InvalidArgument(f"id is {id!r}; allowed: one that is {state}")
        return id

    def grow(self, uint32_t n_entries_max) -> None:
        if n_entries_max < self.n_entries_max:
            raise InvalidArgument(f"n_entries_max is {n_entries_max}; allowed: at least {self.n_entries_max}")
        self.entries.grow(n_entries_max)
        self.told().grow(n_entries_max)
        self.n_entries_max = n_entries_max

    def tell(self, uint32_t id, *, uint64_t key, uint64_t bytes, double cost_us, next_use=None) -> None:
        """What the policy sees of an entry when it looks: before on_insert, and whenever that changes."""
        cdef EvictionEntry entry
        if id >= self.n_entries_max or bytes == 0 or not 0.0 <= cost_us < INFINITY:
            raise InvalidArgument(f"entry is {(id, bytes, cost_us)}; allowed: id below {self.n_entries_max}, bytes > 0, "
                                  "cost_us finite and >= 0")
        entry.key, entry.bytes, entry.cost_us, entry.pinned = key, bytes, cost_us, False
        entry.n_children, entry.reuse = 0, 1.0
        entry.next_use = UINT64_MAX if next_use is None else next_use
        self.entries.tell(id, entry)

    def on_insert(self, uint32_t id) -> None:
        if id >= self.n_entries_max or id in self.is_evictable:
            raise InvalidArgument(f"id is {id}; allowed: one below {self.n_entries_max} that is not in")
        self.is_evictable[id] = False
        self.told().on_insert(id)

    def on_hit(self, list ids not None) -> None:
        cdef vector[uint32_t] of = [self.known(id) for id in ids]
        self.told().on_hit(EntryIds(of.data(), of.size()))

    def on_release(self, list ids not None) -> None:
        cdef vector[uint32_t] of = [self.known(id) for id in ids]
        self.told().on_release(EntryIds(of.data(), of.size()))

    def on_evictable(self, id) -> None:
        self.told().on_evictable(self.known(id, False))
        self.is_evictable[id] = True

    def on_held(self, id) -> None:
        self.told().on_held(self.known(id, True))
        self.is_evictable[id] = False

    def on_remove(self, id) -> None:
        self.told().on_remove(self.known(id))
        del self.is_evictable[id]

    def victim(self) -> int | None:
        cdef uint32_t id = self.told().victim()
        return None if id == no_entry else id
