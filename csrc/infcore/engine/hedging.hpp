#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/base/ids.hpp>
#include <infcore/engine/timers.hpp>

#include <cstdint>
#include <vector>

namespace infcore::engine {

/// What the machine keeps of requests that were sent to a second node as well. Such a request is a member of two
/// batches: where its slot says, which runs, and where its copy says.
struct HedgingState {
  struct Copy {
    std::uint64_t batch_id{};  ///< 0: it has none
    base::NodeId node{base::no_node};
    bool holds_credit{};  ///< reserved_ns, on `node`
    std::int64_t reserved_ns{};
    base::TimeNs bound_ns{base::never_ns};  ///< as the slot's
  };
  std::vector<Copy> copies{};  ///< by slot; empty: nothing is hedged
  Timers looks{};              ///< by node: when one of its batches is late
};

}  // namespace infcore::engine
