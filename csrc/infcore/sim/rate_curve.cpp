#include <infcore/base/draw.hpp>
#include <infcore/sim/rate_curve.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace infcore::sim {
namespace {

constexpr double for_ever = std::numeric_limits<double>::infinity();
constexpr int pieces_of_day = 288;  // five minutes of a day of 24 hours
constexpr int pieces_of_ramp = 32;

/// cos on [-pi, pi] without libm: cos(x) by Taylor at x / 4, then doubled twice; 1e-15.
double cosine(double x) noexcept {
  const double r = x * 0.25, r2 = r * r;
  double y = 1.0, term = 1.0;
  for (int k = 1; k <= 9; ++k) y += term *= -r2 / ((2 * k - 1) * (2 * k));
  for (int i = 0; i < 2; ++i) y = 2.0 * y * y - 1.0;
  return y;
}

/// A day's factor: ((1 + cos) / 2)^power, where power says how much of the day the peak is.
double day_factor(int piece, double power) noexcept {
  const double turn = (piece + 0.5) / pieces_of_day;  // the peak is at a quarter, the low at three quarters
  double angle = 2.0 * std::numbers::pi * (turn - 0.25);
  if (angle > std::numbers::pi) angle -= 2.0 * std::numbers::pi;
  const double height = 0.5 * (1.0 + cosine(angle));
  return height <= 0.0 ? 0.0 : base::exp(std::max(power * base::log(height), -700.0));
}

}  // namespace

RateCurve::RateCurve(const RateShape& shape) : phase_s_(shape.phase_s) {
  switch (shape.kind) {
    case RateShape::Kind::constant:
      add(for_ever, 1.0);
      return;
    case RateShape::Kind::onoff:
      add(shape.on_s, shape.on_factor);
      add(shape.off_s, 1.0);
      break;
    case RateShape::Kind::diurnal:
      add_day(shape.period_s, shape.peak_to_mean, 1.0);
      break;
    case RateShape::Kind::weekly:
      for (int day = 0; day < 7; ++day) {
        add_day(shape.period_s, shape.peak_to_mean, day < 5 ? 1.0 : shape.weekend_factor);
      }
      break;
    case RateShape::Kind::flash_sale: {
      const auto ramp = [&](bool up) {
        for (int i = 0; i < pieces_of_ramp && shape.ramp_s > 0.0; ++i) {
          const double part = (i + 0.5) / pieces_of_ramp;
          add(shape.ramp_s / pieces_of_ramp, 1.0 + (shape.peak_factor - 1.0) * (up ? part : 1.0 - part));
        }
      };
      add(shape.at_s, 1.0);
      ramp(true);
      add(shape.for_s, shape.peak_factor);
      ramp(false);
      add(for_ever, 1.0);
      return;
    }
  }
  repeats_ = true;
  scale_to_mean_1();
}

void RateCurve::add(double seconds, double factor) {
  if (seconds <= 0.0) return;
  pieces_.push_back({(pieces_.empty() ? 0.0 : pieces_.back().end_s) + seconds, factor});
}

/// The power is found by halving: the larger, the higher the peak over the mean.
void RateCurve::add_day(double period_s, double peak_to_mean, double factor) {
  const auto mean = [](double power) {
    double sum = 0.0;
    for (int piece = 0; piece < pieces_of_day; ++piece) sum += day_factor(piece, power);
    return sum / pieces_of_day;
  };
  double low = 0.0, high = 1.0;
  while (mean(high) * peak_to_mean > 1.0 && high < 1e6) high *= 2.0;
  for (int i = 0; i < 50; ++i) {
    const double middle = 0.5 * (low + high);
    (mean(middle) * peak_to_mean > 1.0 ? low : high) = middle;
  }
  const double scale = factor / mean(high);
  for (int piece = 0; piece < pieces_of_day; ++piece) add(period_s / pieces_of_day, scale * day_factor(piece, high));
}

void RateCurve::scale_to_mean_1() noexcept {
  double sum = 0.0, begin_s = 0.0;
  for (const Piece& piece : pieces_) {
    sum += piece.factor * (piece.end_s - begin_s);
    begin_s = piece.end_s;
  }
  for (Piece& piece : pieces_) piece.factor *= begin_s / sum;
}

void RateCurve::start_at(double t_s) noexcept {
  now_s_ = t_s + phase_s_;
  at_ = 0;
  round_s_ = repeats_ ? std::floor(now_s_ / pieces_.back().end_s) * pieces_.back().end_s : 0.0;
  while (round_s_ + pieces_[at_].end_s <= now_s_) next_piece();
}

void RateCurve::next_piece() noexcept {
  if (++at_ < pieces_.size()) return;
  at_ = 0;
  round_s_ += pieces_.back().end_s;
}

double RateCurve::advance(double amount) noexcept {
  if (repeats_ && amount >= pieces_.back().end_s) {  // whole rounds at once: each brings its length, the mean being 1
    const double rounds_s = std::floor(amount / pieces_.back().end_s) * pieces_.back().end_s;
    amount = std::max(0.0, amount - rounds_s);
    now_s_ += rounds_s;
    round_s_ += rounds_s;
  }
  for (;;) {
    const double end_s = round_s_ + pieces_[at_].end_s, factor = pieces_[at_].factor;
    const double room = (end_s - now_s_) * factor;  // infinity times a factor > 0 in a last piece
    if (amount < room) {
      now_s_ += amount / factor;
      return now_s_ - phase_s_;
    }
    if (end_s == for_ever) return for_ever;
    amount -= room;
    now_s_ = end_s;
    next_piece();
  }
}

}  // namespace infcore::sim
