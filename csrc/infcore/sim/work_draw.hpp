#pragma once
#include <infcore/base/draw.hpp>
#include <infcore/sim/config.hpp>

#include <algorithm>
#include <cmath>

namespace infcore::sim {

/// Draws how much work a request is.
class WorkDraw {
 public:
  explicit WorkDraw(const WorkDist& dist) noexcept : dist_(dist), factor_(dist.cv) {
    // Pareto: cv^2 = 1 / (alpha (alpha - 2)), mean = alpha * least / (alpha - 1).
    if (dist.cv > 0.0) alpha_ = 1.0 + std::sqrt(1.0 + 1.0 / (dist.cv * dist.cv));
  }

  [[nodiscard]] double draw(base::Draw& draw) const noexcept {
    return std::clamp(unbounded(draw), dist_.at_least, dist_.at_most);
  }

 private:
  [[nodiscard]] double unbounded(base::Draw& draw) const noexcept {
    switch (dist_.kind) {
      case WorkDist::Kind::constant:
        return dist_.mean;
      case WorkDist::Kind::lognormal:
        return dist_.mean * factor_.draw(draw);
      case WorkDist::Kind::exponential:
        return dist_.mean * draw.exponential();
      case WorkDist::Kind::uniform:
        return dist_.low + (dist_.high - dist_.low) * draw.uniform();
      case WorkDist::Kind::gamma:
        return dist_.cv > 0.0 ? dist_.mean * draw.gamma(dist_.cv) : dist_.mean;
      case WorkDist::Kind::pareto:
        if (dist_.cv <= 0.0) return dist_.mean;
        return dist_.mean * (alpha_ - 1.0) / alpha_ * base::exp(std::min(draw.exponential() / alpha_, 700.0));
    }
    return dist_.mean;
  }

  WorkDist dist_;
  base::LognormalFactor factor_;
  double alpha_{};
};

}  // namespace infcore::sim
