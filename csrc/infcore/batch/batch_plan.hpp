#pragma once
#include <infcore/batch/batching_policy.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <span>

namespace infcore::batch {

/// What a plan takes for granted.
struct PlanTerms {
  double spreads;       ///< so many of the curve's spreads above its mean, and a request still counts as in time
  std::uint32_t n_cap;  ///< of each batch
  /// A batch of t seconds lets the lane's next one begin after t times this: less than 1 where other devices serve the
  /// lane too, more where other queues take turns on this one.
  double next_start;
};

/// What more urgent ones have put into the first batch.
struct StartedBatch {
  std::uint32_t room;                                  ///< how many more it takes
  contracts::BatchShape shape{};                       ///< nothing: the plan may begin with any
  double limit_s{std::numeric_limits<double>::max()};  ///< by when it must have ended

  void add(base::TimeNs now_ns, const Waiting& w) noexcept {
    --room;
    shape.add(w.work);
    limit_s = std::min(limit_s, base::seconds(w.deadline_ns - now_ns));
  }
};

/// The first batch of a plan.
struct FirstBatch {
  std::uint32_t n_skipped;  ///< those before it, who would make it smaller than they are worth
  std::uint32_t n_taken;    ///< 0: nobody of these
};

/// Plans the batches of a queue on a device: in the order given, each batch as large as its earliest deadline allows,
/// some requests left out, such that (requests in time) - price * (seconds of the device) is greatest. The first batch
/// is what counts; the others say what it does to those after it.
///
/// Layer j of the plan holds, for each place i in the queue, the best way to have passed the first i in j batches. As
/// only the best way is kept, and each batch is as large as may be, this is a heuristic for a problem that is NP-hard
/// in general (batch scheduling with deadlines: P. Brucker and M. Y. Kovalyov, "Single machine batch scheduling to
/// minimize the weighted number of late jobs", Mathematical Methods of Operations Research 43, 1996); the exact
/// programme over all batch sizes did no better in the simulator, with or without layers beyond the fifth. Cost:
/// O(n_layers * n); no allocation, about 55 KiB of stack.
class BatchPlan {
 public:
  static constexpr std::uint32_t n_max = BatchingPolicy::n_waiting_shown_max;
  static constexpr std::uint32_t n_layers = 5;

  BatchPlan(const contracts::LatencyModel& device_curve, const PlanTerms& terms) noexcept
      : curve_(device_curve), terms_(terms), late_factor_(1.0 + terms.spreads * device_curve.spread()) {}

  /// `waiting`: one class of urgency, at most n_max. Where nobody is in time at the terms' spreads, by the mean:
  /// somebody may be lucky.
  [[nodiscard]] FirstBatch first(base::TimeNs now_ns, std::span<const Waiting> waiting, const StartedBatch& started,
                                 double price_per_s) noexcept;

  /// When a batch that is sent now has ended, if the device is slow.
  [[nodiscard]] double late_s(const contracts::BatchShape& shape) const noexcept {
    return curve_.service_s(shape) * late_factor_;
  }

 private:
  struct Label {
    double value;    ///< none: no way leads here
    double start_s;  ///< of the next batch
    FirstBatch first;
  };
  static constexpr double none = -1e300;
  static constexpr std::uint32_t n_levels = 9;  // 2^8 = n_max

  void load(base::TimeNs now_ns, std::span<const Waiting> waiting) noexcept;
  [[nodiscard]] double earliest_s(std::uint32_t from, std::uint32_t end) const noexcept;
  [[nodiscard]] double work_max(std::uint32_t from, std::uint32_t end) const noexcept;
  [[nodiscard]] contracts::BatchShape joined(const StartedBatch&, std::uint32_t from, std::uint32_t end) const noexcept;
  template <class InTime>
  static std::uint32_t last_in_time(std::uint32_t from, std::uint32_t guess, std::uint32_t most,
                                    const InTime& in_time) noexcept;
  [[nodiscard]] FirstBatch with_lucky(const StartedBatch& started, const FirstBatch& safe) const noexcept;
  [[nodiscard]] Label best(const StartedBatch& started, double price_per_s, double late_factor) noexcept;
  bool extend(const StartedBatch* started, double price_per_s, double late_factor) noexcept;

  const contracts::LatencyModel& curve_;
  PlanTerms terms_;
  double late_factor_;
  std::uint32_t n_{};
  bool sorted_{}, alike_{};  ///< deadlines in order; works all the same: then ranges need no tables
  double work_mean_{};
  std::array<double, n_max + 1> work_before_{};                        ///< sums
  std::array<std::array<double, n_max>, n_levels> deadline_s_, work_;  ///< least / most of 2^level from here on
  std::array<Label, n_max + 1> labels_, next_labels_;
};

}  // namespace infcore::batch
