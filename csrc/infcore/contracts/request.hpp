#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/base/ids.hpp>

#include <cstdint>

namespace infcore::contracts {

/// No request's work is more, wherever it comes from: sums of 8 M of them, and their products with a curve's terms,
/// stay exact enough, and fit into a float32.
inline constexpr double request_work_max = 1e15;

/// One request as every stage sees it. Plain data: the payload stays with the driver, behind `cookie`.
struct Request {
  std::uint64_t cookie{};  ///< the driver's own handle; handed back, never looked into
  base::TimeNs arrival_ns{};
  base::TimeNs deadline_ns{base::never_ns};
  double work{1.0};         ///< in the unit of the model's latency curve (items, tokens, pixels)
  std::uint64_t require{};  ///< label bits that a node must have
  base::ModelId model{};
  std::uint32_t tenant{};   ///< whose it is, as the driver numbers them; 0: nobody's in particular
  std::uint16_t tier{};     ///< 0 is the most urgent
  bool has_stale{};         ///< an answer from before is at hand
  bool is_cached{};         ///< so is the answer itself: it is told of, and never queued
  base::TimeNs defer_ns{};  ///< the longest that it may be put off under load; 0: not at all
  std::uint64_t session{};  ///< whose requests belong together; 0: none
  /// Of a token model's prompt: the chained names of its full blocks (contracts/block_hash.hpp), which the driver keeps
  /// until the request has ended; 0 tokens: not known.
  const std::uint64_t* blocks{};
  std::uint32_t n_blocks{}, block_size{}, prompt_tokens{};
};

}  // namespace infcore::contracts
