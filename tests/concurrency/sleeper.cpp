// Sleeper: two notifiers and an owner that waits for both, over a futex that never times out. A lost wake-up deadlocks.
#include <infcore/queue/done_chain.hpp>
#include <infcore/queue/mpmc_ring.hpp>
#include <infcore/queue/sleeper.hpp>

#include "model.hpp"

namespace {

using infcore::base::never_ns;
using Sleeper = infcore::queue::Sleeper<model::Atom, model::Futex>;

struct Counted : rl::test_suite<Counted, 3> {
  static constexpr const char* name = "Sleeper and counters";
  static constexpr int context_bound = 3;
  model::Futex::Kernel* kernel{};
  Sleeper* sleeper{};
  model::Atom<int>* done{};

  void before() {
    kernel = new model::Futex::Kernel;
    sleeper = new Sleeper;
    done = new model::Atom<int>[2];
  }
  void after() {
    delete[] done;
    delete sleeper;
    delete kernel;
  }
  void thread(unsigned index) {
    if (index < 2) {
      done[index].store(1, std::memory_order_relaxed);
      sleeper->notify();
      return;
    }
    for (int i = 0; i < 2; ++i) {
      RL_ASSERT(sleeper->wait([&] { return done[i].load(std::memory_order_relaxed) == 1; }, never_ns));
    }
  }
};

/// The engine's pairing: ingress ring and completion chain, one sleep flag.
struct RingAndChain : rl::test_suite<RingAndChain, 3> {
  struct Node {
    model::Plain<Node*> next;
  };
  static constexpr const char* name = "Sleeper over a ring and a chain";
  static constexpr int context_bound = 2;
  model::Futex::Kernel* kernel{};
  Sleeper* sleeper{};
  infcore::queue::MpmcRing<model::Plain<int>, model::Atom>* ring{};
  infcore::queue::DoneChain<Node, model::Atom>* chain{};
  Node* node{};

  void before() {
    kernel = new model::Futex::Kernel;
    sleeper = new Sleeper;
    ring = new infcore::queue::MpmcRing<model::Plain<int>, model::Atom>(2);
    chain = new infcore::queue::DoneChain<Node, model::Atom>;
    node = new Node;
  }
  void after() {
    delete node;
    delete chain;
    delete ring;
    delete sleeper;
    delete kernel;
  }
  void thread(unsigned index) {
    if (index == 0) {
      RL_ASSERT(ring->try_push(model::Plain<int>(7)));
      sleeper->notify();
    } else if (index == 1) {
      if (chain->push_chain(node, node)) sleeper->notify();
    } else {
      for (int n_left = 2; n_left > 0;) {
        RL_ASSERT(sleeper->wait([&] { return !ring->empty() || !chain->empty(); }, never_ns));
        model::Plain<int> item;
        if (ring->try_pop(item)) --n_left;
        if (chain->take_all() != nullptr) --n_left;
      }
    }
  }
};

}  // namespace

int main(int argc, char** argv) { return model::run<Counted, RingAndChain>(argc, argv); }
