// MpmcRing: two producers and a consumer on a ring of two cells, one by one and in bulk. Every item arrives once,
// whole, and each producer's items in its own order.
#include <infcore/queue/mpmc_ring.hpp>

#include "model.hpp"

namespace {

using Item = model::Plain<int>;
using Ring = infcore::queue::MpmcRing<Item, model::Atom>;

/// Items are 10 * producer + n, n = 1, 2...: pushed_[p] and popped_[p] count per producer.
struct RingSuite {
  Ring* ring{};
  int pushed[2]{};
  int popped[2]{};

  void begin(std::size_t capacity = 2) {
    ring = new Ring(capacity);
    for (int p = 0; p < 2; ++p) pushed[p] = popped[p] = 0;
  }
  void take(const Item& item) {
    const int value = item;
    RL_ASSERT(value % 10 == ++popped[value / 10]);
  }
  void end() {
    Item item;
    while (ring->try_pop(item)) take(item);
    RL_ASSERT(ring->empty());
    for (int p = 0; p < 2; ++p) RL_ASSERT(pushed[p] == popped[p]);
    delete ring;
  }
  void push(int producer) {
    if (ring->try_push(Item(10 * producer + pushed[producer] + 1))) ++pushed[producer];
  }
  template <std::size_t n>
  void push_bulk(int producer) {
    Item items[n];
    for (std::size_t i = 0; i < n; ++i) items[i] = 10 * producer + pushed[producer] + 1 + static_cast<int>(i);
    pushed[producer] += static_cast<int>(ring->try_push_bulk({items, n}));
  }
  void pop() {
    Item item;
    if (ring->try_pop(item)) take(item);
  }
  template <std::size_t n_max>
  void pop_bulk() {
    Item items[n_max];
    const std::size_t n = ring->try_pop_bulk({items, n_max});
    for (std::size_t i = 0; i < n; ++i) take(items[i]);
  }
};

struct OneByOne : rl::test_suite<OneByOne, 3>, RingSuite {
  static constexpr const char* name = "MpmcRing one by one";
  static constexpr int context_bound = 2;
  void before() { begin(); }
  void after() { end(); }
  void thread(unsigned index) {
    for (int i = 0; i < 2; ++i) {
      if (index < 2) {
        push(static_cast<int>(index));
      } else {
        pop();
      }
    }
  }
};

struct BulkPair : rl::test_suite<BulkPair, 2>, RingSuite {
  static constexpr const char* name = "MpmcRing bulk to bulk";
  static constexpr int context_bound = 3;
  void before() { begin(); }
  void after() { end(); }
  void thread(unsigned index) {
    for (int i = 0; i < 2; ++i) {
      if (index == 0) {
        push_bulk<2>(0);
      } else {
        pop_bulk<2>();
      }
    }
  }
};

/// The cells of a run are looked at in fours.
struct RunOfFour : rl::test_suite<RunOfFour, 2>, RingSuite {
  static constexpr const char* name = "MpmcRing run of four";
  static constexpr int context_bound = 2;
  void before() { begin(4); }
  void after() { end(); }
  void thread(unsigned index) {
    if (index == 0) {
      push_bulk<4>(0);
    } else {
      pop_bulk<4>();
    }
  }
};

struct Bulk : rl::test_suite<Bulk, 3>, RingSuite {
  static constexpr const char* name = "MpmcRing two producers in bulk";
  static constexpr int context_bound = 2;
  void before() { begin(); }
  void after() { end(); }
  void thread(unsigned index) {
    if (index < 2) {
      push_bulk<2>(static_cast<int>(index));
    } else {
      pop_bulk<2>();
      pop_bulk<2>();
    }
  }
};

struct TwoConsumers : rl::test_suite<TwoConsumers, 3>, RingSuite {
  static constexpr const char* name = "MpmcRing bulk and single consumers";
  static constexpr int context_bound = 2;
  // Two consumers may note what they popped in another order than they popped it: each counts for itself.
  int sum[2]{};
  void before() {
    begin();
    sum[0] = sum[1] = 0;
  }
  void after() {
    Item item;
    int got = sum[0] + sum[1];
    while (ring->try_pop(item)) got += static_cast<int>(item);
    RL_ASSERT(got == pushed[0] * (pushed[0] + 1) / 2);
    delete ring;
  }
  void thread(unsigned index) {
    if (index == 0) {
      push_bulk<2>(0);
      push(0);
      return;
    }
    Item items[2];
    const std::size_t n = index == 1 ? ring->try_pop_bulk({items, 2}) : (ring->try_pop(items[0]) ? 1 : 0);
    for (std::size_t i = 0; i < n; ++i) sum[index - 1] += static_cast<int>(items[i]);
  }
};

}  // namespace

int main(int argc, char** argv) { return model::run<BulkPair, RunOfFour, OneByOne, TwoConsumers, Bulk>(argc, argv); }
