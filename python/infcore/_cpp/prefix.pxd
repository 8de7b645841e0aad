from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from infcore._cpp.base cimport NodeId, TimeNs
from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.kv cimport ConstNames
from infcore._cpp.route cimport PrefixConfig, Router


cdef extern from "<infcore/route/node_sets.hpp>" namespace "infcore::route" nogil:
    cdef enum class KvTier(uint8_t):
        device
        host
        disk


cdef extern from "<infcore/route/prefix_index.hpp>" namespace "infcore::route" nogil:
    cdef cppclass PrefixStats:
        size_t n_blocks
        size_t n_picked_blocks
        uint64_t n_evicted
        size_t n_bytes


cdef extern from "<infcore/route/prefix_table.hpp>" namespace "infcore::route" nogil:
    const uint32_t max_blocks_most "infcore::route::PrefixTable::max_blocks_most"


cdef extern from "<infcore/route/router_prefix.hpp>" namespace "infcore::route" nogil:
    cdef cppclass RouterPrefix:
        RouterPrefix(Router&) noexcept
        size_t stored(NodeId, ConstNames, KvTier, const uint64_t*) except +infcore_translate
        size_t removed(NodeId, ConstNames, KvTier) except +infcore_translate
        void cleared(NodeId) except +infcore_translate
        void match(ConstNames, TimeNs, vector[int32_t]&, vector[int32_t]&) except +infcore_translate
        PrefixStats stats() except +infcore_translate


cdef extern from "<infcore/route/engine_blocks.hpp>" namespace "infcore::route" nogil:
    const uint32_t max_names_most "infcore::route::EngineBlocks::max_names_most"
    cdef cppclass EngineBlocks:
        EngineBlocks(uint32_t max_nodes, uint32_t max_names) except +infcore_translate
        void put(NodeId, uint64_t, uint64_t) except +infcore_translate
        cbool find(NodeId, uint64_t, uint64_t&) noexcept
        void clear_node(NodeId) noexcept
        size_t n_names() noexcept
        size_t n_bytes() noexcept


cdef extern from "<infcore/contracts/block_hash.hpp>" namespace "infcore::contracts" nogil:
    uint64_t chain_start(uint32_t, uint64_t) noexcept
    uint64_t chain64 "infcore::contracts::chain<std::int64_t>"(uint64_t, const int64_t*, uint32_t) noexcept
    uint64_t stir "infcore::contracts::detail::stir"(uint64_t) noexcept
