// Least frequent, recently used: two partitions. New entries come into the unprivileged one, which lets go of what
// was asked for least within a window of time (ties: of that, what came to this count first); who is asked for
// again there moves into the privileged one, a least recently used list of at most half of the bytes, which gives
// what it has no room for back to the unprivileged one. Only that one evicts, while there is anything in it.
// Source: Bilal and Kang, "A cache management scheme for efficient content eviction and replication in cache
// networks", IEEE Access 5, 2017 (10.1109/ACCESS.2017.2669344).
// We differ: shares are bytes; windows are counted in requests, and counts are halved at their end instead of
// forgotten. Owners may hold entries: a held one that is next leaves its list and comes back as its newest. The
// newest entry of all goes last.
// Tunables: privileged share 1/2, window 10 requests an entry, counts up to 15.
// O(1) a hit; a choice looks at 16 counts and is paid by the holds that it meets. 24 bytes an entry.
#include <infcore/base/column.hpp>
#include <infcore/cache/entry_lists.hpp>
#include <infcore/contracts/eviction.hpp>

#include <algorithm>
#include <memory>

namespace infcore::cache {
namespace {

using contracts::EntryId;
using contracts::no_entry;

class Lfru final : public contracts::EvictionPolicy {
  static constexpr std::uint32_t n_counts = 16, privileged = n_counts;
  static constexpr std::uint64_t requests_an_entry = 10;
  struct State {
    std::uint64_t bytes;
    std::uint32_t n_windows;  ///< that were over when count was right
    std::uint8_t count;
    bool is_privileged;
    bool is_evictable;
  };
  static_assert(sizeof(State) == 16);

  void attach(const contracts::EvictionView& view, const contracts::EvictionLimits& limits) override {
    view_ = &view;
    privileged_bytes_max_ = limits.capacity_bytes / 2;
    grow(limits.n_entries_max);
  }
  void grow(std::uint32_t n_entries_max) override {
    states_.grow(n_entries_max);
    lists_.grow(n_entries_max);
  }

  void on_insert(EntryId id) noexcept override {
    if (newest_ != no_entry) enlist(newest_);
    count_request();
    states_[id] = {view_->entry(id).bytes, n_windows_, 1, false, false};
    newest_ = id;
    ++n_entries_;
  }
  void on_hit(std::span<const EntryId> ids) noexcept override {
    for (const EntryId id : ids) {
      count_request();
      if (id == newest_) {
        enlist(id);
        newest_ = no_entry;
      }
      const bool is_listed = lists_.is_listed(id);
      if (is_listed) leave(id);
      State& state = states_[id];
      state.count = static_cast<std::uint8_t>(std::min(count(state) + 1, n_counts - 1));
      state.n_windows = n_windows_;
      state.is_privileged = true;
      if (is_listed) enlist(id);
      while (privileged_bytes_ > privileged_bytes_max_) demote(lists_.front(privileged));
    }
  }
  void on_release(std::span<const EntryId>) noexcept override {}
  void on_evictable(EntryId id) noexcept override {
    states_[id].is_evictable = true;
    if (id == newest_ || lists_.is_listed(id)) return;
    enlist(id);
    while (privileged_bytes_ > privileged_bytes_max_) demote(lists_.front(privileged));
  }
  void on_held(EntryId id) noexcept override { states_[id].is_evictable = false; }
  void on_remove(EntryId id) noexcept override {
    if (lists_.is_listed(id)) leave(id);
    if (id == newest_) newest_ = no_entry;
    --n_entries_;
  }

  EntryId victim() noexcept override {
    for (std::uint32_t list = 0; list <= privileged; ++list) {
      for (EntryId id = lists_.front(list); id != no_entry; id = lists_.front(list)) {
        if (states_[id].is_evictable) return id;
        leave(id);
      }
    }
    return newest_ != no_entry && states_[newest_].is_evictable ? newest_ : no_entry;
  }

  [[nodiscard]] std::uint32_t count(const State& state) const noexcept {
    const std::uint32_t n_over = n_windows_ - state.n_windows;
    return n_over < 32 ? std::uint32_t{state.count} >> n_over : 0;
  }

  /// At a window's end, all counts are halved: each list joins that of half its count.
  void count_request() noexcept {
    if (++n_requests_ < requests_an_entry * n_entries_) return;
    n_requests_ = 0;
    ++n_windows_;
    for (std::uint32_t list = 1; list < n_counts; ++list) lists_.append(list / 2, list);
  }

  void demote(EntryId id) noexcept {
    leave(id);
    states_[id].is_privileged = false;
    enlist(id);
  }
  void enlist(EntryId id) noexcept {
    const State& state = states_[id];
    lists_.push_back(state.is_privileged ? privileged : count(state), id);
    if (state.is_privileged) privileged_bytes_ += state.bytes;
  }
  void leave(EntryId id) noexcept {
    lists_.remove(id);
    if (states_[id].is_privileged) privileged_bytes_ -= states_[id].bytes;
  }

  const contracts::EvictionView* view_{};
  std::uint64_t privileged_bytes_max_{};
  std::uint64_t privileged_bytes_{};
  std::uint64_t n_entries_{};
  std::uint64_t n_requests_{};  ///< in this window
  std::uint32_t n_windows_{};
  base::Column<State> states_;
  EntryLists<n_counts + 1> lists_;  ///< by count, then the privileged ones; who came first in front
  EntryId newest_{no_entry};        ///< in no list until another comes
};

}  // namespace

std::unique_ptr<contracts::EvictionPolicy> make_lfru() { return std::make_unique<Lfru>(); }

}  // namespace infcore::cache
