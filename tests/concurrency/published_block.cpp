// PublishedBlock: two writers of a row each, and a reader that looks three times. A count that is seen brings every
// store that it counts, of either writer; and what was seen once is never copied older. The rows that a count names are
// all that changed. And two that put one word, each from a figure that both change: the word ends as both make it.
#include <infcore/contracts/published_block.hpp>

#include "model.hpp"

namespace {

/// Of a count: how many put_latest() and how many announce() it stands for.
std::uint64_t n_latest(std::uint64_t count) { return count >> 18 & 0x3FFF; }
std::uint64_t n_any(std::uint64_t count) { return count >> 32; }

struct Published : rl::test_suite<Published, 3> {
  static constexpr const char* name = "PublishedBlock";
  static constexpr int context_bound = 3;
  using Block = infcore::contracts::PublishedBlock<2, 1, model::Atom>;
  using What = Block::Changes::What;
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
      const Block::Changes changes = block->changed(seen);
      if (changes.what == What::nothing) continue;
      RL_ASSERT(seen > last && changes.what == What::any);
      const std::uint64_t now = block->get(0, 0) + block->get(1, 0);
      RL_ASSERT(now >= n_any(seen) && now >= before);
      before = now;
    }
  }
};

/// A writer of any word beside one of put_latest(): a reader that is told of the latest words alone has all others.
struct Halves : rl::test_suite<Halves, 3> {
  static constexpr const char* name = "PublishedBlock, what changed";
  static constexpr int context_bound = 3;
  using Block = infcore::contracts::PublishedBlock<1, 2, model::Atom>;
  using What = Block::Changes::What;
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
        const What what = block->changed(seen).what;
        if (what != What::nothing) latest = block->get(0, 0);
        if (what == What::any) other = block->get(0, 1);
        RL_ASSERT(latest >= n_latest(seen) && other >= n_any(seen));
      }
    }
  }
};

/// Two that put a row each, and a reader that copies what it is told alone: no more than three changes, so all by name.
struct Named : rl::test_suite<Named, 3> {
  static constexpr const char* name = "PublishedBlock, rows by name";
  static constexpr int context_bound = 3;
  using Block = infcore::contracts::PublishedBlock<2, 1, model::Atom>;
  using What = Block::Changes::What;
  Block* block{};

  void before() { block = new Block; }
  void after() { delete block; }
  void thread(unsigned index) {
    if (index < 2) {
      for (std::uint64_t n = 1; n <= 2 - index; ++n) block->put_latest(index, 0, [n] { return n; });
      return;
    }
    std::uint64_t seen = 0;
    std::uint64_t copy[2] = {};
    for (int look = 0; look < 3; ++look) {
      const Block::Changes changes = block->changed(seen);
      RL_ASSERT(changes.what == What::nothing || changes.what == What::latest_of_some);
      for (std::uint32_t k = 0; k < changes.n_rows_named; ++k) copy[changes.row(k)] = block->get(changes.row(k), 0);
      RL_ASSERT(copy[0] + copy[1] >= n_latest(seen));
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

int main(int argc, char** argv) { return model::run<Published, Halves, Named, Latest>(argc, argv); }
