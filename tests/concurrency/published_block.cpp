// PublishedBlock: two writers of a row each, and a reader that looks three times. A count that is seen brings every
// store that it counts, of either writer; and what was seen once is never copied older. And two that put one word, each
// from a figure that both change: the word ends as both changes make it.
#include <infcore/contracts/published_block.hpp>

#include "model.hpp"

namespace {

struct Published : rl::test_suite<Published, 3> {
  static constexpr const char* name = "PublishedBlock";
  static constexpr int context_bound = 3;
  using Block = infcore::contracts::PublishedBlock<2, 1, model::Atom>;
  Block* block{};

  void before() { block = new Block; }
  void after() { delete block; }

  /// Row r holds how often it was announced; the sum of the rows is at least the count.
  void thread(unsigned index) {
    if (index < 2) {
      for (std::uint64_t n = 1; n <= 2 - index; ++n) {
        block->put(index, 0, n);
        block->announce();
      }
      return;
    }
    std::uint32_t seen = 0;
    std::uint64_t before = 0;
    for (int look = 0; look < 3; ++look) {
      const std::uint32_t last = seen;
      if (!block->changed(seen)) continue;
      RL_ASSERT(seen > last);
      const std::uint64_t now = block->get(0, 0) + block->get(1, 0);
      RL_ASSERT(now >= seen && now >= before);
      before = now;
    }
  }
};

struct Latest : rl::test_suite<Latest, 2> {
  static constexpr const char* name = "PublishedBlock, put_latest";
  static constexpr int context_bound = 4;
  using Block = infcore::contracts::PublishedBlock<1, 1, model::Atom>;
  Block* block{};
  model::Atom<std::uint64_t>* figures{};  // one of each writer

  void before() {
    block = new Block;
    figures = new model::Atom<std::uint64_t>[2];
  }
  void after() {
    RL_ASSERT(block->get(0, 0) == 3);
    delete[] figures;
    delete block;
  }
  void thread(unsigned index) {
    figures[index].store(index + 1, std::memory_order_relaxed);
    block->put_latest(0, 0, [this] {
      return figures[0].load(std::memory_order_relaxed) + figures[1].load(std::memory_order_relaxed);
    });
  }
};

}  // namespace

int main(int argc, char** argv) { return model::run<Published, Latest>(argc, argv); }
