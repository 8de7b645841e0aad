// Least recently used: what goes is the evictable entry that was found, inserted or let go longest ago.
// Source: folklore; prefix caches of LLM servers do the same over the leaves of their tree (SGLang, arXiv 2312.07104).
// Letting go counts as use, since a conversation that ran for a minute goes on from where it ended. No tunables.
// O(1) a use, in a list in the order of uses. What becomes evictable long after it was used (a parent whose last child
// went) does not belong at its end: it waits in a heap, O(log n).
#include <infcore/base/column.hpp>
#include <infcore/base/indexed_heap.hpp>
#include <infcore/cache/entry_lists.hpp>
#include <infcore/contracts/eviction.hpp>

#include <algorithm>
#include <array>
#include <compare>
#include <memory>

namespace infcore::cache {
namespace {

using contracts::EntryId;
using contracts::no_entry;

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
    used_.grow(n_entries_max);
    late_.grow(n_entries_max);
    in_order_.grow(n_entries_max);
  }

  void on_insert(EntryId id) noexcept override { used_[id] = ++n_uses_; }
  void on_hit(std::span<const EntryId> ids) noexcept override {
    for (const EntryId& id : ids) use({&id, 1});
  }
  void on_release(std::span<const EntryId> ids) noexcept override { use(ids); }
  void on_held(EntryId id) noexcept override { leave(id); }

  void on_evictable(EntryId id) noexcept override {
    const EntryId last = in_order_.back(0);
    if (last == no_entry || age(last) < age(id)) {
      in_order_.push_back(0, id);
    } else {
      late_.push(id, age(id));
    }
  }

  void on_remove(EntryId id) noexcept override {
    if (is_evictable(id)) leave(id);
  }

  EntryId victim() noexcept override {
    const EntryId first = in_order_.front(0);
    if (late_.empty()) return first;
    return first == no_entry || late_.top_key() < age(first) ? late_.top() : first;
  }

  void use(std::span<const EntryId> ids) noexcept {
    ++n_uses_;
    if (ids.size() == 1) {
      used_[ids[0]] = n_uses_;
      if (!is_evictable(ids[0])) return;
      leave(ids[0]);
      in_order_.push_back(0, ids[0]);
      return;
    }
    // Used at one time, so in the order of their ids: taken out some at a time, and back in that order.
    std::array<EntryId, 64> taken;
    std::size_t n_taken = 0;
    for (const EntryId id : ids) {
      if (used_[id] == n_uses_) continue;  // it stands here twice
      used_[id] = n_uses_;
      if (!is_evictable(id)) continue;
      leave(id);
      taken[n_taken++] = id;
      if (n_taken == taken.size()) {
        give_back(taken);
        n_taken = 0;
      }
    }
    give_back({taken.data(), n_taken});
  }

  void give_back(std::span<EntryId> ids) noexcept {
    std::sort(ids.begin(), ids.end());
    for (const EntryId id : ids) on_evictable(id);
  }

  [[nodiscard]] Age age(EntryId id) const noexcept { return {used_[id], id}; }
  [[nodiscard]] bool is_evictable(EntryId id) const noexcept { return in_order_.is_listed(id) || late_.contains(id); }
  void leave(EntryId id) noexcept {
    if (in_order_.is_listed(id)) {
      in_order_.remove(id);
    } else {
      late_.remove(id);
    }
  }

  std::uint64_t n_uses_{};
  base::Column<std::uint64_t> used_;
  EntryLists<1> in_order_;
  base::IndexedHeap<Age> late_{0};
};

}  // namespace

std::unique_ptr<contracts::EvictionPolicy> make_lru() { return std::make_unique<Lru>(); }

}  // namespace infcore::cache
