#pragma once
#include <infcore/base/draw.hpp>
#include <infcore/contracts/latency.hpp>

#include <cstdint>

namespace infcore::device {

/// Draws service times: the curve's value times a lognormal factor of mean 1 and coefficient of variation `cv`. Seeded,
/// so that the live emulated device and the simulator's draw the same times on every machine.
class EmulatedTimer {
 public:
  EmulatedTimer(double cv, std::uint64_t seed) noexcept : factor_(cv), draw_(seed) {}

  [[nodiscard]] double service_s(const contracts::Curve& curve, const contracts::BatchShape& shape) noexcept {
    return curve.service_s(shape) * factor_.draw(draw_);
  }

 private:
  base::LognormalFactor factor_;
  base::Draw draw_;
};

}  // namespace infcore::device
