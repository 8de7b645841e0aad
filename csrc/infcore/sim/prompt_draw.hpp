#pragma once
#include <infcore/base/draw.hpp>
#include <infcore/sim/config.hpp>
#include <infcore/sim/work_draw.hpp>

#include <cstdint>
#include <vector>

namespace infcore::sim {

/// What a token request is: its prompt begins with `shared` tokens that are its group's, then come those of `content`,
/// its conversation's or its own. Equal names stand for equal tokens, whatever their number.
struct TokenWork {
  std::uint64_t group{}, content{};
  std::uint32_t prompt{}, output{};  ///< tokens; output 0: the model makes none
  std::uint32_t shared{};
  std::uint32_t known{};  ///< of the prompt, tokens that were in an earlier one: its group's, or the conversation's
};

/// Draws the prompts and outputs of one workload, from a stream of its own.
class PromptDraw {
 public:
  PromptDraw(const WorkloadConfig& config, std::uint32_t index, base::Draw draw);

  /// A request by itself, or the first of a conversation.
  [[nodiscard]] TokenWork begin() noexcept;
  /// The next turn: the conversation with its answer, and a question more. Where that doesn't fit: a new conversation.
  [[nodiscard]] TokenWork follow(const TokenWork& before) noexcept;

 private:
  [[nodiscard]] std::uint32_t tokens(const WorkDraw& dist) noexcept;
  [[nodiscard]] std::uint32_t draw_group() noexcept;

  WorkDraw prompts_, outputs_;
  PrefixConfig prefix_;
  std::uint32_t context_tokens_max_;
  std::uint64_t tag_;  ///< of the workload, in names
  std::uint64_t n_contents_{};
  base::Draw draw_;
  std::vector<double> popularity_{};  ///< summed up
};

}  // namespace infcore::sim
