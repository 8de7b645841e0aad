#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/base/ids.hpp>

#include <cstdint>
#include <span>

namespace infcore::route {

/// One request, as routing sees it.
struct RouteQuery {
  base::ModelId model{};
  double work{1.0};
  std::uint16_t tier{};  ///< 0 is the most urgent
  base::TimeNs now_ns{};
  base::TimeNs deadline_ns{base::never_ns};
  std::uint64_t require{};  ///< label bits that a node must have
  std::uint64_t session{};  ///< names whose requests belong together; 0: none
  /// A policy's own narrowing: nodes that may be candidates, 64 a word, a word for each 64 ids of the fleet. None: all.
  /// Valid during the call alone, as the next is.
  const std::uint64_t* among{};
  /// Chained hashes of its prompt's blocks, see contracts/block_hash.hpp.
  std::span<const std::uint64_t> blocks{};
};

/// Microseconds that a node costs a request. The terms are float32 in the columns and so is their sum: `cost_us` is
/// what nodes are compared by, within a float32's rounding of the sum of the others. A policy without a term has 0
/// there.
struct CostTerms {
  double wait_us{};      ///< before the node starts on it
  double service_us{};   ///< by the pair's latency curve
  double pressure_us{};  ///< what a busy processor or full memory adds
  double load_us{};      ///< until the model is there, and what is evicted for it costs to bring back
  double network_us{};
  double saving_us{};   ///< what the node need not compute, since it holds that part of the prompt; taken off
  double price_us{};    ///< its money, as microseconds by the policy's price weight
  double risk_us{};     ///< of missing the deadline
  double explore_us{};  ///< what finding out about a node is worth, or costs
  double cost_us{};
  double saved_work{};  ///< of the request's work, what saving_us is about
  bool late{};          ///< at the upper quantile of its service it would end after the deadline
};

}  // namespace infcore::route
