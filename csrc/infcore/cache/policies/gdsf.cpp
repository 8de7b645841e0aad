// Greedy dual with size and frequency: an entry is worth the floor plus hits * cost / bytes; the least worth goes, and
// the floor rises to it. So what costs much to make again, or is asked for often, stays longer, but not for ever.
// Source: Cherkasova, HP Labs TR-98-69R1 (1998), after Cao and Irani, greedy dual size, USENIX ITS 1997.
// We differ: letting go lifts an entry to the present floor without counting as a hit, since what was in use until now
// was not old; the floor rises when the owner removes what victim() named; cost by bytes is of single precision. No
// tunables.
// O(1) a hit, O(log n) a change of what is evictable: worth rises, so a heap's key that is too low stands until it is
// on top, and is then put right (the choice is the same to the bit). 36 bytes an entry.
#include <infcore/base/column.hpp>
#include <infcore/base/indexed_heap.hpp>
#include <infcore/contracts/eviction.hpp>

#include <algorithm>
#include <limits>
#include <memory>

namespace infcore::cache {
namespace {

using contracts::EntryId;

class Gdsf final : public contracts::EvictionPolicy {
  struct Use {
    double worth;
    float cost_per_byte;
    std::uint32_t n_hits;
  };

  void attach(const contracts::EvictionView& view, const contracts::EvictionLimits& limits) override {
    view_ = &view;
    grow(limits.n_entries_max);
  }
  void grow(std::uint32_t n_entries_max) override {
    uses_.grow(n_entries_max);
    evictable_.grow(n_entries_max);
  }

  void on_insert(EntryId id) noexcept override {
    const contracts::EvictionEntry entry = view_->entry(id);
    const double cost_per_byte = entry.cost_us / static_cast<double>(entry.bytes);
    constexpr double most = std::numeric_limits<float>::max();
    uses_[id] = {0.0, static_cast<float>(std::min(cost_per_byte, most)), 1};
    lift(id);
  }
  void on_hit(std::span<const EntryId> ids) noexcept override {
    for (const EntryId id : ids) {
      uses_[id].n_hits += uses_[id].n_hits < std::numeric_limits<std::uint32_t>::max() ? 1 : 0;
      lift(id);
    }
  }
  void on_release(std::span<const EntryId> ids) noexcept override {
    for (const EntryId id : ids) lift(id);
  }
  void on_evictable(EntryId id) noexcept override { evictable_.push(id, uses_[id].worth); }
  void on_held(EntryId id) noexcept override { evictable_.remove(id); }
  void on_remove(EntryId id) noexcept override {
    if (!evictable_.contains(id)) return;
    if (id == named_) {
      floor_ = uses_[id].worth;
      highest_floor_ = std::max(highest_floor_, floor_);
    }
    evictable_.remove(id);
  }
  EntryId victim() noexcept override {
    named_ = contracts::no_entry;
    while (!evictable_.empty()) {
      named_ = evictable_.top();
      if (evictable_.top_key() == uses_[named_].worth) break;
      put_right(named_);
    }
    return named_;
  }

  void lift(EntryId id) noexcept {
    Use& use = uses_[id];
    use.worth = floor_ + double{use.cost_per_byte} * use.n_hits;
    // The floor falls where what was held through its rise goes: then worth may fall, too. Keys are never above worth.
    if (floor_ < highest_floor_ && evictable_.contains(id) && use.worth < evictable_.key(id)) put_right(id);
  }

  void put_right(EntryId id) noexcept {
    evictable_.remove(id);
    on_evictable(id);
  }

  const contracts::EvictionView* view_{};
  double floor_{};
  EntryId named_{contracts::no_entry};
  double highest_floor_{};
  base::Column<Use> uses_;
  base::IndexedHeap<double, true> evictable_{0};
};

}  // namespace

std::unique_ptr<contracts::EvictionPolicy> make_gdsf() { return std::make_unique<Gdsf>(); }

}  // namespace infcore::cache
