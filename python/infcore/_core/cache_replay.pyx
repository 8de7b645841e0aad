# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""A trace through an eviction policy, in one call without the GIL. Columns are checked in infcore.cache.replay."""
from cython.operator cimport dereference
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libcpp.memory cimport unique_ptr

from infcore._cpp.cache_replay cimport ReplayConfig, ReplayStats, ReplayTrace, replay
from infcore._cpp.kv cimport EvictionPolicy, make_eviction_policy


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
    with nogil:
        stats = replay(trace, config, dereference(chosen))
    return stats
