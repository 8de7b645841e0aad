#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/base/ids.hpp>
#include <infcore/contracts/latency.hpp>

#include <cstdint>
#include <vector>

namespace infcore::engine {

using base::ModelId;
using base::TimeNs;

/// A batch from the moment its node is called until it ends. While open, requests of its model that the node may run
/// still join; of a lane that is bound to the node, those of that lane.
struct Batch {
  std::uint64_t id{};
  std::uint32_t lane{};  ///< whose turn it was; others of the model may be in it, too
  ModelId model{};
  bool open{}, running{};
  TimeNs opened_ns{}, start_ns{}, expected_end_ns{};
  std::uint64_t joins_from_seq{};  ///< whoever arrived before was not selected, and does not join either
  contracts::BatchShape shape{};
  contracts::BatchShape beside{};        ///< all that its node had when it started, this one included
  std::vector<std::uint32_t> members{};  ///< request slots
  TimeNs late_ns{base::never_ns};        ///< when it is later than almost all are; never_ns: it is not hedged
  TimeNs look_ns{base::never_ns};        ///< when to look whether it is to be hedged
  std::uint32_t n_outrun{};              ///< members whose other copy was answered while this one ran
};

}  // namespace infcore::engine
