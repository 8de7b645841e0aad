from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libcpp.vector cimport vector

from infcore._cpp.base cimport TimeNs
from infcore._cpp.continuous cimport (BlockMove, ContinuousBatcher, ContinuousBatcherConfig, Flags, Tokens, TokenStep)
from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.kv cimport KVBlocks, KVBlocksConfig


cdef extern from "<infcore/engine/token_run.hpp>" namespace "infcore::engine" nogil:
    cdef cppclass TokenRunConfig:
        TokenRunConfig() noexcept
        KVBlocksConfig blocks
        ContinuousBatcherConfig batcher
    cdef cppclass SequenceRequest "infcore::engine::TokenRun::Request":
        SequenceRequest() noexcept
        TimeNs arrival_ns, deadline_ns
        uint32_t n_new_max, tenant
        uint16_t tier
    cdef cppclass StepArrays "infcore::engine::TokenRun::Arrays":
        int64_t* tokens
        int32_t* positions
        int32_t* cu_seqlens
        int32_t* context_lens
        int32_t* block_tables
        int64_t* slot_mapping
        uint8_t* emits
    cdef cppclass TokenRun:
        TokenRun(const TokenRunConfig&) except +infcore_translate
        void set_ageing(TimeNs) noexcept
        uint32_t add(Tokens, const SequenceRequest&) except +infcore_translate
        void cancel(uint32_t) noexcept
        uint32_t fork(uint32_t) except +infcore_translate
        bint step(TimeNs) except +infcore_translate
        const TokenStep& current() noexcept
        const vector[uint32_t]& rows() noexcept
        const vector[uint32_t]& emitting() noexcept
        uint32_t n_tokens() noexcept
        uint32_t table_width() noexcept
        void write(const StepArrays&) noexcept
        @staticmethod
        void write_moves(const vector[BlockMove]&, int32_t*) noexcept
        void advance(Tokens, Flags) except +infcore_translate
        uint32_t n_sequences() noexcept
        const KVBlocks& blocks() noexcept
        const ContinuousBatcher& batcher() noexcept
