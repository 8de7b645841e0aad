#include <infcore/base/border_clock.hpp>
#include <infcore/base/counter_clock.hpp>
#include <infcore/base/patience.hpp>

#if defined(__x86_64__)
#include <x86intrin.h>

#include <cstdio>
#include <cstring>
#endif

namespace infcore::base {
#if defined(__x86_64__)
namespace {

struct ProcessorCounter {
  static std::uint64_t counts() noexcept { return __rdtsc(); }
  static TimeNs now_ns() noexcept { return monotonic_ns(); }
};

/// Linux keeps its own time by the counter only where it has found that all processors count alike, at one rate.
bool is_trusted() noexcept {
  char name[16] = "";
  if (std::FILE* const file = std::fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re")) {
    if (std::fgets(name, sizeof name, file) == nullptr) name[0] = 0;
    (void)std::fclose(file);
  }
  return std::strncmp(name, "tsc", 3) == 0;
}

const bool trusted = is_trusted();
CounterClock<ProcessorCounter> clock_by_counter;  // of whoever holds the language's lock

}  // namespace

TimeNs border_now_ns() noexcept {
  // relaxed: set once, before the binding's first call
  const bool one_at_a_time = Patience::exclusive.load(std::memory_order_relaxed);
  return trusted && one_at_a_time ? clock_by_counter.now_ns() : monotonic_ns();
}
#else
TimeNs border_now_ns() noexcept { return monotonic_ns(); }
#endif

}  // namespace infcore::base
