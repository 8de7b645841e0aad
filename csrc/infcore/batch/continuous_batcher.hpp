#pragma once
// How to use it, from C++ (Python: infcore.KVBlocks, infcore.ContinuousBatcher; the same calls, arrays for spans):
//
//   KVBlocks kv({.n_blocks = 4096, .block_size = 16, .n_host_blocks = 0}, cache::make_eviction_policy("lru"));
//   ContinuousBatcher batcher(kv, {.token_budget = 2048, .max_running = 256});
//   SequenceId id = batcher.add({.cookie = 7, .n_prompt_tokens = 100, .n_output_tokens_max = 20, .prompt_hashes =
//   hashes}); for (;;) {
//     const TokenStep& step = batcher.step(now_ns);       // what to run now; step.rows may be empty
//     ...move step.swap_outs, then step.copies, then step.swap_ins; then run step.rows:
//        row r's token t lies in block batcher.blocks(row)[t / block_size], slot t % block_size
//     batcher.advance(tokens, ended);                     // tokens[i]: what row i emitted; ended[i]: its caller says
//     so for (const TokenRow& row : batcher.ended()) ...     // told once, then the id is forgotten
//   }
//
// Every step() is answered by one advance() before the next step(). cancel() may come at any time: what is in the step
// keeps its blocks until advance(). A device that failed: cancel() its rows, then advance().
#include <infcore/base/clock.hpp>
#include <infcore/base/indexed_heap.hpp>
#include <infcore/batch/kv_blocks.hpp>
#include <infcore/batch/token_step.hpp>
#include <infcore/contracts/token_curve.hpp>

#include <compare>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace infcore::batch {

struct ContinuousBatcherConfig {
  std::uint32_t token_budget = 2048;        ///< tokens of one step, >= 1
  std::uint32_t max_running = 256;          ///< sequences that hold blocks at once, >= 1
  std::uint32_t max_sequences = 4096;       ///< that wait or run, >= max_running
  std::uint32_t max_sequence_tokens = 0;    ///< prompt and output; 0: as many as n_blocks hold
  base::TimeNs ageing_ns = base::never_ns;  ///< who has waited this long goes before everything younger
  contracts::TokenCurve curve;              ///< what recomputing and swapping cost; all 0: always recompute
};

struct SequenceSpec {
  std::uint64_t cookie{};                     ///< the caller's; comes back in rows
  base::TimeNs arrival_ns{};                  ///< orders sequences of one tier; any value
  base::TimeNs deadline_ns = base::never_ns;  ///< to begin by; once it runs, the caller cancels what is late
  std::uint16_t tier{};                       ///< 0 is the most urgent
  std::uint32_t tenant{};           ///< carried for the caller; decides nothing here: tenants are treated fairly before
  std::uint32_t n_prompt_tokens{};  ///< >= 1
  std::uint32_t n_output_tokens_max{};  ///< it ends once it has so many; 0: once its prompt is computed
  std::uint64_t salt{};                 ///< of prompt_hashes
  /// Chained names of the prompt's full blocks (contracts/block_hash.hpp); empty: nothing of it is looked up or kept.
  std::span<const std::uint64_t> prompt_hashes;
  /// The prompt's tokens after its last full block: with them, and with tokens told to advance(), the blocks that it
  /// generates get names too. Empty otherwise.
  std::span<const std::int64_t> prompt_tail;
};

/// Decides what each step of a token model computes: running sequences get their next token, prefills go in chunks,
/// and new sequences come in as blocks, places and the token budget allow.
///
/// Rank of running sequences: aged first, then by tier, arrival, id. A step gives tokens to decodes by rank, then to
/// prefills by rank, then to who comes in. Turn of waiting ones: aged (oldest first), then by tier; in a tier those
/// that were pre-empted (by arrival) before the others (by deadline, arrival, id). Nobody overtakes: where the next in
/// turn does not fit, nobody comes in.
///
/// A sequence comes in when blocks for all its known tokens are there, and one more for each that runs; they are its
/// own at once, so a prefill is never short of blocks. A decode that lacks a block pre-empts the running sequence of
/// the last rank, or itself if that is the last. A waiting sequence pre-empts running ones of later tiers that are not
/// aged, last rank first, where that makes it fit, and only then. What is pre-empted goes to host blocks where that is
/// cheaper by the curve than computing it again, and there is room.
///
/// Progress: the running sequence of the first rank is never pre-empted for lack of blocks and each one fits alone (add
/// refuses others), so each step with work computes at least one token, and no two sequences pre-empt each other in
/// turn. In a step that pre-empts, nobody else comes in.
///
/// Cost: step() O(rows + (came in + went) log waiting) and one look-up per block of the next in turn. Bounded by
/// max_sequences; add() allocates, step() and advance() don't once as many sequences as ever run together have run.
/// One thread at a time. Time is handed in; a time before the last one counts as that one. No random source.
/// Sources, for the ideas: iteration-level scheduling, Orca (OSDI 2022); paged blocks and recompute or swap, vLLM (SOSP
/// 2023); chunked prefills beside decodes, Sarathi-Serve (OSDI 2024).
class ContinuousBatcher {
 public:
  static constexpr std::uint32_t n_sequences_max = 1u << 20;

  /// `kv` is borrowed, and all its uses are this batcher's until it is destroyed. Throws InvalidArgument.
  ContinuousBatcher(KVBlocks& kv, const ContinuousBatcherConfig& config);
  ~ContinuousBatcher();
  ContinuousBatcher(const ContinuousBatcher&) = delete;
  ContinuousBatcher& operator=(const ContinuousBatcher&) = delete;

  /// Instead of the configuration's, for sequences that begin to wait from now on.
  void set_ageing(base::TimeNs ageing_ns) noexcept { config_.ageing_ns = ageing_ns; }
  /// Takes a sequence in; it waits. Throws InvalidArgument for what can never fit, QueueFull at max_sequences.
  SequenceId add(const SequenceSpec& spec);
  /// Ends a sequence wherever it is; false: it has ended already.
  bool cancel(SequenceId id) noexcept;
  /// A second sequence that goes on from where the first is. One that decodes shares all its blocks, and each copies
  /// the last one when it writes there; where no place is free, or the first one has not begun to decode, the fork
  /// waits. Not while a step is out. Throws InvalidArgument, QueueFull.
  SequenceId fork(SequenceId id, std::uint64_t cookie);
  /// What to run now. Precondition: not step_is_out().
  const TokenStep& step(base::TimeNs now_ns) noexcept;
  /// The step was run. `tokens`: one a row, those of rows that emit count; or empty: not told, and blocks generated
  /// from now on get no names. `ended`: one a row, not 0 where the caller says that it ends; or empty.
  void advance(std::span<const std::int64_t> tokens, std::span<const std::uint8_t> ended) noexcept;

  [[nodiscard]] bool step_is_out() const noexcept { return step_is_out_; }
  [[nodiscard]] const TokenStep& last_step() const noexcept { return step_; }
  /// Rows of the last step whose sequences ended with it, not those cancelled. Valid until the next advance().
  [[nodiscard]] std::span<const TokenRow> ended() const noexcept { return ended_; }
  /// The row's blocks, in the order of its tokens. Valid until the next step().
  [[nodiscard]] std::span<const BlockId> blocks(const TokenRow& row) const noexcept {
    return {tables_.get() + std::size_t{row.place} * n_blocks_per_row_, row.n_blocks};
  }
  [[nodiscard]] std::uint32_t n_blocks_per_row() const noexcept { return n_blocks_per_row_; }
  [[nodiscard]] std::uint32_t n_running() const noexcept { return static_cast<std::uint32_t>(running_.size()); }
  [[nodiscard]] std::uint32_t n_waiting() const noexcept { return turns_.size(); }
  [[nodiscard]] std::uint64_t n_preempted() const noexcept { return n_preempted_; }
  [[nodiscard]] std::uint64_t n_swapped_out() const noexcept { return n_swapped_out_; }
  /// When step() has something to tell though nothing runs: the next deadline or ageing of a waiting one; never_ns.
  [[nodiscard]] base::TimeNs next_event_ns() const noexcept {
    return events_.empty() ? base::never_ns : events_.top_key().at_ns;
  }

 private:
  using Slot = std::uint32_t;
  enum class State : std::uint8_t { none, waiting, running };
  struct Turn {
    bool young;
    std::uint16_t tier;
    bool fresh;  ///< never pre-empted
    base::TimeNs deadline_ns;
    base::TimeNs arrival_ns;
    SequenceId id;
    auto operator<=>(const Turn&) const = default;
  };
  struct Event {
    base::TimeNs at_ns;
    SequenceId id;
    auto operator<=>(const Event&) const = default;
  };
  struct Sequence {
    SequenceId id{};
    std::uint64_t cookie{};
    base::TimeNs arrival_ns{};
    base::TimeNs deadline_ns{};
    std::uint64_t salt{};
    std::uint64_t preempted_in{};  ///< the step
    std::uint32_t n_prompt{};
    std::uint32_t n_output_max{};
    std::uint32_t n_known{};     ///< tokens of the prompt and emitted ones
    std::uint32_t n_computed{};  ///< of them; while it waits: those that are in host blocks
    std::uint32_t n_blocks{};
    std::uint32_t n_stored{};  ///< leading blocks that have their name
    std::uint32_t place{};
    std::uint16_t tier{};
    State state{};
    bool aged{};
    bool preempted{};
    bool in_step{};
    bool cancelled{};
    bool names_outputs{};
    std::vector<std::uint64_t> names;  ///< of full blocks of known tokens
    std::vector<std::int64_t> tail;    ///< known tokens after them
    std::vector<BlockId> host;         ///< where its n_computed tokens are
    [[nodiscard]] bool decodes() const noexcept { return n_known > n_prompt && n_computed + 1 == n_known; }
  };

  [[nodiscard]] Slot slot_of(SequenceId id) const noexcept;
  [[nodiscard]] std::uint32_t n_blocks_of(std::uint64_t n_tokens) const noexcept;
  [[nodiscard]] std::span<BlockId> table(const Sequence& s) noexcept;
  [[nodiscard]] std::span<const std::uint64_t> names_to_match(const Sequence& s) const noexcept;
  [[nodiscard]] bool ranks_before(Slot a, Slot b) const noexcept;
  void check(const SequenceSpec& spec) const;
  Slot take_slot();
  void forget(Slot slot) noexcept;
  void wait(Slot slot) noexcept;
  void leave_queue(Slot slot) noexcept;
  void push_turn(Slot slot) noexcept;
  void push_event(Slot slot) noexcept;
  void run(Slot slot) noexcept;
  void stop(Slot slot) noexcept;
  void note_token(Sequence& s, std::span<const std::int64_t> tokens, std::size_t row) noexcept;
  void store_full_blocks(Sequence& s) noexcept;

  // continuous_step.cpp
  void pass_time(base::TimeNs now_ns) noexcept;
  void make_way() noexcept;
  [[nodiscard]] std::uint32_t n_victims_for(const Sequence& s) noexcept;
  [[nodiscard]] bool fits(const Sequence& s) const noexcept;
  void run_decodes() noexcept;
  void run_prefills() noexcept;
  void let_in() noexcept;
  void start(Slot slot) noexcept;
  [[nodiscard]] bool own_last_block(Slot slot) noexcept;
  void preempt(Slot slot) noexcept;
  void schedule(Slot slot, std::uint32_t n_tokens) noexcept;

  KVBlocks& kv_;
  ContinuousBatcherConfig config_;
  std::uint32_t n_blocks_per_row_;
  std::uint32_t id_bits_;  ///< of an id that are its slot
  std::vector<Sequence> sequences_;
  std::vector<Slot> free_slots_;
  std::vector<std::uint32_t> free_places_;
  std::unique_ptr<BlockId[]> tables_;  ///< max_running rows; not written before it is used, so mostly not in memory
  std::vector<Slot> running_;          ///< by rank
  base::IndexedHeap<Turn> turns_;
  base::IndexedHeap<Event> events_;
  std::vector<BlockId> host_leaving_;    ///< read by the step that is out; free from the next one on
  std::vector<std::uint32_t> n_let_go_;  ///< per block, while victims are weighed; 0 otherwise
  std::vector<BlockId> found_;           ///< what the next in turn would find, meanwhile
  TokenStep step_;
  std::vector<TokenRow> ended_;
  std::uint64_t n_added_{};
  std::uint64_t n_steps_{};
  std::uint64_t n_preempted_{};
  std::uint64_t n_swapped_out_{};
  base::TimeNs now_ns_;
  std::uint32_t budget_left_{};
  bool step_is_out_{};
};

}  // namespace infcore::batch
