from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.kv cimport EvictionPolicy


cdef extern from "<infcore/cache/replay.hpp>" namespace "infcore::cache" nogil:
    cdef cppclass ReplayTrace:
        ReplayTrace() noexcept
        size_t n
        const uint64_t* keys
        const uint64_t* bytes
        const double* costs_us
        const double* times_s
        const int64_t* requests
        const uint8_t* is_admitted
    cdef cppclass ReplayConfig:
        ReplayConfig() noexcept
        uint64_t capacity_bytes
        double ttl_s
    ctypedef struct ReplayStats:
        uint64_t requests
        uint64_t hits
        uint64_t misses
        uint64_t evictions
        uint64_t rejected
        uint64_t expired
        uint64_t bytes_used
        uint64_t bytes_requested
        uint64_t bytes_missed
        double cost_requested_us
        double cost_missed_us
    ReplayStats replay(const ReplayTrace&, const ReplayConfig&, EvictionPolicy&) except +infcore_translate
