// PublishedBlock: two writers of a row each, and a reader that looks three times. A count that is seen brings every
// store that it counts, of either writer; and what was seen once is never copied older.
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

}  // namespace

int main(int argc, char** argv) { return model::run<Published>(argc, argv); }
