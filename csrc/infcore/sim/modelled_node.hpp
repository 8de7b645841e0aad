#pragma once
#include <infcore/base/draw.hpp>
#include <infcore/sim/config.hpp>

#include <array>
#include <cstdint>
#include <vector>

namespace infcore::sim {

/// One batch on one of a node's slots, from the call until its answer is in or it was given up for dead.
struct Run {
  std::uint64_t batch_id{};
  TimeNs start_ns{}, end_ns{};  ///< on the device; the answer is half a round trip later
  ModelId model{};
  std::uint32_t n_requests{};
  bool active{};  ///< the device is at it, or its answer is under way
  bool fails{};   ///< the run raises
  bool silent{};  ///< nobody hears of its end
  bool held{};    ///< done, but its answer cannot get through at present
};

/// What a node is really like, as against what the engine believes of it.
struct ModelledNode {
  std::array<std::uint16_t, n_fault_kinds> under{};    ///< faults of each kind that are on; they may overlap
  double slow_factor{1.0}, error_rate{}, lost_rate{};  ///< of those that are on
  double antagonist_factor{1.0};
  std::vector<std::uint32_t> antagonists{};  ///< indices of those that are on it now and then
  base::Draw draw{0};
  TimeNs half_rtt_ns{}, hung_since_ns{};
  std::uint32_t first_run{}, n_runs{};
  std::uint32_t crashes{};           ///< counts them: what was planned before the last one is void
  std::vector<std::uint8_t> cold{};  ///< by model: its next batch warms up
  std::int32_t loading{-1};          ///< the model that the engine had it load
  TimeNs load_begun_ns{};
  bool load_held{};                             ///< it is done, but nobody can be told at present
  std::vector<std::uint8_t> in_memory{};        ///< by model: its weights are, or are on their way
  std::uint64_t memory_in_use{};                ///< by these; kept where the engine decides
  std::vector<base::LognormalFactor> spread{};  ///< by model

  [[nodiscard]] bool is(FaultKind kind) const noexcept { return under[static_cast<std::size_t>(kind)] > 0; }
  /// Nothing gets in or out, or nothing is computed.
  [[nodiscard]] bool stalled() const noexcept { return is(FaultKind::hang) || is(FaultKind::partition); }
  [[nodiscard]] bool answers() const noexcept { return !stalled() && !is(FaultKind::crash); }
};

}  // namespace infcore::sim
