// What bindings call with every request: the clock that is read by a counter, and the lock of who holds a language's
// lock.
#include <infcore/base/border_clock.hpp>
#include <infcore/base/border_mutex.hpp>
#include <infcore/base/counter_clock.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

namespace infcore::base {
namespace {

/// A counter of 2.5 a nanosecond, and a system's clock that goes with it but for what the test says.
struct Told {
  static inline std::uint64_t count, step;  // of these, what reading the counter takes
  static inline TimeNs off_ns, last_read_ns;
  static inline int n_read;
  static std::uint64_t counts() noexcept { return count += step; }
  static TimeNs ns() noexcept { return off_ns + static_cast<TimeNs>(count * 2 / 5); }
  static TimeNs now_ns() noexcept {
    ++n_read;
    return last_read_ns = ns();
  }
  static void pass(TimeNs by_ns) noexcept { count += static_cast<std::uint64_t>(by_ns) * 5 / 2; }
  /// The counter alone.
  static void count_on(std::int64_t by) noexcept {
    count += static_cast<std::uint64_t>(by);
    off_ns -= by * 2 / 5;
  }
};

class Counted : public testing::Test {
 protected:
  Counted() { Told::count = 10'000'000'000'000, Told::step = 20, Told::off_ns = 5'000'000'000'000, Told::n_read = 0; }
  /// Calls until its rate is known.
  void settle() {
    for (int i = 0; i < 100; ++i) Told::pass(1'000'000), (void)clock.now_ns();
  }
  void expect_right(TimeNs off_ns = 100) {
    const TimeNs now_ns = clock.now_ns();
    EXPECT_LE(std::abs(now_ns - Told::ns()), off_ns);
  }
  CounterClock<Told> clock;
};

TEST_F(Counted, IsTheSystemsClockToTheNanosecondUntilItsRateIsKnown) {
  for (int i = 0; i < 40; ++i) {
    const TimeNs now_ns = clock.now_ns();
    EXPECT_EQ(now_ns, Told::last_read_ns);
    Told::pass(1'000'000);
  }
  EXPECT_EQ(Told::n_read, 40);
}

TEST_F(Counted, ReadsTheSystemsClockOnceAMillisecond) {
  settle();
  Told::n_read = 0;
  for (int i = 0; i < 100'000; ++i) {
    Told::pass(100);
    expect_right();
  }
  EXPECT_NEAR(Told::n_read, 10, 3);  // 10 ms
}

TEST_F(Counted, NeverGoesBackAndIsRightAgainAfterAMillisecond) {
  settle();
  const auto jumps = {+[] { Told::off_ns += 3'600'000'000'000; },   // suspended: the counter stood still
                      +[] { Told::count_on(9'000'000'000'000); },   // or went on alone
                      +[] { Told::count_on(-4'000'000'000'000); },  // another machine's counter
                      +[] { Told::count_on(1'000'000); }, +[] { Told::off_ns -= 50; }};
  for (const auto jump : jumps) {
    const TimeNs before = clock.now_ns();
    jump();
    EXPECT_GE(clock.now_ns(), before);
    Told::pass(1'000'100);
    EXPECT_GE(clock.now_ns(), before);
    Told::pass(1'000'100);
    expect_right(500'000);
    settle();
    expect_right();
  }
}

TEST_F(Counted, FollowsAClockThatIsSlewed) {
  settle();
  for (int i = 0; i < 5'000; ++i) {
    Told::pass(1'000'000);
    Told::off_ns += 500;  // what adjtimex allows: 500 millionths
    expect_right(1000);
  }
}

TEST_F(Counted, AnInterruptedReadingIsTakenAsItIs) {
  Told::step = 3000;
  for (int i = 0; i < 50; ++i) {
    Told::pass(1'000'000);
    const TimeNs now_ns = clock.now_ns();
    EXPECT_EQ(now_ns, Told::last_read_ns);
  }
  EXPECT_EQ(Told::n_read, 50);
}

TEST(BorderClock, IsBetweenTwoReadingsOfTheSystems) {
  constexpr TimeNs off_ns = 20'000;  // of a clock that another program may be slewing
  Patience::exclusive.store(true, std::memory_order_relaxed);
  const TimeNs end_ns = monotonic_ns() + 100'000'000;
  TimeNs last = 0;
  while (monotonic_ns() < end_ns) {
    const TimeNs before = monotonic_ns(), now = border_now_ns(), after = monotonic_ns();
    ASSERT_GE(now, before - off_ns);
    ASSERT_LE(now, after + off_ns);
    ASSERT_GE(now, last);
    last = now;
  }
  Patience::exclusive.store(false, std::memory_order_relaxed);
}

std::mutex language;  // the language's lock: as a GIL

void without_language(void (*blocking)(void*), void* what) {
  language.unlock();
  blocking(what);
  language.lock();
}

/// Threads that hold the language's lock when they call, and some give it up inside.
void expect_one_at_a_time(bool exclusive, BorderMutex& mutex) {
  Patience::hook.store(&without_language, std::memory_order_release);
  Patience::exclusive.store(exclusive, std::memory_order_relaxed);
  std::uint64_t n = 0;
  bool inside = false;
  const auto call = [&](bool gives_up) {
    const std::lock_guard hold_language(language);
    const std::lock_guard hold(mutex);
    EXPECT_FALSE(inside);
    inside = true;
    if (gives_up) {
      Patience::wait([](void* count) { ++*static_cast<std::uint64_t*>(count); }, &n);
    } else {
      ++n;
    }
    inside = false;
  };
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 5'000; ++i) call(random() % 4 == 0);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(n, 20'000u);
  Patience::hook.store(nullptr, std::memory_order_release);
  Patience::exclusive.store(false, std::memory_order_relaxed);
}

// Not in one place: the thread sanitizer would take them for one, which is locked in another order each time.
BorderMutex with_language, without;
TEST(BorderMutex, OneAtATimeByTheLanguagesLock) { expect_one_at_a_time(true, with_language); }
TEST(BorderMutex, OneAtATimeWithoutOne) { expect_one_at_a_time(false, without); }

}  // namespace
}  // namespace infcore::base
