#pragma once
#include <infcore/telemetry/histogram.hpp>

#include <cstdint>

namespace infcore::engine {

/// Counts by outcome and the time spent in each stage; one per model and one per device. Written by the engine's owner.
struct Stats {
  std::uint64_t ok{}, failed{}, lost{}, expired{}, cancelled{}, rejected{}, retried{};
  std::uint64_t batches{};
  double busy_s{}, work{};
  telemetry::Histogram queue_s, batch_wait_s, service_s, latency_s;
};

}  // namespace infcore::engine
