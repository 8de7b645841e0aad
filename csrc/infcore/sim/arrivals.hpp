#pragma once
#include <infcore/base/draw.hpp>
#include <infcore/sim/config.hpp>
#include <infcore/sim/rate_curve.hpp>
#include <infcore/sim/work_draw.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace infcore::sim {

struct Arrival {
  TimeNs at_ns{base::never_ns};
  double work{};
  std::uint64_t session{};  ///< 0: none
  TimeNs deadline_ns{};     ///< relative; never_ns: none
  std::uint32_t workload{};
  std::uint32_t tenant{};  ///< 0: the workload's
  std::uint16_t tier{};
};

/// One workload's arrivals, one after another: a renewal process in the time of its rate curve, and, where requests
/// come in sessions, the later turns of the sessions that are under way. Gaps, works and sessions are drawn from
/// streams of their own, so that every policy is given the same requests. Memory: the sessions under way.
class ArrivalStream {
 public:
  ArrivalStream(const WorkloadConfig& config, std::uint32_t index, double seconds, std::uint64_t seed);

  /// never_ns: there are no more.
  [[nodiscard]] TimeNs next_ns() const noexcept { return next_.at_ns; }
  Arrival pop();

 private:
  struct Turn {
    TimeNs at_ns;
    std::uint64_t session, order;
    bool operator<(const Turn& other) const noexcept {  // for a heap with the earliest on top
      return at_ns != other.at_ns ? at_ns > other.at_ns : order > other.order;
    }
  };
  [[nodiscard]] double gap() noexcept;
  void draw_start();
  void choose_next();
  void plan_turn(TimeNs now_ns, std::uint64_t session);

  WorkloadConfig config_;
  RateCurve rate_;
  WorkDraw work_;
  base::Draw gaps_, works_, turns_;
  double starts_per_s_;  ///< of requests, or of sessions
  double end_s_;
  TimeNs start_ns_{base::never_ns};
  std::vector<Turn> waiting_{};
  std::uint64_t n_sessions_{}, n_turns_{};
  std::uint64_t session_tag_;
  Arrival next_{};
};

/// Arrivals that come from elsewhere, a trace for one, in pieces.
class RowStream {
 public:
  /// More rows, not earlier than those before. Precondition: starved().
  void feed(std::span<const Arrival> rows) {
    rows_.assign(rows.begin(), rows.end());
    at_ = 0;
  }
  void close() noexcept { closed_ = true; }
  [[nodiscard]] bool starved() const noexcept { return at_ == rows_.size() && !closed_; }
  [[nodiscard]] TimeNs next_ns() const noexcept { return at_ < rows_.size() ? rows_[at_].at_ns : base::never_ns; }
  Arrival pop() noexcept { return rows_[at_++]; }

 private:
  std::vector<Arrival> rows_;
  std::size_t at_{};
  bool closed_{};
};

}  // namespace infcore::sim
