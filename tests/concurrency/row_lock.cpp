// RowLock: three threads, one of which takes it twice; what it guards is plain memory, and no increment is lost.
#include <infcore/contracts/row_lock.hpp>

#include "model.hpp"

namespace {

void yield() noexcept { rl::yield(1, rl::debug_info("", __FILE__, __LINE__)); }

struct Guarded : rl::test_suite<Guarded, 3> {
  static constexpr const char* name = "RowLock";
  static constexpr int context_bound = 3;
  infcore::contracts::RowLock<model::Atom, yield>* lock{};
  model::Plain<int>* count{};

  void before() {
    lock = new infcore::contracts::RowLock<model::Atom, yield>;
    count = new model::Plain<int>;
  }
  void after() {
    RL_ASSERT(*count == 4);
    delete count;
    delete lock;
  }
  void thread(unsigned index) {
    for (int i = 0; i < (index == 0 ? 2 : 1); ++i) {
      lock->lock();
      *count = *count + 1;
      lock->unlock();
    }
  }
};

}  // namespace

int main(int argc, char** argv) { return model::run<Guarded>(argc, argv); }
