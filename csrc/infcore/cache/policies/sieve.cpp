// SIEVE: a hit only marks. A hand goes from the oldest entry to the newest and round again: what is marked loses its
// mark and stays where it is, the first without one goes.
// Source: Zhang, Yang, Yue, Vigfusson, Rashmi, NSDI 2024.
// We differ: owners may hold entries. The hand takes a held one out of the queue; let go, it comes back as the newest.
// The newest entry of all goes last: the paper makes room before it inserts. No tunables.
// O(1) a hit; a choice is paid by the marks it takes and the holds it meets, each once.
#include <infcore/base/column.hpp>
#include <infcore/cache/entry_lists.hpp>
#include <infcore/contracts/eviction.hpp>

#include <memory>

namespace infcore::cache {
namespace {

using contracts::EntryId;
using contracts::no_entry;

class Sieve final : public contracts::EvictionPolicy {
  struct Mark {
    bool is_found;
    bool is_evictable;
  };

  void attach(const contracts::EvictionView&, const contracts::EvictionLimits& limits) override {
    grow(limits.n_entries_max);
  }
  void grow(std::uint32_t n_entries_max) override {
    marks_.grow(n_entries_max);
    queue_.grow(n_entries_max);
  }

  void on_insert(EntryId id) noexcept override {
    marks_[id] = {};
    newest_ = id;
    queue_.push_back(0, id);
  }
  void on_hit(std::span<const EntryId> ids) noexcept override {
    for (const EntryId id : ids) marks_[id].is_found = true;
  }
  void on_release(std::span<const EntryId>) noexcept override {}
  void on_evictable(EntryId id) noexcept override {
    marks_[id].is_evictable = true;
    if (!queue_.is_listed(id)) queue_.push_back(0, id);
  }
  void on_held(EntryId id) noexcept override { marks_[id].is_evictable = false; }
  void on_remove(EntryId id) noexcept override {
    if (queue_.is_listed(id)) leave(id);
    if (id == newest_) newest_ = no_entry;
  }

  EntryId victim() noexcept override {
    // It ends: a round takes every mark and every held one, so the next finds one, or the newest alone.
    for (;;) {
      if (hand_ == no_entry) hand_ = queue_.front(0);
      if (hand_ == no_entry) return no_entry;
      Mark& mark = marks_[hand_];
      if (!mark.is_evictable) {
        leave(hand_);
        continue;
      }
      const bool is_passed = hand_ == newest_ ? queue_.front(0) != queue_.back(0) : mark.is_found;
      if (!is_passed) return hand_;
      if (hand_ != newest_) mark.is_found = false;
      hand_ = queue_.after(hand_);
    }
  }

  void leave(EntryId id) noexcept {
    if (id == hand_) hand_ = queue_.after(id);
    queue_.remove(id);
  }

  base::Column<Mark> marks_;
  EntryLists<1> queue_;  ///< the oldest in front
  EntryId hand_{no_entry};
  EntryId newest_{no_entry};
};

}  // namespace

std::unique_ptr<contracts::EvictionPolicy> make_sieve() { return std::make_unique<Sieve>(); }

}  // namespace infcore::cache
