// WakeOnce: two notifiers hand something over each, and one consumer sleeps until it is woken. A wake-up that was left
// out though it was needed deadlocks.
#include <infcore/queue/wake_once.hpp>

#include "model.hpp"

namespace {

struct TwoNotifiers : rl::test_suite<TwoNotifiers, 3> {
  static constexpr const char* name = "WakeOnce";
  static constexpr int context_bound = 2;
  model::Futex::Kernel* kernel{};
  infcore::queue::WakeOnce<model::Atom>* once{};
  model::Atom<int>* handed{};
  model::Atom<std::uint32_t>* n_wakes{};  // the loop's own queue of calls

  void before() {
    kernel = new model::Futex::Kernel;
    once = new infcore::queue::WakeOnce<model::Atom>;
    handed = new model::Atom<int>[2];
    n_wakes = new model::Atom<std::uint32_t>;
  }
  void after() {
    delete n_wakes;
    delete[] handed;
    delete once;
    delete kernel;
  }
  void thread(unsigned index) {
    if (index < 2) {
      handed[index].store(1, std::memory_order_relaxed);
      if (once->arm()) {
        n_wakes->fetch_add(1, std::memory_order_relaxed);
        model::Futex::wake(*n_wakes, 1);
      }
      return;
    }
    std::uint32_t n_seen = 0;
    for (int n_left = 2; n_left > 0;) {
      while (n_wakes->load(std::memory_order_relaxed) == n_seen) {
        static_cast<void>(model::Futex::wait(*n_wakes, n_seen, infcore::base::never_ns));
      }
      ++n_seen;  // one call for each wake-up, as a loop makes them
      once->disarm();
      n_left = 2;
      for (int i = 0; i < 2; ++i) n_left -= handed[i].load(std::memory_order_relaxed);
    }
  }
};

}  // namespace

int main(int argc, char** argv) { return model::run<TwoNotifiers>(argc, argv); }
