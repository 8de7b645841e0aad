// Clairvoyant, for replays: the least cost / (bytes * lookups until its next use) goes, so what is never asked for
// again goes first, also straight away.
// A bound of what: where all sizes and costs are equal it is MIN with bypass, and no policy misses less. Else the best
// schedule is NP-hard to find (Chrobak, Woeginger, Makino, Xu, Algorithmica 63, 2012), and this is a good one that
// knows the future, not a bound; nor is it with prefixes, where leaves go first.
// Source: Belady, IBM Systems Journal 5(2), 1966; worth per byte and time: Berger, Beckmann, Harchol-Balter, POMACS
// 2(2), 2018.
// We differ: entries of nearly equal cost per byte (a quarter of a power of two) stand in one heap, the farthest on
// top, and tops alone are compared. Where next uses are not known, equals go by the lowest id. No tunables.
// O(log n) a hit; a choice looks at the top of each heap in use, some dozens.
#include <infcore/cache/farthest_heaps.hpp>
#include <infcore/contracts/eviction.hpp>

#include <algorithm>
#include <bit>
#include <memory>
#include <vector>

namespace infcore::cache {
namespace {

using contracts::EntryId;
using contracts::no_entry;

class Belady final : public contracts::EvictionPolicy {
  static constexpr std::uint32_t n_classes = 1u << 13;  // sign and exponent of a double, two bits of its fraction
  struct State {
    double cost_per_byte;
    std::uint64_t next_use;
    std::uint32_t value_class;
    bool is_evictable;
  };

  void attach(const contracts::EvictionView& view, const contracts::EvictionLimits& limits) override {
    view_ = &view;
    grow(limits.n_entries_max);
  }
  void grow(std::uint32_t n_entries_max) override {
    states_.resize(n_entries_max);
    heaps_.grow(n_entries_max);
  }
  bool asks_future() const noexcept override { return true; }

  void on_insert(EntryId id) noexcept override {
    ++now_;
    states_[id].is_evictable = false;
    look(id);
  }
  void on_hit(std::span<const EntryId> ids) noexcept override {
    for (const EntryId id : ids) {
      // What it was to come after is how many there were: so the count is right again after lookups that it was not
      // told.
      const std::uint64_t due = states_[id].next_use;
      now_ = due != contracts::EvictionEntry::unknown_use ? std::max(now_, due) : now_ + 1;
      const bool is_evictable = states_[id].is_evictable;
      if (is_evictable) on_held(id);
      look(id);
      if (is_evictable) on_evictable(id);
    }
  }
  void on_release(std::span<const EntryId>) noexcept override {}
  void on_evictable(EntryId id) noexcept override {
    State& state = states_[id];
    state.is_evictable = true;
    heaps_.push(state.value_class, id, state.next_use);
    in_use_[state.value_class / 64] |= bit(state.value_class);
  }
  void on_held(EntryId id) noexcept override {
    State& state = states_[id];
    state.is_evictable = false;
    heaps_.remove(state.value_class, id);
    if (heaps_.top(state.value_class) == no_entry) in_use_[state.value_class / 64] &= ~bit(state.value_class);
  }
  void on_remove(EntryId id) noexcept override {
    if (states_[id].is_evictable) on_held(id);
  }

  EntryId victim() noexcept override {
    EntryId least = no_entry;
    double least_worth = 0.0;
    for (std::size_t word = 0; word < in_use_.size(); ++word) {
      for (std::uint64_t rest = in_use_[word]; rest != 0; rest &= rest - 1) {
        const EntryId top = heaps_.top(word * 64 + static_cast<std::size_t>(std::countr_zero(rest)));
        const double its_worth = worth(top);
        if (least == no_entry || its_worth < least_worth || (its_worth == least_worth && top < least)) {
          least = top;
          least_worth = its_worth;
        }
      }
    }
    return least;
  }

  void look(EntryId id) noexcept {
    const contracts::EvictionEntry entry = view_->entry(id);
    State& state = states_[id];
    state.cost_per_byte = entry.cost_us / static_cast<double>(entry.bytes);
    state.next_use = entry.next_use;
    state.value_class = static_cast<std::uint32_t>(std::bit_cast<std::uint64_t>(state.cost_per_byte) >> 50) % n_classes;
  }

  [[nodiscard]] double worth(EntryId id) const noexcept {
    const State& state = states_[id];
    if (state.next_use == contracts::EvictionEntry::unknown_use) return 0.0;
    return state.cost_per_byte / static_cast<double>(std::max(state.next_use, now_ + 1) - now_);
  }
  [[nodiscard]] static std::uint64_t bit(std::uint32_t value_class) noexcept {
    return std::uint64_t{1} << (value_class % 64);
  }

  const contracts::EvictionView* view_{};
  std::uint64_t now_{};  ///< lookups so far, as far as it was told
  std::vector<State> states_;
  std::vector<std::uint64_t> in_use_ = std::vector<std::uint64_t>(n_classes / 64);  ///< a bit for each heap: not empty
  FarthestHeaps heaps_{n_classes};
};

}  // namespace

std::unique_ptr<contracts::EvictionPolicy> make_belady() { return std::make_unique<Belady>(); }

}  // namespace infcore::cache
