#pragma once
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <infcore/base/align.hpp>
#include <memory>
#include <span>

namespace infcore::telemetry {

/// Counts of durations in log-linear buckets: every power of two is cut into 128 equal parts, so a bucket is at most
/// 1/128 of its lower bound wide and its middle is within 1/256 (0.4 %) of all it holds. The idea is that of
/// HdrHistogram (G. Tene, public description) and DDSketch (Masson, Rim, Lee, PVLDB 12(12), 2019). Ours takes the
/// bucket straight from the bits of the double (exponent, then the top 7 bits of the mantissa): no logarithm, no libm,
/// so the same value has the same bucket on every machine, and every range shares one grid.
///
/// There is no running total: sum and mean come from the buckets, within the same 0.4 %. A floating-point total would
/// cost 1.9 ns more per record (it chains through memory; measured 2.9 against 1.0) and depend on the order of
/// recording; this way a merge is the union, to the bit.
///
/// Values below min_s or above max_s count as that bound. Memory: 8 bytes a bucket, 36 KiB for the default range.
/// Threads: `record`, `record_ns` and `merge` have one writer at a time, and then any number of readers; the `_shared`
/// calls have any number of writers, none of them a plain one. All wait-free, but for an extreme being moved by several
/// writers at once (lock-free). A reader sees each record whole or not at all; it is not a snapshot of one instant.
class alignas(base::false_sharing_bytes) Histogram {
 public:
  static constexpr int sub_bucket_bits = 7;
  static constexpr std::size_t bytes_max = 64 * 1024;

  /// Throws InvalidArgument unless 0 < min_s < max_s, both finite, at most 63 powers of two apart.
  explicit Histogram(double min_s = 1e-7, double max_s = 3600.0);
  /// A copy of what is recorded so far; the source may be recording.
  Histogram(const Histogram& other);
  Histogram& operator=(const Histogram&) = delete;

  void record(double value_s) noexcept { add<Writers::one>(value_s); }
  void record_ns(std::int64_t value_ns) noexcept { add<Writers::one>(static_cast<double>(value_ns) * 1e-9); }
  void record_shared(double value_s) noexcept { add<Writers::many>(value_s); }
  void record_many_shared(std::span<const double> values_s) noexcept;

  /// Adds all that `other` holds. Throws InvalidArgument where the ranges differ.
  void merge(const Histogram& other) { merge_as<Writers::one>(other); }
  void merge_shared(const Histogram& other) { merge_as<Writers::many>(other); }

  [[nodiscard]] std::uint64_t count() const noexcept;
  /// As numpy.quantile does by default: linear between the two values around position q * (count - 1), each of them
  /// within 0.4 %. NaN while empty. Precondition: 0 <= q <= 1.
  [[nodiscard]] double quantile(double q) const noexcept;
  [[nodiscard]] double sum_s() const noexcept;
  [[nodiscard]] double mean_s() const noexcept;     ///< NaN while empty
  [[nodiscard]] double lowest_s() const noexcept;   ///< smallest recorded, exact; NaN while empty
  [[nodiscard]] double highest_s() const noexcept;  ///< largest recorded, exact; NaN while empty

  [[nodiscard]] double min_s() const noexcept { return min_s_; }
  [[nodiscard]] double max_s() const noexcept { return max_s_; }
  [[nodiscard]] std::size_t n_buckets() const noexcept { return n_buckets_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return sizeof(Histogram) + n_buckets_ * sizeof(Counter); }
  [[nodiscard]] std::size_t bucket_of(double value_s) const noexcept { return key_of(clamped(value_s)) - first_key_; }
  [[nodiscard]] std::uint64_t bucket_count(std::size_t bucket) const noexcept {
    return counts_[bucket].load(std::memory_order_acquire);  // acquire [H1]
  }
  /// The bucket holds bucket_lower_s(bucket) <= value < bucket_lower_s(bucket + 1).
  [[nodiscard]] double bucket_lower_s(std::size_t bucket) const noexcept {
    return std::bit_cast<double>((first_key_ + bucket) << dropped_bits);
  }

  /// Fills an empty histogram from what another one's buckets and extremes were. Throws InvalidArgument where the
  /// extremes are not in the first and last bucket in use, or counts is not n_buckets() long.
  void restore(std::span<const std::uint64_t> counts, double lowest_s, double highest_s);

 private:
  using Counter = std::atomic<std::uint64_t>;
  enum class Writers { one, many };
  static constexpr int dropped_bits = 52 - sub_bucket_bits;  // of the 52 stored mantissa bits

  [[nodiscard]] static std::uint64_t key_of(double value_s) noexcept {
    return std::bit_cast<std::uint64_t>(value_s) >> dropped_bits;
  }
  /// Comparisons are written so that NaN ends at min_s: no input can leave the array.
  [[nodiscard]] double clamped(double value_s) const noexcept {
    const double at_least = value_s > min_s_ ? value_s : min_s_;
    return at_least < max_s_ ? at_least : max_s_;
  }
  struct Totals {
    std::uint64_t count;
    double sum_s;
  };
  [[nodiscard]] Totals totals() const noexcept;
  [[nodiscard]] double value_of(std::size_t bucket) const noexcept;

  template <Writers W>
  void add(double value_s) noexcept {
    const double value = clamped(value_s);
    widen<W>(value, value);
    add_to<W>(counts_[key_of(value) - first_key_], 1);
  }

  /// release [H1]: publishes the extremes that include this record; pairs with the acquire [H1] in bucket_count(). One
  /// writer needs no read-modify-write: a plain load and store, no lock prefix.
  template <Writers W>
  static void add_to(Counter& counter, std::uint64_t n) noexcept {
    if constexpr (W == Writers::one) {
      counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_release);
    } else {
      counter.fetch_add(n, std::memory_order_release);
    }
  }

  template <Writers W>
  void widen(double lowest, double highest) noexcept {
    if (lowest < lowest_.load(std::memory_order_relaxed)) [[unlikely]]
      move_extreme<W>(lowest_, lowest, std::less<>{});
    if (highest > highest_.load(std::memory_order_relaxed)) [[unlikely]]
      move_extreme<W>(highest_, highest, std::greater<>{});
  }

  template <Writers W, class Further>
  static void move_extreme(std::atomic<double>& extreme, double value, Further further) noexcept {
    if constexpr (W == Writers::one) {
      extreme.store(value, std::memory_order_relaxed);
    } else {
      double seen = extreme.load(std::memory_order_relaxed);
      while (further(value, seen) && !extreme.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
      }
    }
  }

  template <Writers W>
  void merge_as(const Histogram& other);

  double min_s_;
  double max_s_;
  std::uint64_t first_key_;
  std::size_t n_buckets_;
  std::unique_ptr<Counter[]> counts_;
  std::atomic<double> lowest_;
  std::atomic<double> highest_;
};

static_assert(std::atomic<double>::is_always_lock_free && std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace infcore::telemetry
