#pragma once
#include <array>
#include <bit>
#include <cstdint>

namespace infcore::engine {

/// How long a model's batches took, as a multiple of what was expected of each: on all its nodes together, since what
/// makes one late (a pause, a neighbour, a lost packet) is seldom the model's curve. Buckets of an eighth of an octave
/// from a quarter on; the past counts half as much after every `n_kept` batches. No libm: buckets are bits of a double.
class Lateness {
 public:
  static constexpr std::uint32_t n_buckets = 80;  ///< to 256 times
  static constexpr std::uint32_t n_kept = 2048;
  /// Fewer than that beyond a point say nothing about it.
  static constexpr std::uint32_t n_beyond_min = 4;
  /// For as long as not enough were seen: a batch that takes twice as long is late.
  static constexpr double multiple_at_start = 2.0;

  void observe(double multiple) noexcept {
    ++counts_[bucket_of(multiple)];
    if (++n_ < n_kept) return;
    n_ = 0;
    for (std::uint32_t& count : counts_) n_ += count /= 2;
  }

  /// The multiple that a share `q` of the batches stays below, at the bucket's upper end.
  [[nodiscard]] double quantile(double q) const noexcept {
    const double n_beyond = (1.0 - q) * n_;
    if (!(n_beyond >= n_beyond_min)) return multiple_at_start;
    double n_above = 0.0;
    for (std::uint32_t bucket = n_buckets; bucket-- > 0;) {
      n_above += counts_[bucket];
      if (n_above > n_beyond) return lower_end(bucket + 1);
    }
    return lower_end(0);
  }

  /// How much longer those took, on average, that took longer than this; 0 where that is not known.
  [[nodiscard]] double mean_excess(double multiple) const noexcept {
    std::uint32_t n_above = 0;
    double sum = 0.0;
    for (std::uint32_t bucket = bucket_of(multiple) + 1; bucket < n_buckets; ++bucket) {
      n_above += counts_[bucket];
      sum += counts_[bucket] * (0.5 * (lower_end(bucket) + lower_end(bucket + 1)) - multiple);
    }
    return n_above < n_beyond_min ? 0.0 : sum / n_above;
  }

  [[nodiscard]] std::uint32_t n_observed() const noexcept { return n_; }

 private:
  static constexpr unsigned shift = 49;                                                     // three bits of mantissa
  static constexpr std::uint64_t first = std::bit_cast<std::uint64_t>(0.25) >> shift;

  [[nodiscard]] static std::uint32_t bucket_of(double multiple) noexcept {
    if (!(multiple > 0.25)) return 0;
    const std::uint64_t bucket = (std::bit_cast<std::uint64_t>(multiple) >> shift) - first;
    return bucket < n_buckets ? static_cast<std::uint32_t>(bucket) : n_buckets - 1;
  }
  [[nodiscard]] static double lower_end(std::uint32_t bucket) noexcept {
    return std::bit_cast<double>((first + bucket) << shift);
  }

  std::array<std::uint32_t, n_buckets> counts_{};
  std::uint32_t n_{};
};

}  // namespace infcore::engine
