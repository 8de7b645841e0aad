#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/batch/kv_blocks.hpp>
#include <infcore/contracts/token_curve.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace infcore::batch {

/// Names a sequence of one batcher until it ends; later ones are greater. 0 names none.
using SequenceId = std::uint64_t;

/// A sequence's part of a step: its tokens [first_position, first_position + n_tokens) are to be computed.
struct TokenRow {
  SequenceId id;
  std::uint64_t cookie;
  std::uint32_t first_position;
  std::uint32_t n_tokens;
  std::uint32_t place;     ///< its row of block_tables(), its own while it runs: 0 to max_running - 1
  std::uint32_t n_blocks;  ///< leading ids of that row that are valid
  std::uint8_t emits;      ///< 1: these are its last known tokens, so the step gives it a new one
  std::uint8_t decodes;    ///< 1: one token after its prefill; 0: a chunk of a prefill
  std::uint8_t unused[6];
};

/// A block of data to move.
struct BlockMove {
  BlockId from;
  BlockId to;
};

/// A sequence that left the queue without an answer.
struct EndedSequence {
  SequenceId id;
  std::uint64_t cookie;
};

/// What to do now. In this order: swap_outs (device to host), copies (device to device), swap_ins (host to device),
/// then the rows. Each move is of a block that nothing before it in that order overwrites. Valid until the next step().
struct TokenStep {
  std::vector<TokenRow> rows;  ///< decodes before prefills, each by rank
  std::vector<BlockMove> swap_outs;
  std::vector<BlockMove> copies;
  std::vector<BlockMove> swap_ins;
  std::vector<SequenceId> preempted;   ///< they wait again: swapped out, or to be computed again
  std::vector<EndedSequence> expired;  ///< their deadline passed while they waited: told this once, then forgotten
  contracts::StepWork work;            ///< for TokenCurve::step_s
  std::uint32_t n_prefill_rows{};
  std::uint32_t n_matched_tokens{};  ///< of sequences that began now: found in the cache, not to be computed
};

}  // namespace infcore::batch
