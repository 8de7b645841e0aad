#pragma once
#include <infcore/base/clock.hpp>

#include <algorithm>
#include <cstdint>

namespace infcore::base {

/// A monotonic clock read through a processor's counter, which costs half of what the system's costs (8 ns of 17, of
/// which a Router's pick and done pay two). Source::counts() is the counter, Source::now_ns() the system's clock.
///
/// The system's clock is read anew after `fresh_ns` by the counter, so that what the counter gets wrong (a clock that
/// is slewed, a virtual machine that moves, a suspended one) is out by then at the latest; and always where the counter
/// went backwards, or too little is known of its rate. Never goes back itself. One thread at a time.
template <class Source>
class CounterClock {
 public:
  [[nodiscard]] TimeNs now_ns() noexcept {
    const std::uint64_t since = Source::counts() - anchor_.counts;  // of one that went back, more than any bound
    const TimeNs now = since < fresh_counts_ ? anchor_.ns + ns_of(since) : read_anew();
    last_ns_ = std::max(last_ns_, now);
    return last_ns_;
  }

 private:
  struct Reading {
    std::uint64_t counts{};
    TimeNs ns{};
  };
  /// A rate that was measured over the shorter is good to a millionth: reading both takes some 20 ns.
  static constexpr TimeNs fresh_ns = 1'000'000, rate_ns_min = 20'000'000, rate_ns_max = 1'000'000'000;
  /// Two readings of the counter that lie further apart had something between them.
  static constexpr std::uint64_t counts_of_a_reading = 2000;

  /// `rate_` is nanoseconds a count, times 2^32: a millisecond of counts times it fits.
  [[nodiscard]] TimeNs ns_of(std::uint64_t counts) const noexcept { return static_cast<TimeNs>(counts * rate_ >> 32); }

  TimeNs read_anew() noexcept {
    const std::uint64_t before = Source::counts();
    const TimeNs ns = Source::now_ns();
    const std::uint64_t after = Source::counts();
    if (after - before > counts_of_a_reading) return ns;  // as it is, and the next call tries again
    anchor_ = {before + (after - before) / 2, ns};
    const TimeNs over_ns = ns - rated_from_.ns;
    const std::uint64_t over = anchor_.counts - rated_from_.counts;
    if (over_ns < rate_ns_min && over_ns >= 0) return ns;
    const double rate = static_cast<double>(over_ns) / static_cast<double>(over) * 4294967296.0;
    const double known = static_cast<double>(rate_);
    const bool plausible = over_ns < 2 * rate_ns_max && rate >= 1.0 && rate < 4294967296.0 * 100.0;
    // Of a second measurement: as the first was, or neither is believed.
    const bool same = plausible && rate_ != 0 && rate > known * 0.999 && rate < known * 1.001;
    rate_ = plausible && (same || rate_ == 0) ? static_cast<std::uint64_t>(rate) : 0;
    fresh_counts_ = same ? static_cast<std::uint64_t>(fresh_ns * 4294967296.0 / rate) : 0;
    if (!same || over_ns >= rate_ns_max) rated_from_ = anchor_;
    return ns;
  }

  Reading anchor_;
  std::uint64_t rate_{};          // 0: not known
  std::uint64_t fresh_counts_{};  // 0: only the system's clock is read
  TimeNs last_ns_{-never_ns};
  Reading rated_from_;
};

}  // namespace infcore::base
