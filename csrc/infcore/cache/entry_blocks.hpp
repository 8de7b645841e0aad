#pragma once
#include <infcore/base/column.hpp>
#include <infcore/cache/reuse_rates.hpp>
#include <infcore/contracts/eviction.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace infcore::cache {

/// What is known of each entry's uses and worth, 16 of them side by side, so that they are valued together. Places are
/// dense and those of the evictable come first: who becomes evictable or held, or leaves, changes places with another.
/// Single-threaded; O(1); 18 bytes an entry; allocates in grow() only.
class EntryBlocks {
 public:
  using EntryId = contracts::EntryId;
  static constexpr std::uint32_t block_size = 16;

  struct Block {
    std::array<std::uint32_t, block_size> used;  ///< when last
    std::array<float, block_size> worth;         ///< cost by bytes
    std::array<EntryId, block_size> id;
    std::array<std::uint8_t, block_size> rate_class;  ///< of history
    std::array<ReuseHistory, block_size> history;
  };
  static_assert(sizeof(Block) == 14 * block_size);
  using Values = std::array<float, block_size>;
  static constexpr float no_value = std::numeric_limits<float>::max();

  void grow(std::uint32_t n_entries_max) {
    places_.grow(n_entries_max);
    blocks_.grow((std::size_t{n_entries_max} + block_size - 1) / block_size);
  }

  [[nodiscard]] std::uint32_t size() const noexcept { return n_entries_; }
  [[nodiscard]] std::uint32_t n_evictable() const noexcept { return n_evictable_; }
  /// Of an entry that is in; below n_evictable() where it is evictable.
  [[nodiscard]] std::uint32_t place(EntryId id) const noexcept { return places_[id]; }
  /// Where an entry stood that has left, nobody or another may stand now.
  [[nodiscard]] bool is_evictable(EntryId id) const noexcept {
    const std::uint32_t place = places_[id];
    return place < n_evictable_ && block(place).id[place % block_size] == id;
  }
  [[nodiscard]] Block& block(std::uint32_t place) noexcept { return blocks_[place / block_size]; }
  [[nodiscard]] const Block& block(std::uint32_t place) const noexcept { return blocks_[place / block_size]; }

  /// Held at first.
  void add(EntryId id, float worth, ReuseHistory history, std::uint32_t used) noexcept {
    const std::uint32_t place = n_entries_++, at = place % block_size;
    Block& into = block(place);
    into.used[at] = used;
    into.worth[at] = worth;
    into.id[at] = id;
    into.rate_class[at] = static_cast<std::uint8_t>(history.of_class());
    into.history[at] = history;
    places_[id] = place;
  }
  void remove(EntryId id) noexcept {
    std::uint32_t hole = places_[id];
    if (hole < n_evictable_) {
      copy(--n_evictable_, hole);
      hole = n_evictable_;
    }
    copy(--n_entries_, hole);
  }
  void make_evictable(EntryId id) noexcept { exchange(places_[id], n_evictable_++); }
  void make_held(EntryId id) noexcept { exchange(places_[id], --n_evictable_); }

  /// What each evictable one of a block is worth: the rate of its class and age, times worth. Behind them no_value.
  [[nodiscard]] Values values(std::uint32_t first_place, const ReuseRates& rates, std::uint32_t now) const noexcept {
    const Block& from = block(first_place);
    std::array<std::uint32_t, block_size> rate;
    for (std::uint32_t i = 0; i < block_size; ++i) {
      rate[i] = from.rate_class[i] * ReuseRates::n_ages + ReuseRates::age_class(now - from.used[i]);
    }
    Values values;
    for (std::uint32_t i = 0; i < block_size; ++i) values[i] = rates.rate(rate[i]);
    for (std::uint32_t i = 0; i < block_size; ++i) values[i] *= from.worth[i];
    for (std::uint32_t i = n_evictable_ - first_place; i < block_size; ++i) values[i] = no_value;
    return values;
  }
  void prefetch(std::uint32_t first_place) const noexcept {
    if (first_place >= n_entries_) return;
    const char* const at = reinterpret_cast<const char*>(&block(first_place));
    for (std::size_t line = 0; line < sizeof(Block); line += 64) __builtin_prefetch(at + line);
  }

 private:
  void copy(std::uint32_t from, std::uint32_t to) noexcept {
    if (from == to) return;
    const Block& source = block(from);
    Block& sink = block(to);
    const std::uint32_t i = from % block_size, at = to % block_size;
    sink.used[at] = source.used[i];
    sink.worth[at] = source.worth[i];
    sink.id[at] = source.id[i];
    sink.rate_class[at] = source.rate_class[i];
    sink.history[at] = source.history[i];
    places_[sink.id[at]] = to;
  }
  void exchange(std::uint32_t a, std::uint32_t b) noexcept {
    if (a == b) return;
    Block &of_a = block(a), &of_b = block(b);
    const std::uint32_t i = a % block_size, at = b % block_size;
    std::swap(of_a.used[i], of_b.used[at]);
    std::swap(of_a.worth[i], of_b.worth[at]);
    std::swap(of_a.id[i], of_b.id[at]);
    std::swap(of_a.rate_class[i], of_b.rate_class[at]);
    std::swap(of_a.history[i], of_b.history[at]);
    places_[of_a.id[i]] = a;
    places_[of_b.id[at]] = b;
  }

  base::Column<std::uint32_t> places_;  ///< by id
  base::Column<Block> blocks_;
  std::uint32_t n_entries_{};
  std::uint32_t n_evictable_{};
};

}  // namespace infcore::cache
