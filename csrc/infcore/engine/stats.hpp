#pragma once
#include <infcore/telemetry/histogram.hpp>

#include <cstdint>
#include <memory>

namespace infcore::engine {

/// Time spent in each stage. 150 KiB.
struct StageHistograms {
  telemetry::Histogram queue_s, batch_wait_s, service_s, latency_s;
};

struct Outcomes {
  std::uint64_t ok{}, failed{}, lost{}, expired{}, shed{}, cancelled{}, rejected{}, retried{};
  std::uint64_t batches{};
  double busy_s{}, work{};
};

/// Counts by outcome, and histograms where they are wanted; one per model and one per device. Written by the engine's
/// owner.
struct Stats : Outcomes {
  explicit Stats(bool with_stages) : stages(with_stages ? std::make_unique<StageHistograms>() : nullptr) {}
  Stats(const Stats& other)
      : Outcomes(other), stages(other.stages ? std::make_unique<StageHistograms>(*other.stages) : nullptr) {}
  Stats& operator=(const Stats&) = delete;

  std::unique_ptr<StageHistograms> stages;  ///< nullptr: not kept
};

}  // namespace infcore::engine
