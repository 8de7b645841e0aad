// StagingRing: an owner that writes into the regions it reserves, in a block that holds two, and two readers who read
// theirs and release it. No region is written while somebody reads it, and each reader finds what was written for it.
#include <infcore/device/staging_ring.hpp>

#include "model.hpp"

namespace {

using Ring = infcore::device::StagingRing<model::Atom>;

struct Regions : rl::test_suite<Regions, 3> {
  static constexpr const char* name = "StagingRing";
  static constexpr int context_bound = 3;
  Ring* ring{};
  model::Plain<int>* memory{};  // one cell for each of the block's two places
  rl::atomic<int>* handed{};    // 1 + place of a reader's region; 0: none yet. The hand-over is not what is checked
  std::uint64_t tickets[2]{};

  static rl::debug_info here() { return rl::debug_info("", __FILE__, __LINE__); }
  void before() {
    ring = new Ring(2 * Ring::alignment);
    memory = new model::Plain<int>[2];
    handed = new rl::atomic<int>[2];
    for (int i = 0; i < 2; ++i) handed[i].store(0, rl::mo_relaxed, here());
  }
  void after() {
    delete[] handed;
    delete[] memory;
    delete ring;
  }
  void thread(unsigned index) {
    if (index == 2) {
      own();
      return;
    }
    const int place = handed[index].load(rl::mo_acquire, here());
    if (place <= 0) return;
    const int found = memory[place - 1];
    RL_ASSERT(found == static_cast<int>(10 + index));
    ring->release(tickets[index]);
  }
  void own() {
    for (int i = 0; i < 2; ++i) {
      const auto region = ring->reserve(1);
      RL_ASSERT(region.has_value());
      memory[region->at / Ring::alignment] = 10 + i;
      tickets[i] = region->ticket;
      handed[i].store(static_cast<int>(1 + region->at / Ring::alignment), rl::mo_release, here());
    }
    if (const auto third = ring->reserve(1)) memory[third->at / Ring::alignment] = 12;
  }
};

}  // namespace

int main(int argc, char** argv) { return model::run<Regions>(argc, argv); }
