#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/base/ids.hpp>

#include <cstdint>

namespace infcore::route {

/// One request, as routing sees it.
struct RouteQuery {
  base::ModelId model{};
  double work{1.0};
  std::uint16_t tier{};  ///< 0 is the most urgent
  base::TimeNs now_ns{};
  base::TimeNs deadline_ns{base::never_ns};
  std::uint64_t require{};  ///< label bits that a node must have
};

/// Microseconds that a node costs a request. The terms are float32 in the columns and so is their sum: `cost_us` is
/// what nodes are compared by, within a float32's rounding of the sum of the others.
struct CostTerms {
  double wait_us{};
  double service_us{};
  double load_us{};
  double network_us{};
  double cost_us{};
  bool late{};  ///< at the upper quantile of its service it would end after the deadline
};

}  // namespace infcore::route
