from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

from infcore._cpp.errors cimport infcore_translate


cdef extern from * nogil:
    """
    #include <infcore/batch/kv_blocks.hpp>
    #include <infcore/contracts/block_hash.hpp>
    typedef std::span<infcore::batch::BlockId> InfcoreBlocks;
    typedef std::span<const infcore::batch::BlockId> InfcoreConstBlocks;
    typedef std::span<std::uint64_t> InfcoreNames;
    typedef std::span<const std::uint64_t> InfcoreConstNames;
    """
    cdef cppclass Blocks "InfcoreBlocks":
        Blocks() noexcept
        Blocks(uint32_t*, size_t) noexcept
    cdef cppclass ConstBlocks "InfcoreConstBlocks":
        ConstBlocks() noexcept
        ConstBlocks(const uint32_t*, size_t) noexcept
        const uint32_t* data() noexcept
        size_t size() noexcept
    cdef cppclass Names "InfcoreNames":
        Names() noexcept
        Names(uint64_t*, size_t) noexcept
    cdef cppclass ConstNames "InfcoreConstNames":
        ConstNames() noexcept
        ConstNames(const uint64_t*, size_t) noexcept


cdef extern from "<infcore/contracts/block_hash.hpp>" namespace "infcore::contracts" nogil:
    void hash_blocks32 "infcore::contracts::hash_blocks<std::int32_t>"(const int32_t*, uint32_t, uint64_t, Names) noexcept
    void hash_blocks64 "infcore::contracts::hash_blocks<std::int64_t>"(const int64_t*, uint32_t, uint64_t, Names) noexcept


cdef extern from "<infcore/contracts/token_curve.hpp>" namespace "infcore::contracts" nogil:
    cdef cppclass StepWork:
        StepWork() noexcept
        uint64_t n_prefill_tokens
        uint64_t n_decode_rows
        uint64_t n_context_tokens
    cdef cppclass TokenCurve:
        TokenCurve() noexcept
        double base_s
        double prefill_base_s
        double per_prefill_token_s
        double per_prefill_token2_s
        double decode_base_s
        double per_decode_s
        double per_context_token_s
        double per_context_token2_s
        double swap_block_s
        double step_s(const StepWork&) noexcept


cdef extern from "<infcore/contracts/eviction.hpp>" namespace "infcore::contracts" nogil:
    cdef cppclass EvictionPolicy:
        pass


cdef extern from "<infcore/cache/eviction_policy.hpp>" namespace "infcore::cache" nogil:
    unique_ptr[EvictionPolicy] make_eviction_policy(string) except +infcore_translate
    vector[string] eviction_policies() except +infcore_translate


cdef extern from "<infcore/batch/kv_blocks.hpp>" namespace "infcore::batch" nogil:
    const uint32_t no_block
    cdef cppclass KVBlocksConfig:
        KVBlocksConfig() noexcept
        uint32_t n_blocks
        uint32_t block_size
        uint32_t n_host_blocks
    cdef cppclass Match "infcore::batch::KVBlocks::Match":
        uint32_t n_blocks
        uint32_t n_unheld
    cdef cppclass KVBlocks:
        KVBlocks(const KVBlocksConfig&, unique_ptr[EvictionPolicy]) except +infcore_translate
        cbool alloc(Blocks) noexcept
        void free(ConstBlocks) noexcept
        size_t first_not_used(ConstBlocks) noexcept
        void share(ConstBlocks) noexcept
        uint32_t match(ConstNames, Blocks) noexcept
        Match peek(ConstNames) noexcept
        uint32_t keep(uint32_t, uint64_t, uint32_t) noexcept
        uint32_t drop_cached() noexcept
        uint32_t n_blocks() noexcept
        uint32_t block_size() noexcept
        uint32_t n_uses(uint32_t) noexcept
        cbool is_cached(uint32_t) noexcept
        uint64_t name(uint32_t) noexcept
        uint32_t n_free() noexcept
        uint32_t n_cached() noexcept
        uint32_t n_available() noexcept
        uint64_t n_evicted() noexcept
        uint32_t n_host_blocks() noexcept
        uint32_t n_host_free() noexcept
