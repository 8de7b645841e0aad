// Cost of one insert into the core's histogram, and of what it stands in for. Prints one line of JSON.
// Usage: histogram_bench N_VALUES
#include <infcore/telemetry/histogram.hpp>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <random>
#include <vector>

namespace {

using infcore::telemetry::Histogram;

/// Durations as a server sees them: lognormal, median 2 ms. Few enough to stay in the cache beside the buckets.
std::vector<double> drawn(std::size_t n) {
  std::mt19937_64 random(1);
  std::lognormal_distribution<double> values(std::log(2e-3), 1.0);
  std::vector<double> out(n);
  for (double& value : out) value = values(random);
  return out;
}

template <class Insert>
double ns_each(const std::vector<double>& values, std::uint64_t n, Insert insert) {
  const auto begin = std::chrono::steady_clock::now();
  for (std::uint64_t done = 0; done < n; done += values.size())
    for (const double value : values) insert(value);
  const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - begin;
  return taken.count() / static_cast<double>(n);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<double> values = drawn(16384);
  const std::uint64_t asked = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1 << 20;
  const std::uint64_t n = (asked + values.size() - 1) / values.size() * values.size();

  Histogram one;
  const double record_ns = ns_each(values, n, [&](double value) { one.record(value); });
  Histogram shared;
  const double shared_ns = ns_each(values, n, [&](double value) { shared.record_shared(value); });
  std::vector<double> kept;
  kept.reserve(n);
  const double vector_ns = ns_each(values, n, [&](double value) { kept.push_back(value); });
  Histogram locked;
  std::mutex lock;
  const double mutex_ns = ns_each(values, n, [&](double value) {
    const std::lock_guard<std::mutex> held(lock);
    locked.record(value);
  });

  const bool agree = one.sum_s() == shared.sum_s() && one.sum_s() == locked.sum_s() && kept.size() == one.count();
  std::printf(
      "{\"n\": %llu, \"count\": %llu, \"p99_s\": %.17g, \"agree\": %s, \"record_ns\": %.4f, \"record_shared_ns\": "
      "%.4f, "
      "\"vector_push_back_ns\": %.4f, \"mutex_and_record_ns\": %.4f}\n",
      static_cast<unsigned long long>(n), static_cast<unsigned long long>(one.count()), one.quantile(0.99),
      agree ? "true" : "false", record_ns, shared_ns, vector_ns, mutex_ns);
  return agree ? 0 : 1;
}
