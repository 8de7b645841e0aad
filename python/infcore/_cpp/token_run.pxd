from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp.vector cimport vector

from infcore._cpp.base cimport TimeNs
from infcore._cpp.errors cimport infcore_translate


cdef extern from * nogil:
    """
    #include <infcore/engine/token_run.hpp>
    typedef std::span<const std::int64_t> InfcoreTokens;
    typedef std::span<const std::uint8_t> InfcoreFlags;
    """
    cdef cppclass Tokens "InfcoreTokens":
        Tokens() noexcept
        Tokens(const int64_t*, size_t) noexcept
    cdef cppclass Flags "InfcoreFlags":
        Flags() noexcept
        Flags(const uint8_t*, size_t) noexcept


cdef extern from "<infcore/contracts/token_curve.hpp>" namespace "infcore::contracts" nogil:
    cdef cppclass StepWork:
        uint64_t n_prefill_tokens, n_decode_rows, n_context_tokens
    cdef cppclass TokenCurve:
        double base_s, prefill_base_s, per_prefill_token_s, per_prefill_token2_s
        double decode_base_s, per_decode_s, per_context_token_s, per_context_token2_s, swap_block_s


cdef extern from "<infcore/batch/kv_blocks.hpp>" namespace "infcore::batch" nogil:
    cdef cppclass KVBlocksConfig:
        uint32_t n_blocks, block_size, n_host_blocks
    cdef cppclass KVBlocks:
        uint32_t n_blocks() noexcept
        uint32_t n_free() noexcept
        uint32_t n_cached() noexcept
        uint32_t n_available() noexcept
        uint32_t n_host_blocks() noexcept
        uint32_t n_host_free() noexcept


cdef extern from "<infcore/batch/token_step.hpp>" namespace "infcore::batch" nogil:
    cdef cppclass TokenRow:
        uint64_t id, cookie
        uint8_t emits
    cdef cppclass BlockMove:
        uint32_t source "from"
        uint32_t to
    cdef cppclass EndedSequence:
        uint64_t id, cookie
    cdef cppclass TokenStep:
        vector[TokenRow] rows
        vector[BlockMove] swap_outs, copies, swap_ins
        vector[EndedSequence] expired
        StepWork work
        uint32_t n_prefill_rows, n_matched_tokens


cdef extern from "<infcore/batch/continuous_batcher.hpp>" namespace "infcore::batch" nogil:
    cdef cppclass ContinuousBatcherConfig:
        uint32_t token_budget, max_running, max_sequences, max_sequence_tokens
        TimeNs ageing_ns
        TokenCurve curve
    cdef cppclass ContinuousBatcher:
        uint32_t n_running() noexcept
        uint32_t n_waiting() noexcept
        uint64_t n_preempted() noexcept
        uint64_t n_swapped_out() noexcept
        TimeNs next_event_ns() noexcept


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
        uint32_t add(Tokens, const SequenceRequest&) except +infcore_translate
        void cancel(uint32_t) noexcept
        uint32_t fork(uint32_t) except +infcore_translate
        bint step(TimeNs) except +infcore_translate
        const TokenStep& current() noexcept
        uint32_t n_tokens() noexcept
        uint32_t table_width() noexcept
        void write(const StepArrays&) noexcept
        @staticmethod
        void write_moves(const vector[BlockMove]&, int32_t*) noexcept
        void advance(Tokens, Flags) except +infcore_translate
        uint32_t n_sequences() noexcept
        const KVBlocks& blocks() noexcept
        const ContinuousBatcher& batcher() noexcept
