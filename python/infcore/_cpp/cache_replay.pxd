from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cbool

from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.kv cimport EvictionPolicy


cdef extern from * nogil:
    """
    #include <infcore/cache/told_entries.hpp>
    typedef std::span<const infcore::contracts::EntryId> InfcoreEntryIds;
    """
    cdef cppclass EntryIds "InfcoreEntryIds":
        EntryIds(const uint32_t*, size_t) noexcept


cdef extern from "<infcore/contracts/eviction.hpp>" namespace "infcore::contracts" nogil:
    const uint32_t no_entry
    cdef cppclass EvictionEntry:
        EvictionEntry() noexcept
        uint64_t key
        uint64_t bytes
        double cost_us
        uint32_t n_children
        cbool pinned
        double reuse
        uint64_t next_use
    cdef cppclass EvictionView:
        pass
    cdef cppclass EvictionLimits:
        EvictionLimits() noexcept
        uint32_t n_entries_max
        uint64_t capacity_bytes
    cdef cppclass ToldPolicy "infcore::contracts::EvictionPolicy":
        void attach(const EvictionView&, const EvictionLimits&) except +infcore_translate
        void grow(uint32_t) except +infcore_translate
        void on_insert(uint32_t) noexcept
        void on_hit(EntryIds) noexcept
        void on_release(EntryIds) noexcept
        void on_evictable(uint32_t) noexcept
        void on_held(uint32_t) noexcept
        void on_remove(uint32_t) noexcept
        uint32_t victim() noexcept


cdef extern from "<infcore/cache/told_entries.hpp>" namespace "infcore::cache" nogil:
    cdef cppclass ToldEntries(EvictionView):
        ToldEntries() noexcept
        void grow(uint32_t) except +infcore_translate
        void tell(uint32_t, const EvictionEntry&) noexcept


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
        cbool (*goes_on)() noexcept
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
