// CreditCell: whoever reads a cell while others add to it gets a sum of whole changes, each on its side of the time
// that was asked for, or is told that the reading is not exact.
#include <infcore/contracts/credit_cell.hpp>

#include "model.hpp"

namespace {

using infcore::contracts::Credit;

void no_pause() noexcept {}

/// Two writers of a change each, one before and one after the reader's time.
struct Sides : rl::test_suite<Sides, 3> {
  static constexpr const char* name = "CreditCell, sides";
  static constexpr int context_bound = 3;
  using Cell = infcore::contracts::CreditCell<model::Atom, 2>;
  Cell* cell{};

  void before() { cell = new Cell; }
  void after() {
    const auto all = cell->read(5, 1, no_pause);
    RL_ASSERT(all.exact && all.total.inflight == 2 && all.total.reserved_ns == 30);
    RL_ASSERT(all.since.inflight == 1 && all.since.reserved_ns == 20);
    delete cell;
  }
  void thread(unsigned index) {
    if (index == 0) return cell->add(Credit{1, 10}, 5);
    if (index == 1) return cell->add(Credit{1, 20}, 6);
    const auto seen = cell->read(5, 1, no_pause);
    if (!seen.exact) return;
    const auto before_ns = seen.total.reserved_ns - seen.since.reserved_ns;
    RL_ASSERT(before_ns == 0 || before_ns == 10);
    RL_ASSERT(seen.since.reserved_ns == 0 || seen.since.reserved_ns == 20);
    RL_ASSERT(seen.since.inflight == seen.since.reserved_ns / 20);
    RL_ASSERT(seen.total.inflight - seen.since.inflight == before_ns / 10);
  }
};

/// One writer that comes around the places while somebody reads them.
struct Around : rl::test_suite<Around, 2> {
  static constexpr const char* name = "CreditCell, around";
  static constexpr int context_bound = 4;
  using Cell = infcore::contracts::CreditCell<model::Atom, 2>;
  Cell* cell{};

  void before() { cell = new Cell; }
  void after() { delete cell; }
  void thread(unsigned index) {
    if (index == 0) {
      for (int i = 0; i < 3; ++i) cell->add(Credit{1, 1 << i}, i + 1);
      return;
    }
    const auto seen = cell->read(1, 1, no_pause);
    if (!seen.exact) return;
    const auto n = seen.total.inflight;
    RL_ASSERT(seen.total.reserved_ns == (1 << n) - 1);
    RL_ASSERT(seen.since.inflight == (n > 1 ? n - 1 : 0));
    RL_ASSERT(seen.since.reserved_ns == (n > 1 ? (1 << n) - 2 : 0));
  }
};

}  // namespace

int main(int argc, char** argv) { return model::run<Sides, Around>(argc, argv); }
