#pragma once
#include <infcore/sim/config.hpp>

#include <vector>

namespace infcore::sim {

/// A rate's factor over time in pieces of constant height, so that the time of the next arrival follows from a drawn
/// gap by walking over pieces. Repeats with its period, or goes on at its last height for ever.
class RateCurve {
 public:
  explicit RateCurve(const RateShape& shape);

  /// The time at which `amount` more has come together since the last call (seconds at factor 1), starting at `start_s`
  /// with the first; infinity where that is never. Cost: O(pieces passed).
  double advance(double amount) noexcept;
  void start_at(double t_s) noexcept;

 private:
  struct Piece {
    double end_s;  ///< within the period
    double factor;
  };
  void add(double seconds, double factor);
  void add_day(double period_s, double peak_to_mean, double factor);
  void scale_to_mean_1() noexcept;
  void next_piece() noexcept;

  std::vector<Piece> pieces_;
  bool repeats_{};
  std::size_t at_{};
  double now_s_{}, round_s_{}, phase_s_{};  ///< round_s_: where the present period began
};

}  // namespace infcore::sim
