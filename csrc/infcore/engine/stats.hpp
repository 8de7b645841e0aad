#pragma once
#include <infcore/engine/actions.hpp>
#include <infcore/telemetry/histogram.hpp>

#include <cstdint>
#include <memory>

namespace infcore::engine {

/// Time spent in each stage, and from arrival to a token model's first token. 190 KiB.
struct StageHistograms {
  telemetry::Histogram queue_s, batch_wait_s, service_s, latency_s, ttft_s;
};

struct Outcomes {
  std::uint64_t ok{}, failed{}, lost{}, expired{}, shed{}, cancelled{}, rejected{}, retried{};
  std::uint64_t batches{};
  std::uint64_t cached{};    ///< answered from the cache, and in none of the above
  std::uint64_t attached{};  ///< of them, those who waited for an equal request's run
  /// Of admission. The first three are among rejected, and cancelled, too.
  std::uint64_t infeasible{}, overloaded{}, displaced{}, stale{}, cheaper{}, deferred{};
  /// Requests sent to a second node as well, those answered by it, and seconds of runs that another outran; runs that
  /// were not done again for want of retry budget.
  std::uint64_t hedged{}, hedge_won{}, unretried{};
  std::uint64_t ejections{};                         ///< of a device
  std::uint64_t loads{}, loads_failed{}, unloads{};  ///< of models on a device, where the engine decides which
  double busy_s{}, work{}, hedge_wasted_s{}, load_s{};
};

/// Counts by outcome, and histograms where they are wanted; one per model and one per device. Written by the engine's
/// owner.
struct Stats : Outcomes {
  explicit Stats(bool with_stages) : stages(with_stages ? std::make_unique<StageHistograms>() : nullptr) {}
  Stats(const Stats& other)
      : Outcomes(other), stages(other.stages ? std::make_unique<StageHistograms>(*other.stages) : nullptr) {}
  Stats& operator=(const Stats&) = delete;

  std::unique_ptr<StageHistograms> stages;  ///< nullptr: not kept

  /// One request that ended so.
  void count(Reason reason) noexcept {
    switch (reason) {
      case Reason::ok:
        ++ok;
        break;
      case Reason::deadline:
        ++expired;
        break;
      case Reason::early_drop:
        ++shed;
        break;
      case Reason::device_lost:
        ++lost;
        break;
      case Reason::device_failed:
        ++failed;
        break;
      case Reason::displaced:
        ++displaced;
        break;
      case Reason::unloaded:
        ++rejected;
        break;
      default:
        ++cancelled;
        break;
    }
  }
};

}  // namespace infcore::engine
