from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from infcore._cpp.base cimport TimeNs
from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.kv cimport ConstBlocks, ConstNames, KVBlocks, StepWork, TokenCurve


cdef extern from * nogil:
    """
    #include <infcore/batch/continuous_batcher.hpp>
    typedef std::span<const std::int64_t> InfcoreTokens;
    typedef std::span<const std::uint8_t> InfcoreFlags;
    typedef std::span<const infcore::batch::TokenRow> InfcoreTokenRows;
    """
    cdef cppclass Tokens "InfcoreTokens":
        Tokens() noexcept
        Tokens(const int64_t*, size_t) noexcept
    cdef cppclass Flags "InfcoreFlags":
        Flags() noexcept
        Flags(const uint8_t*, size_t) noexcept
    cdef cppclass TokenRows "InfcoreTokenRows":
        const TokenRow* data() noexcept
        size_t size() noexcept


cdef extern from "<infcore/batch/token_step.hpp>" namespace "infcore::batch" nogil:
    cdef cppclass TokenRow:
        uint64_t id
        uint64_t cookie
        uint32_t n_blocks
    cdef cppclass BlockMove:
        pass
    cdef cppclass EndedSequence:
        uint64_t id
        uint64_t cookie
    cdef cppclass TokenStep:
        vector[TokenRow] rows
        vector[BlockMove] swap_outs
        vector[BlockMove] copies
        vector[BlockMove] swap_ins
        vector[uint64_t] preempted
        vector[EndedSequence] expired
        StepWork work
        uint32_t n_prefill_rows
        uint32_t n_matched_tokens


cdef extern from "<infcore/batch/continuous_batcher.hpp>" namespace "infcore::batch" nogil:
    cdef cppclass ContinuousBatcherConfig:
        ContinuousBatcherConfig() noexcept
        uint32_t token_budget
        uint32_t max_running
        uint32_t max_sequences
        uint32_t max_sequence_tokens
        TimeNs ageing_ns
        TokenCurve curve
    cdef cppclass SequenceSpec:
        SequenceSpec() noexcept
        uint64_t cookie
        TimeNs arrival_ns
        TimeNs deadline_ns
        uint16_t tier
        uint32_t n_prompt_tokens
        uint32_t n_output_tokens_max
        uint64_t salt
        ConstNames prompt_hashes
        Tokens prompt_tail
    cdef cppclass ContinuousBatcher:
        ContinuousBatcher(KVBlocks&, const ContinuousBatcherConfig&) except +infcore_translate
        uint64_t add(const SequenceSpec&) except +infcore_translate
        cbool cancel(uint64_t) noexcept
        uint64_t fork(uint64_t, uint64_t) except +infcore_translate
        const TokenStep& step(TimeNs) noexcept
        void advance(Tokens, Flags) noexcept
        cbool step_is_out() noexcept
        const TokenStep& last_step() noexcept
        TokenRows ended() noexcept
        ConstBlocks blocks(const TokenRow&) noexcept
        uint32_t n_running() noexcept
        uint32_t n_waiting() noexcept
        uint64_t n_preempted() noexcept
        uint64_t n_swapped_out() noexcept
        TimeNs next_event_ns() noexcept
