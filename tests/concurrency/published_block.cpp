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
    std::uint64_t seen = 0;
    std::uint64_t before = 0;
    for (int look = 0; look < 3; ++look) {
      const std::uint64_t last = seen;
      const Block::Changed changed = block->changed(seen);
      if (changed == Block::Changed::nothing) continue;
      RL_ASSERT(seen > last && changed == Block::Changed::any);
      const std::uint64_t now = block->get(0, 0) + block->get(1, 0);
      RL_ASSERT(now >= seen >> 32 && now >= before);
      before = now;
    }
  }
};

/// A writer of any word beside one of put_latest(): a reader that is told of the latest words alone has all others.
struct Halves : rl::test_suite<Halves, 3> {
  static constexpr const char* name = "PublishedBlock, what changed";
  static constexpr int context_bound = 3;
  using Block = infcore::contracts::PublishedBlock<1, 2, model::Atom>;
  Block* block{};

  void before() { block = new Block; }
  void after() { delete block; }
  void thread(unsigned index) {
    if (index == 0) {
      block->put(0, 1, 1);
      block->announce();
    } else if (index == 1) {
      block->put_latest(0, 0, [] { return std::uint64_t{1}; });
    } else {
      std::uint64_t seen = 0, latest = 0, other = 0;
      for (int look = 0; look < 3; ++look) {
        const Block::Changed changed = block->changed(seen);
        if (changed != Block::Changed::nothing) latest = block->get(0, 0);
        if (changed == Block::Changed::any) other = block->get(0, 1);
        RL_ASSERT(latest >= (seen & 1) && other >= seen >> 32);
      }
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

int main(int argc, char** argv) { return model::run<Published, Halves, Latest>(argc, argv); }
