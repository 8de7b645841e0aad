#pragma once
#include <infcore/batch/continuous_batcher.hpp>
#include <infcore/batch/kv_blocks.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace infcore::engine {

struct TokenRunConfig {
  batch::KVBlocksConfig blocks;
  batch::ContinuousBatcherConfig batcher;
};

/// One token model on one device: a batcher over blocks of its own, the tokens of every sequence, and each step as the
/// arrays that a device takes. One thread at a time; time is handed in. Cost: the batcher's, and a copy of what a step
/// computes.
class TokenRun {
 public:
  /// What a sequence is called from outside: small numbers, used again.
  using Place = std::uint32_t;

  /// Throws InvalidArgument.
  explicit TokenRun(const TokenRunConfig&);

  struct Request {
    base::TimeNs arrival_ns{}, deadline_ns{base::never_ns};
    std::uint32_t n_new_max{1}, tenant{};
    std::uint16_t tier{};
  };
  /// Takes a sequence in; its tokens are copied. Throws InvalidArgument for what can never fit, QueueFull.
  Place add(std::span<const std::int64_t> tokens, const Request&);
  /// Ends a sequence wherever it is: its place is free, and so are its blocks once no step is out. A free place: nothing.
  void cancel(Place) noexcept;
  /// A second sequence that goes on from where the first is. Not while a step is out. Throws as add().
  Place fork(Place);

  /// Decides the next step; false: there is nothing to compute now. One that is out is answered by advance().
  [[nodiscard]] bool step(base::TimeNs now_ns);
  [[nodiscard]] const batch::TokenStep& current() const noexcept { return batcher_.last_step(); }
  /// Whose the step's rows are, and those of them that emit.
  [[nodiscard]] const std::vector<Place>& rows() const noexcept { return rows_; }
  [[nodiscard]] const std::vector<Place>& emitting() const noexcept { return emitting_; }
  [[nodiscard]] std::uint32_t n_tokens() const noexcept { return n_tokens_; }
  [[nodiscard]] std::uint32_t table_width() const noexcept { return table_width_; }

  /// Where the step's arrays are to be written: sizes as TokenBatch of python/infcore/token_device.py says.
  struct Arrays {
    std::int64_t* tokens;
    std::int32_t* positions;
    std::int32_t* cu_seqlens;
    std::int32_t* context_lens;
    std::int32_t* block_tables;
    std::int64_t* slot_mapping;
    std::uint8_t* emits;
  };
  void write(const Arrays&) const noexcept;
  static void write_moves(std::span<const batch::BlockMove>, std::int32_t* pairs) noexcept;

  /// The step was run: `made[i]` of its i-th row that emits, `ended[i]`: it is that sequence's last.
  void advance(std::span<const std::int64_t> made, std::span<const std::uint8_t> ended);

  [[nodiscard]] std::uint32_t n_sequences() const noexcept { return n_sequences_; }
  [[nodiscard]] const batch::KVBlocks& blocks() const noexcept { return blocks_; }
  [[nodiscard]] const batch::ContinuousBatcher& batcher() const noexcept { return batcher_; }

 private:
  struct Sequence {
    batch::SequenceId id{};  ///< 0: the place is free
    std::vector<std::int64_t> tokens{};
  };
  [[nodiscard]] bool is_taken(Place place) const noexcept {
    return place < sequences_.size() && sequences_[place].id != 0;
  }
  Place take_place();
  void forget(Place) noexcept;

  batch::KVBlocks blocks_;
  batch::ContinuousBatcher batcher_;
  std::vector<Sequence> sequences_;
  std::vector<Place> free_, rows_, emitting_;
  std::vector<std::uint64_t> names_;
  std::vector<std::int64_t> row_tokens_;
  std::vector<std::uint8_t> row_ended_;
  std::uint32_t n_sequences_{}, n_tokens_{}, table_width_{};
};

}  // namespace infcore::engine
