#pragma once
#include <infcore/contracts/block_hash.hpp>
#include <infcore/sim/prompt_draw.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace infcore::sim {

/// The tokens of a request's prompt and of its answer, made up: the same wherever the request says that they are the
/// same, so that prefixes are found again as in a real cache, under the names of contracts/block_hash.hpp.
class TokenContent {
 public:
  static constexpr std::uint32_t recorded_tokens = 512;  ///< in a block of a Mooncake trace

  /// `recorded`: names of the prompt's blocks in the trace that it is from; empty: it was drawn.
  TokenContent(const TokenWork& work, std::span<const std::uint64_t> recorded) noexcept
      : work_(&work), recorded_(recorded) {}

  [[nodiscard]] std::int64_t at(std::uint32_t position) const noexcept {
    if (position < work_->shared) return made_up(work_->group, position);
    const std::uint32_t block = position / recorded_tokens;
    if (position < work_->prompt && block < recorded_.size()) return made_up(~recorded_[block], position);
    return made_up(work_->content, position);
  }

  /// The prompt's tokens into `tokens`, the names of its full blocks into `names`.
  void prompt(std::uint32_t block_size, std::vector<std::int64_t>& tokens, std::vector<std::uint64_t>& names) const {
    tokens.resize(work_->prompt);
    for (std::uint32_t i = 0; i < work_->prompt; ++i) tokens[i] = at(i);
    names.resize(work_->prompt / block_size);
    contracts::hash_blocks(tokens.data(), block_size, 0, names);
  }

 private:
  [[nodiscard]] static std::int64_t made_up(std::uint64_t of, std::uint32_t position) noexcept {
    return static_cast<std::int64_t>((of + position) * 0x9E37'79B9'7F4A'7C15u >> 32);
  }

  const TokenWork* work_;
  std::span<const std::uint64_t> recorded_;
};

}  // namespace infcore::sim
