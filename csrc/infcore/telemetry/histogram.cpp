#include <algorithm>
#include <cstdio>
#include <infcore/base/errors.hpp>
#include <infcore/telemetry/histogram.hpp>
#include <limits>
#include <string>

namespace infcore::telemetry {
namespace {

constexpr std::uint64_t count_max = std::uint64_t{1} << 62;
constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

std::string text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.9g", value);
  return buffer;
}

double checked_min(double min_s, double max_s) {
  if (!(min_s >= std::numeric_limits<double>::min() && min_s < inf))
    throw InvalidArgument("min_s", text(min_s), "a finite number of seconds > 0, not denormal");
  if (!(max_s > min_s && max_s < inf))
    throw InvalidArgument("max_s", text(max_s), "a finite number of seconds > min_s");
  return min_s;
}

}  // namespace

Histogram::Histogram(double min_s, double max_s)
    : min_s_(checked_min(min_s, max_s)),
      max_s_(max_s),
      first_key_(key_of(min_s)),
      n_buckets_(key_of(max_s) - first_key_ + 1),
      lowest_(inf),
      highest_(-inf) {
  if (bytes() > bytes_max)
    throw InvalidArgument("max_s", text(max_s), "at most 2**62 times min_s, so that 64 KiB will do");
  counts_ = std::make_unique<Counter[]>(n_buckets_);
}

Histogram::Histogram(const Histogram& other) : Histogram(other.min_s_, other.max_s_) { merge(other); }

void Histogram::record_many_shared(std::span<const double> values_s) noexcept {
  double lowest = inf;
  double highest = -inf;
  for (const double value_s : values_s) {
    const double value = clamped(value_s);
    lowest = std::min(lowest, value);
    highest = std::max(highest, value);
  }
  widen<Writers::many>(lowest, highest);
  for (const double value_s : values_s) add_to<Writers::many>(counts_[bucket_of(value_s)], 1);
}

template <Histogram::Writers W>
void Histogram::merge_as(const Histogram& other) {
  if (min_s_ != other.min_s_ || max_s_ != other.max_s_) {
    const auto range = [](double lo, double hi) { return text(lo) + " to " + text(hi) + " s"; };
    throw InvalidArgument("other's range", range(other.min_s_, other.max_s_), range(min_s_, max_s_));
  }
  // Two passes where one would do: the extremes must be out before the counts ([H1]), and other's are only sure to
  // cover the counts that were read before them.
  const auto taken = std::make_unique<std::uint64_t[]>(n_buckets_);
  for (std::size_t i = 0; i < n_buckets_; ++i) taken[i] = other.bucket_count(i);
  widen<W>(other.lowest_.load(std::memory_order_relaxed), other.highest_.load(std::memory_order_relaxed));
  for (std::size_t i = 0; i < n_buckets_; ++i)
    if (taken[i] != 0) add_to<W>(counts_[i], taken[i]);
}

template void Histogram::merge_as<Histogram::Writers::one>(const Histogram&);
template void Histogram::merge_as<Histogram::Writers::many>(const Histogram&);

std::uint64_t Histogram::count() const noexcept {
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < n_buckets_; ++i) total += bucket_count(i);
  return total;
}

/// The middle of the bucket, but never beyond what was recorded.
double Histogram::value_of(std::size_t bucket) const noexcept {
  const double middle = 0.5 * (bucket_lower_s(bucket) + bucket_lower_s(bucket + 1));
  return std::min(std::max(middle, lowest_.load(std::memory_order_relaxed)), highest_.load(std::memory_order_relaxed));
}

double Histogram::quantile(double q) const noexcept {
  const std::uint64_t total = count();
  if (total == 0) return nan;
  const double position = q * static_cast<double>(total - 1);
  const auto below = static_cast<std::uint64_t>(position);
  if (below == 0 && position == 0.0) return lowest_s();
  if (below >= total - 1) return highest_s();

  // Counts only grow, so a walk begun after count() passes both ranks.
  std::uint64_t seen = 0;
  std::size_t bucket = 0;
  const auto value_at = [&](std::uint64_t rank) {
    for (; bucket < n_buckets_; ++bucket) {
      const std::uint64_t here = bucket_count(bucket);
      if (rank < seen + here) break;
      seen += here;
    }
    if (rank == 0) return lowest_s();
    return rank == total - 1 ? highest_s() : value_of(bucket);
  };
  const double lower = value_at(below);
  const double upper = value_at(below + 1);
  return std::min(upper, lower + (position - static_cast<double>(below)) * (upper - lower));
}

Histogram::Totals Histogram::totals() const noexcept {
  Totals all{0, 0.0};
  for (std::size_t i = 0; i < n_buckets_; ++i) {
    const std::uint64_t n = bucket_count(i);
    if (n == 0) continue;
    all.count += n;
    all.sum_s += static_cast<double>(n) * value_of(i);
  }
  return all;
}

double Histogram::sum_s() const noexcept { return totals().sum_s; }

double Histogram::mean_s() const noexcept {
  const Totals all = totals();
  if (all.count == 0) return nan;
  // The division may round past an extreme when all values are one.
  return std::min(std::max(all.sum_s / static_cast<double>(all.count), lowest_s()), highest_s());
}

double Histogram::lowest_s() const noexcept {
  const double lowest = lowest_.load(std::memory_order_relaxed);
  return lowest == inf ? nan : lowest;
}

double Histogram::highest_s() const noexcept {
  const double highest = highest_.load(std::memory_order_relaxed);
  return highest == -inf ? nan : highest;
}

void Histogram::restore(std::span<const std::uint64_t> counts, double lowest_s, double highest_s) {
  if (counts.size() != n_buckets_)
    throw InvalidArgument("buckets", std::to_string(counts.size()) + " long", std::to_string(n_buckets_));
  const auto used = [](std::uint64_t n) { return n != 0; };
  const auto first = std::ranges::find_if(counts, used);
  if (first == counts.end()) return;
  std::uint64_t total = 0;
  for (const std::uint64_t n : counts) {
    if (n > count_max - total) throw InvalidArgument("buckets", "over the bound", "at most 2**62 values in all");
    total += n;
  }
  const auto last = std::find_if(counts.rbegin(), counts.rend(), used);
  const auto first_bucket = static_cast<std::size_t>(first - counts.begin());
  const auto last_bucket = static_cast<std::size_t>(counts.rend() - last) - 1;
  if (clamped(lowest_s) != lowest_s || bucket_of(lowest_s) != first_bucket)
    throw InvalidArgument("lowest_s", text(lowest_s), "a value of the first bucket in use");
  if (clamped(highest_s) != highest_s || bucket_of(highest_s) != last_bucket || highest_s < lowest_s)
    throw InvalidArgument("highest_s", text(highest_s), "a value of the last bucket in use, >= lowest_s");
  widen<Writers::many>(lowest_s, highest_s);
  for (std::size_t i = 0; i < n_buckets_; ++i) add_to<Writers::many>(counts_[i], counts[i]);
}

}  // namespace infcore::telemetry
