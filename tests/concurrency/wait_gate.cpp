// SpinLock and WaitGate as Queue pairs them: the lock guards the condition, the gate is where threads sleep that found
// it false. A lost wake-up deadlocks; a lock that does not order races on the condition.
#include <infcore/queue/wait_gate.hpp>

#include "model.hpp"

namespace {

/// The futex of model.hpp, and a yield that lets the checker run somebody else.
struct Waiting : model::Futex {
  static constexpr int n_looks = 0;
  static void yield() { rl::yield(1, rl::debug_info("", __FILE__, __LINE__)); }
};

struct GiversAndTakers : rl::test_suite<GiversAndTakers, 3> {
  static constexpr const char* name = "WaitGate under a SpinLock";
  static constexpr int context_bound = 2;
  model::Futex::Kernel* kernel{};
  infcore::queue::SpinLock<model::Atom, Waiting>* lock{};
  infcore::queue::WaitGate<model::Atom, Waiting>* gate{};
  model::Plain<int>* n_items{};

  void before() {
    kernel = new model::Futex::Kernel;
    lock = new infcore::queue::SpinLock<model::Atom, Waiting>;
    gate = new infcore::queue::WaitGate<model::Atom, Waiting>;
    n_items = new model::Plain<int>(0);
  }
  void after() {
    RL_ASSERT(*n_items == 0);
    delete n_items;
    delete gate;
    delete lock;
    delete kernel;
  }
  void thread(unsigned index) {
    if (index == 0) {
      for (int i = 0; i < 2; ++i) {
        lock->lock();
        *n_items = *n_items + 1;
        const bool wake = gate->open();
        lock->unlock();
        if (wake) gate->wake(1);
      }
      return;
    }
    for (;;) {
      lock->lock();
      if (*n_items > 0) {
        *n_items = *n_items - 1;
        lock->unlock();
        return;
      }
      const std::uint32_t token = gate->enter();
      lock->unlock();
      static_cast<void>(gate->wait(token, infcore::base::never_ns));
      gate->leave();
    }
  }
};

}  // namespace

int main(int argc, char** argv) { return model::run<GiversAndTakers>(argc, argv); }
