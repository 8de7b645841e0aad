from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

from infcore._cpp.base cimport TimeNs
from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.kv cimport EvictionPolicy


cdef extern from "<string_view>" namespace "std" nogil:
    cdef cppclass string_view:
        string_view() noexcept
        string_view(const char*, size_t) noexcept
        const char* data() noexcept
        size_t size() noexcept


cdef extern from "<span>" namespace "std" nogil:
    cdef cppclass TagSpan "std::span<const std::string_view>":
        TagSpan() noexcept
        TagSpan(const string_view*, size_t) noexcept


cdef extern from "<infcore/base/border_mutex.hpp>" namespace "infcore::base" nogil:
    cdef cppclass BorderMutex:
        void lock() noexcept
        void unlock() noexcept


cdef extern from "<infcore/cache/cache_shard.hpp>" namespace "infcore::cache" nogil:
    ctypedef uint32_t EntryId
    const EntryId no_entry

    cdef cppclass NewEntry:
        uint64_t key
        uint32_t kind
        uint64_t bytes
        double cost_us
        double reuse
        TimeNs expires_ns
        TimeNs stale_until_ns
        uint64_t version
        TagSpan tags
        cbool asked

    cdef cppclass CacheCounters:
        uint64_t hits, misses, evictions, rejected, expired, invalidated
        uint64_t bytes_used, n_entries, bytes_hit, bytes_missed
        double cost_hit_us, cost_missed_us

    cdef enum class Outcome "infcore::cache::CacheShard::Outcome"(unsigned char):
        stored
        rejected
        older

    cdef cppclass CacheShard:
        CacheShard(uint64_t, unique_ptr[EvictionPolicy]) except +infcore_translate
        BorderMutex lock
        cbool is_live(EntryId, TimeNs) noexcept
        cbool is_stale(EntryId, TimeNs) noexcept
        cbool is_outdated(const NewEntry&, EntryId, TimeNs) noexcept
        void hit(EntryId) noexcept
        void miss() noexcept
        Outcome put(uint32_t, const NewEntry&, EntryId, TimeNs, EntryId&) except +infcore_translate
        void remove(EntryId) noexcept
        cbool evict(EntryId) noexcept
        cbool is_pinned(EntryId) noexcept
        cbool met(EntryId, TimeNs) noexcept
        void clear() noexcept
        EntryId take_gone() noexcept
        void pin(EntryId) except +infcore_translate
        cbool unpin(EntryId) noexcept
        uint64_t invalidate(string_view) noexcept
        void raise_floor(string_view, uint64_t) except +infcore_translate
        void raise_all "raise_floor"(uint64_t) noexcept
        CacheCounters counters() noexcept
        uint64_t n_entries() noexcept
        uint64_t capacity_bytes() noexcept
        EntryId n_ids() noexcept
        cbool in_use(EntryId) noexcept
        NewEntry told(EntryId) noexcept
        vector[string_view] tags(EntryId) except +infcore_translate
