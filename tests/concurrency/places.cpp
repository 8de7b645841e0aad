// Places and whoever waits for one, as the driver pairs them: the counts are looked at under the mutex of a condition,
// which is woken once somebody has ended and sees that a place is wanted. A lost wake-up deadlocks.
#include <infcore/queue/places.hpp>

#include "model.hpp"

#include <array>

namespace {

using Places = infcore::queue::Places<model::Atom>;

/// As engine::Hub without a loop.
struct Hub {
  rl::mutex lock;
  rl::condition_variable woken;

  void wake() {
    const rl::debug_info here("", __FILE__, __LINE__);
    lock.lock(here);
    lock.unlock(here);
    woken.notify_all(here);
  }
  template <class Ready>
  void wait(Ready&& ready) {
    const rl::debug_info here("", __FILE__, __LINE__);
    lock.lock(here);
    while (!ready()) woken.wait(lock, here);
    lock.unlock(here);
  }
};

template <class Suite, int n_threads>
struct Room : rl::test_suite<Suite, n_threads> {
  Places* places{};
  Hub* hub{};

  void make(std::uint32_t n_max, std::span<const std::uint32_t> tier_max) {
    places = new Places(n_max, tier_max);
    hub = new Hub;
  }
  void after() {
    RL_ASSERT(places->n_taken() == 0);
    delete hub;
    delete places;
  }
  void end(std::uint32_t tier) {
    places->give(tier);
    if (places->is_wanted()) hub->wake();
  }
  bool take(std::uint32_t tier) {
    const Places::Took took = places->take(tier);
    if (took == Places::Took::none_after_all && places->is_wanted()) hub->wake();
    return took == Places::Took::place;
  }
  /// As a submit that blocks.
  void take_or_wait(std::uint32_t tier) {
    while (!take(tier)) {
      places->want();
      hub->wait([&] { return places->has_room(tier); });
      places->want_no_more();
    }
  }
};

/// One place: its holder ends, another one waits, a third one tries once and goes.
struct OnePlace : Room<OnePlace, 3> {
  static constexpr const char* name = "one place";
  static constexpr int context_bound = 2;

  void before() {
    make(1, {});
    RL_ASSERT(take(0));
  }
  void thread(unsigned index) {
    if (index == 0) {
      end(0);
    } else if (index == 1) {
      take_or_wait(0);
      end(0);
    } else if (take(0)) {
      end(0);
    }
  }
};

/// The bound is the tier's.
struct OneInTier : Room<OneInTier, 3> {
  static constexpr const char* name = "one place in a tier";
  static constexpr int context_bound = 2;
  static constexpr std::array<std::uint32_t, 1> tier_max{1};

  void before() {
    make(4, tier_max);
    RL_ASSERT(take(0));
  }
  void thread(unsigned index) {
    if (index == 0) {
      end(0);
    } else if (index == 1) {
      take_or_wait(0);
      end(0);
    } else if (take(0)) {
      end(0);
    }
  }
};

/// Whoever was let in is seen by whoever closed, or not let in.
struct Closing : Room<Closing, 2> {
  static constexpr const char* name = "closing";
  static constexpr int context_bound = 3;
  std::uint32_t n_seen{};
  bool was_let_in{};

  void before() {
    n_seen = 0;
    was_let_in = false;
    make(1, {});
  }
  void after() {
    RL_ASSERT(!was_let_in || n_seen == 1);
    if (was_let_in) places->give(0);
    Room::after();
  }
  void thread(unsigned index) {
    if (index == 0) {
      places->close();
      n_seen = places->n_taken();
    } else {
      was_let_in = take(0);
    }
  }
};

}  // namespace

int main(int argc, char** argv) { return model::run<OnePlace, OneInTier, Closing>(argc, argv); }
