// Least recently used: what goes is the evictable entry that was found, inserted or let go longest ago.
// Source: folklore; prefix caches of LLM servers do the same over the leaves of their tree (SGLang, arXiv 2312.07104).
// Letting go counts as use, since a conversation that ran for a minute goes on from where it ended. No tunables.
// O(1) a hit, O(log n) where an entry becomes evictable or is held again: chains have one leaf, so that is rare.
#include <infcore/base/indexed_heap.hpp>
#include <infcore/contracts/eviction.hpp>

#include <compare>
#include <memory>
#include <vector>

namespace infcore::cache {
namespace {

using contracts::EntryId;

class Lru final : public contracts::EvictionPolicy {
  struct Age {
    std::uint64_t used;
    EntryId id;
    auto operator<=>(const Age&) const = default;
  };

  void attach(const contracts::EvictionView&, const contracts::EvictionLimits& limits) override {
    grow(limits.n_entries_max);
  }
  void grow(std::uint32_t n_entries_max) override {
    used_.resize(n_entries_max);
    evictable_.grow(n_entries_max);
  }

  void on_insert(EntryId id) noexcept override { used_[id] = ++n_uses_; }
  void on_hit(std::span<const EntryId> ids) noexcept override { use(ids); }
  void on_release(std::span<const EntryId> ids) noexcept override { use(ids); }
  void on_evictable(EntryId id) noexcept override { evictable_.push(id, {used_[id], id}); }
  void on_held(EntryId id) noexcept override { evictable_.remove(id); }

  void on_remove(EntryId id) noexcept override {
    if (evictable_.contains(id)) evictable_.remove(id);
  }

  EntryId victim() noexcept override { return evictable_.empty() ? contracts::no_entry : evictable_.top(); }

  void use(std::span<const EntryId> ids) noexcept {
    ++n_uses_;
    for (const EntryId id : ids) {
      used_[id] = n_uses_;
      if (evictable_.contains(id)) {
        evictable_.remove(id);
        evictable_.push(id, {n_uses_, id});
      }
    }
  }

  std::uint64_t n_uses_{};
  std::vector<std::uint64_t> used_;
  base::IndexedHeap<Age> evictable_{0};
};

}  // namespace

std::unique_ptr<contracts::EvictionPolicy> make_lru() { return std::make_unique<Lru>(); }

}  // namespace infcore::cache
