#pragma once
#include <infcore/base/column.hpp>
#include <infcore/cache/reuse_rates.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace infcore::cache {

/// Histories of keys that left, about four for each entry there may be and 2,048 more, since a small cache has as much
/// to learn from: the oldest of a key's eight neighbours makes room. 16 bytes for each entry and 8 KiB; keys are 16
/// bits of a hash: one in 8,000 is taken for another, which then seems known (one in 500, and the rates were wrong
/// where few keys come again). Single-threaded; O(1), half a cache line; allocates in grow() only.
class GhostHistories {
 public:
  struct Ghost {
    ReuseHistory history;  ///< empty: there is none
    std::uint32_t used;    ///< when, as told, rounded down
  };

  /// For so many entries. Knows nothing then: tags do not tell where they would stand in a larger table.
  void grow(std::uint32_t n_entries_max) {
    base::Column<Bucket> buckets;
    buckets.grow(n_entries_max / 2 + n_more);
    buckets.swap(buckets_);
    // Times wrap after 512 units, at least twice as many insertions as there are ghosts, so about twice their lives.
    const std::uint32_t n_bits = static_cast<std::uint32_t>(std::bit_width(n_entries_max + 2 * n_more));
    unit_bits_ = n_bits - 6;
  }

  /// What is known of the key, which is forgotten.
  [[nodiscard]] Ghost take(std::uint64_t key, std::uint32_t now) noexcept {
    const std::uint64_t hash = hash_of(key);
    const std::uint32_t ours = tag_of(hash);
    for (Way& way : bucket_of(hash)) {
      if ((way ^ ours) >> tag_at != 0) continue;
      const Ghost found = ghost_of(way, now);
      way = 0;
      return found;
    }
    return {{}, 0};
  }

  /// In the place of the oldest of its neighbours, of which `rates` learns.
  void remember(std::uint64_t key, const Ghost& ghost, std::uint32_t now, ReuseRates& rates) noexcept {
    const std::uint64_t hash = hash_of(key);
    Bucket& bucket = bucket_of(hash);
    const std::uint32_t now_units = now >> unit_bits_;
    std::int32_t last = 0;  // of those equally old the last, so that no branch is needed; the free are the oldest
#pragma omp simd reduction(max : last)
    for (std::uint32_t i = 0; i < n_ways; ++i) {
      const std::uint32_t age = (now_units - (bucket[i] >> history_bits)) & n_units_max;
      const std::uint32_t is_free = bucket[i] == 0 ? n_units_max + 1 : 0;
      const std::int32_t rank = static_cast<std::int32_t>((is_free | age) * n_ways + i);
      last = rank > last ? rank : last;
    }
    Way& way = bucket[static_cast<std::size_t>(last) % n_ways];
    if (way != 0) {
      const Ghost oldest = ghost_of(way, now);
      rates.lost(oldest.history.of_class(), now - oldest.used);
    }
    way = tag_of(hash) | ((ghost.used >> unit_bits_) & n_units_max) << history_bits | ghost.history.bits();
  }

 private:
  static constexpr std::uint32_t n_ways = 8;
  static constexpr std::uint32_t n_more = 256;  ///< buckets of any table
  static constexpr std::uint32_t history_bits = 7, units_bits = 9, n_units_max = (1u << units_bits) - 1, tag_at = 16;
  /// From the top: a tag that is not 0; when used, in units of 2^unit_bits_ insertions; the history. 0: there is none.
  using Way = std::uint32_t;
  struct alignas(32) Bucket : std::array<Way, n_ways> {};

  [[nodiscard]] static std::uint64_t hash_of(std::uint64_t key) noexcept {
    // Keys may be hashes or count up: two odd factors, of the golden ratio and of a search for good mixing.
    key = (key ^ key >> 32) * 0x9E3779B97F4A7C15u;
    return (key ^ key >> 32) * 0xD6E8FEB86659FD93u;
  }
  [[nodiscard]] static std::uint32_t tag_of(std::uint64_t hash) noexcept {
    const std::uint32_t bits = static_cast<std::uint32_t>(hash) & ~0u << tag_at;
    return bits == 0 ? 1u << tag_at : bits;
  }
  [[nodiscard]] Bucket& bucket_of(std::uint64_t hash) noexcept { return buckets_[place_of(hash)]; }
  [[nodiscard]] std::size_t place_of(std::uint64_t hash) const noexcept {
    return static_cast<std::size_t>(((hash >> 32) * buckets_.size()) >> 32);
  }
  [[nodiscard]] Ghost ghost_of(Way way, std::uint32_t now) const noexcept {
    const std::uint32_t age = ((now >> unit_bits_) - (way >> history_bits)) & n_units_max;
    return {ReuseHistory::of_bits(way & ((1u << history_bits) - 1)), now - (age << unit_bits_)};
  }

  base::Column<Bucket> buckets_;
  std::uint32_t unit_bits_{};
};

}  // namespace infcore::cache
