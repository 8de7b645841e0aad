// DoneChain: two pushers, one of them with a chain of two and a node that it pushes again, and a taker. Every node
// comes out once per push, in order, and exactly one pusher is told to wake the consumer for each emptying.
#include <infcore/queue/done_chain.hpp>

#include "model.hpp"

namespace {

struct Node {
  model::Plain<Node*> next;
  model::Plain<int> value;
};

struct Chain : rl::test_suite<Chain, 3> {
  static constexpr const char* name = "DoneChain";
  static constexpr int context_bound = 3;
  infcore::queue::DoneChain<Node, model::Atom>* chain{};
  Node* nodes{};
  int last_seen[2]{};
  int wakes[2]{};
  int n_taken{};
  int n_batches{};

  void before() {
    chain = new infcore::queue::DoneChain<Node, model::Atom>;
    nodes = new Node[4];
    n_taken = n_batches = 0;
    for (int p = 0; p < 2; ++p) last_seen[p] = wakes[p] = 0;
  }
  void take() {
    Node* node = chain->take_all();
    if (node != nullptr) ++n_batches;
    for (; node != nullptr; node = node->next) {
      const int value = node->value;
      RL_ASSERT(value % 10 == ++last_seen[value / 10]);
      ++n_taken;
    }
  }
  void after() {
    take();
    RL_ASSERT(chain->empty() && n_taken == 4);
    RL_ASSERT(wakes[0] + wakes[1] == n_batches);
    delete[] nodes;
    delete chain;
  }
  void thread(unsigned index) {
    if (index == 2) {
      take();
      take();
      return;
    }
    Node* const own = nodes + 2 * index;
    own[0].value = static_cast<int>(10 * index + 1);
    own[1].value = static_cast<int>(10 * index + 2);
    if (index == 0) {
      own[0].next = &own[1];
      wakes[0] += chain->push_chain(&own[0], &own[1]) ? 1 : 0;
    } else {
      wakes[1] += chain->push_chain(&own[0], &own[0]) ? 1 : 0;
      wakes[1] += chain->push_chain(&own[1], &own[1]) ? 1 : 0;
    }
  }
};

}  // namespace

int main(int argc, char** argv) { return model::run<Chain>(argc, argv); }
