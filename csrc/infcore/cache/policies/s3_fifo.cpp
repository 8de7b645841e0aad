// S3-FIFO: three queues. New entries pass through a small one, a tenth of the bytes; those found twice there go on
// to the main one, the others leave, and their keys are remembered: who comes back soon enters the main one at
// once.
// Source: Yang, Zhang, Qiu, Yue, Rashmi, SOSP 2023.
// We differ: shares are bytes; as many keys are remembered as there are entries. Owners may hold entries: a held
// one that is next leaves its queue and comes back as its newest when it is let go. The newest entry of all goes
// last: the paper makes room before it inserts.
// Tunables: the small queue's share.
// O(1) a hit; a choice is paid by the hits and holds that it meets. 28 bytes an entry, its ghost included.
#include <infcore/base/column.hpp>
#include <infcore/cache/entry_lists.hpp>
#include <infcore/cache/ghost_keys.hpp>
#include <infcore/contracts/eviction.hpp>

#include <algorithm>
#include <array>
#include <memory>

namespace infcore::cache {
namespace {

using contracts::EntryId;
using contracts::no_entry;

class S3Fifo final : public contracts::EvictionPolicy {
  static constexpr std::uint8_t small_queue = 0, main_queue = 1;
  static constexpr std::uint8_t n_hits_max = 3;
  static constexpr std::uint64_t small_part = 10;
  struct State {
    std::uint8_t queue : 1, n_hits : 2, is_evictable : 1;
  };
  static_assert(sizeof(State) == 1);

  void attach(const contracts::EvictionView& view, const contracts::EvictionLimits& limits) override {
    view_ = &view;
    small_bytes_max_ = std::max<std::uint64_t>(1, limits.capacity_bytes / small_part);
    grow(limits.n_entries_max);
  }
  void grow(std::uint32_t n_entries_max) override {
    states_.grow(n_entries_max);
    queues_.grow(n_entries_max);
    ghosts_.grow(n_entries_max);
  }

  void on_insert(EntryId id) noexcept override {
    if (newest_ != no_entry) enqueue(newest_);
    const bool was_here = ghosts_.take(view_->entry(id).key, n_entries_);
    states_[id] = {.queue = was_here ? main_queue : small_queue, .n_hits = 0, .is_evictable = false};
    ++n_entries_;
    newest_ = id;
  }
  void on_hit(std::span<const EntryId> ids) noexcept override {
    for (const EntryId id : ids)
      if (states_[id].n_hits < n_hits_max) ++states_[id].n_hits;
  }
  void on_release(std::span<const EntryId>) noexcept override {}
  void on_evictable(EntryId id) noexcept override {
    states_[id].is_evictable = true;
    if (id != newest_ && !queues_.is_listed(id)) enqueue(id);
  }
  void on_held(EntryId id) noexcept override { states_[id].is_evictable = false; }
  void on_remove(EntryId id) noexcept override {
    if (queues_.is_listed(id)) leave(id);
    if (id == newest_) newest_ = no_entry;
    if (id == named_ && states_[id].queue == small_queue) ghosts_.remember(view_->entry(id).key);
    named_ = no_entry;
    --n_entries_;
  }

  EntryId victim() noexcept override {
    for (;;) {
      const bool is_small = bytes_[small_queue] >= small_bytes_max_ ? queues_.front(small_queue) != no_entry
                                                                    : queues_.front(main_queue) == no_entry;
      named_ = queues_.front(is_small ? small_queue : main_queue);
      if (named_ == no_entry) {
        if (newest_ != no_entry && states_[newest_].is_evictable) named_ = newest_;
        return named_;
      }
      State& state = states_[named_];
      const bool stays = state.is_evictable && (is_small ? state.n_hits > 1 : state.n_hits > 0);
      if (state.is_evictable && !stays) return named_;
      leave(named_);
      if (!stays) continue;  // held: back when it is let go
      state.n_hits = is_small ? 0 : (state.n_hits - 1) & n_hits_max;
      state.queue = main_queue;
      enqueue(named_);
    }
  }

  void enqueue(EntryId id) noexcept {
    queues_.push_back(states_[id].queue, id);
    bytes_[states_[id].queue] += view_->entry(id).bytes;
  }
  void leave(EntryId id) noexcept {
    queues_.remove(id);
    bytes_[states_[id].queue] -= view_->entry(id).bytes;
  }

  const contracts::EvictionView* view_{};
  std::uint64_t small_bytes_max_{};
  std::uint64_t n_entries_{};
  base::Column<State> states_;
  EntryLists<2> queues_;  ///< the oldest in front
  std::array<std::uint64_t, 2> bytes_{};
  GhostKeys ghosts_;
  EntryId newest_{no_entry};  ///< in no queue until another comes
  EntryId named_{no_entry};
};

}  // namespace

std::unique_ptr<contracts::EvictionPolicy> make_s3_fifo() { return std::make_unique<S3Fifo>(); }

}  // namespace infcore::cache
