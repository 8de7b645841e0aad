// W-TinyLFU: new entries pass through a small window, least recently used first out; who leaves it gets into the
// main part only where it was asked for more often of late, hits before it came included, than what would go for
// it. The main part is a segmented LRU: what is found there again is protected.
// Source: Einziger, Friedman, Manes, ACM Transactions on Storage 13(4), 2017; sizes: Einziger, Eytan, Friedman,
// Manes, ACM Transactions on Storage 18(3), 2022.
// We differ: shares are bytes; an entry is weighed against one victim after the other until there is room for it,
// and goes where it loses. Owners may hold entries: a held one that is next leaves its list and comes back as its
// newest.
// Tunables: the window's share, 1 %, the protected share of the rest, 80 %. No window that adapts, no random
// admission.
// O(1) a hit; a choice is paid by the holds that it meets. 13 to 17 bytes an entry.
#include <infcore/base/column.hpp>
#include <infcore/cache/entry_lists.hpp>
#include <infcore/cache/frequency_sketch.hpp>
#include <infcore/contracts/eviction.hpp>

#include <algorithm>
#include <array>
#include <memory>

namespace infcore::cache {
namespace {

using contracts::EntryId;
using contracts::no_entry;

class WTinylfu final : public contracts::EvictionPolicy {
  static constexpr std::uint8_t window = 0, probation = 1, guarded = 2;
  struct State {
    std::uint8_t list : 2, is_evictable : 1;
  };
  static_assert(sizeof(State) == 1);

  void attach(const contracts::EvictionView& view, const contracts::EvictionLimits& limits) override {
    view_ = &view;
    window_bytes_max_ = std::max<std::uint64_t>(1, limits.capacity_bytes / 100);
    main_bytes_max_ = limits.capacity_bytes - std::min(limits.capacity_bytes, window_bytes_max_);
    guarded_bytes_max_ = main_bytes_max_ / 5 * 4;
    grow(limits.n_entries_max);
  }
  void grow(std::uint32_t n_entries_max) override {
    states_.grow(n_entries_max);
    lists_.grow(n_entries_max);
    asked_.grow(n_entries_max);
  }

  void on_insert(EntryId id) noexcept override {
    asked_.add(key(id));
    states_[id] = {.list = window, .is_evictable = false};
    enlist(id);
    while (moves_on()) {
    }
  }
  void on_hit(std::span<const EntryId> ids) noexcept override {
    for (const EntryId id : ids) {
      asked_.add(key(id));
      const bool is_listed = lists_.is_listed(id);
      if (is_listed) leave(id);
      if (states_[id].list == probation) states_[id].list = guarded;
      if (is_listed) enlist(id);
      while (bytes_[guarded] > guarded_bytes_max_) move(lists_.front(guarded), probation);
    }
  }
  void on_release(std::span<const EntryId>) noexcept override {}
  void on_evictable(EntryId id) noexcept override {
    states_[id].is_evictable = true;
    if (!lists_.is_listed(id)) enlist(id);
  }
  void on_held(EntryId id) noexcept override { states_[id].is_evictable = false; }
  void on_remove(EntryId id) noexcept override {
    if (lists_.is_listed(id)) leave(id);
  }

  EntryId victim() noexcept override {
    do {
      for (const std::uint8_t list : {window, probation, guarded}) drop_held(list);
    } while (moves_on());
    const EntryId candidate = lists_.front(window);
    EntryId weakest = lists_.front(probation);
    if (weakest == no_entry) weakest = lists_.front(guarded);
    if (candidate == no_entry) return weakest;
    if (weakest == no_entry) return candidate;
    const bool is_challenged = bytes_[window] > window_bytes_max_;
    if (!is_challenged || asked_.count(key(candidate)) > asked_.count(key(weakest))) return weakest;
    return candidate;
  }

  /// The window's oldest goes on where the window is too full and the main part has room for it.
  bool moves_on() noexcept {
    const EntryId oldest = lists_.front(window);
    if (bytes_[window] <= window_bytes_max_ || oldest == no_entry) return false;
    if (bytes_[probation] + bytes_[guarded] + view_->entry(oldest).bytes > main_bytes_max_) return false;
    move(oldest, probation);
    return true;
  }

  void drop_held(std::uint32_t list) noexcept {
    for (EntryId id = lists_.front(list); id != no_entry && !states_[id].is_evictable; id = lists_.front(list))
      leave(id);
  }
  void move(EntryId id, std::uint8_t list) noexcept {
    leave(id);
    states_[id].list = list & 3u;
    enlist(id);
  }
  [[nodiscard]] std::uint64_t key(EntryId id) const noexcept { return view_->entry(id).key; }
  void enlist(EntryId id) noexcept {
    lists_.push_back(states_[id].list, id);
    bytes_[states_[id].list] += view_->entry(id).bytes;
  }
  void leave(EntryId id) noexcept {
    lists_.remove(id);
    bytes_[states_[id].list] -= view_->entry(id).bytes;
  }

  const contracts::EvictionView* view_{};
  std::uint64_t window_bytes_max_{};
  std::uint64_t main_bytes_max_{};
  std::uint64_t guarded_bytes_max_{};
  base::Column<State> states_;
  EntryLists<3> lists_;  ///< the least recently used in front
  std::array<std::uint64_t, 3> bytes_{};
  FrequencySketch asked_;
};

}  // namespace

std::unique_ptr<contracts::EvictionPolicy> make_w_tinylfu() { return std::make_unique<WTinylfu>(); }

}  // namespace infcore::cache
