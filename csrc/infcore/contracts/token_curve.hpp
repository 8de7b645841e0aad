#pragma once
#include <algorithm>
#include <cstdint>

namespace infcore::contracts {

/// What one step of a token model has to do.
struct StepWork {
  std::uint64_t n_prefill_tokens{};  ///< in all chunks together
  std::uint64_t n_decode_rows{};     ///< sequences that get one token each
  std::uint64_t n_context_tokens{};  ///< that the decoding rows read
};

/// Seconds of a step of a token model, from what is in it. All terms >= 0 but the two squares, which may be negative
/// where a device grows into its work; a sum below 0 counts as 0.
struct TokenCurve {
  double base_s{};
  double prefill_base_s{};  ///< of a step with prefill tokens
  double per_prefill_token_s{};
  double per_prefill_token2_s{};
  double decode_base_s{};  ///< of a step with decoding rows
  double per_decode_s{};
  double per_context_token_s{};
  double per_context_token2_s{};
  double swap_block_s{};  ///< one block from the device to the host, or back

  [[nodiscard]] double step_s(const StepWork& work) const noexcept {
    double s = base_s;
    if (work.n_prefill_tokens > 0) s += prefill_base_s + tokens_s(static_cast<double>(work.n_prefill_tokens));
    if (work.n_decode_rows > 0) {
      const auto context = static_cast<double>(work.n_context_tokens);
      s += decode_base_s + per_decode_s * static_cast<double>(work.n_decode_rows) + per_context_token_s * context +
           per_context_token2_s * context * context;
    }
    return std::max(s, 0.0);
  }

  /// What computing tokens [0, n) adds to steps that run anyway.
  [[nodiscard]] double recompute_s(std::uint64_t n_tokens) const noexcept {
    return std::max(tokens_s(static_cast<double>(n_tokens)), 0.0);
  }

  /// What moving so many blocks to the host and back takes.
  [[nodiscard]] double swap_s(std::uint64_t n_blocks) const noexcept {
    return 2.0 * swap_block_s * static_cast<double>(n_blocks);
  }

 private:
  [[nodiscard]] double tokens_s(double n) const noexcept {
    return per_prefill_token_s * n + per_prefill_token2_s * n * n;
  }
};

}  // namespace infcore::contracts
