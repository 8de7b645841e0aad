#pragma once
#include <infcore/base/column.hpp>
#include <infcore/cache/reuse_rates.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace infcore::cache {

/// Histories of keys that left, about four for each entry there may be: the oldest of a key's eight neighbours makes
/// room. 16 bytes for each entry; keys are 12 bits of a hash: one in 512 is taken for another, which then seems known.
/// Single-threaded; O(1), half a cache line; allocates in grow() only.
class GhostHistories {
 public:
  struct Ghost {
    ReuseHistory history;  ///< empty: there is none
    std::uint32_t used;    ///< when, as told, rounded down
  };

  struct Life {
    std::uint32_t now;
    std::uint32_t age_max;
  };

  /// For so many entries. Knows nothing then: tags do not tell where they would stand in a larger table.
  void grow(std::uint32_t n_entries_max) {
    base::Column<Bucket> buckets;
    buckets.grow(n_entries_max / 2 + 1);
    buckets.swap(buckets_);
    // Times wrap after 4,096 units, eight times as many insertions as there may be entries; ghosts last for four.
    const std::uint32_t n_bits = static_cast<std::uint32_t>(std::bit_width(n_entries_max));
    unit_bits_ = n_bits > 9 ? n_bits - 9 : 0;
  }

  /// What is known of the key, which is forgotten.
  [[nodiscard]] Ghost take(std::uint64_t key, std::uint32_t now) noexcept {
    const std::uint64_t hash = hash_of(key);
    const std::uint32_t tag = tag_of(hash);
    for (Way& way : bucket_of(hash)) {
      if (way.tag != tag || way.history == 0) continue;
      const Ghost found{ReuseHistory::of_bits(way.history), used_at(way, now)};
      way = {};
      return found;
    }
    return {{}, 0};
  }

  /// Calls lost(ghost) for each one that it forgets for it, or because it is older than age_max.
  template <class Lost>
  void remember(std::uint64_t key, const Ghost& ghost, const Life& life, Lost&& lost) noexcept {
    const std::uint64_t hash = hash_of(key);
    Bucket& bucket = bucket_of(hash);
    Way* oldest = bucket.data();
    std::uint32_t oldest_age = 0;
    for (Way& way : bucket) {
      const std::uint32_t age = way.history == 0 ? free : life.now - used_at(way, life.now);
      if (age > life.age_max && age != free) {
        lost(Ghost{ReuseHistory::of_bits(way.history), life.now - age});
        way = {};
      }
      if (way.history != 0 && age < oldest_age) continue;
      oldest = &way;
      oldest_age = way.history == 0 ? free : age;
    }
    if (oldest->history != 0) lost(Ghost{ReuseHistory::of_bits(oldest->history), used_at(*oldest, life.now)});
    oldest->history = ghost.history.bits();
    oldest->used = (ghost.used >> unit_bits_) & n_units_max;
    oldest->tag = tag_of(hash) & n_units_max;
  }

  /// Asks for the memory where that key stands.
  void prefetch(std::uint64_t key) const noexcept { __builtin_prefetch(&bucket_of(hash_of(key))); }

 private:
  static constexpr std::size_t n_ways = 8;
  static constexpr std::uint32_t n_bits_each = 12, n_units_max = (1u << n_bits_each) - 1, free = ~0u;
  struct Way {
    std::uint32_t history : 8;          ///< 0: there is none
    std::uint32_t used : n_bits_each;   ///< in units of 2^unit_bits_ insertions
    std::uint32_t tag : n_bits_each;
  };
  using Bucket = std::array<Way, n_ways>;
  static_assert(sizeof(Bucket) == 32);

  [[nodiscard]] static std::uint64_t hash_of(std::uint64_t key) noexcept {
    // Keys may be hashes or count up: two odd factors, of the golden ratio and of a search for good mixing.
    key = (key ^ key >> 32) * 0x9E3779B97F4A7C15u;
    return (key ^ key >> 32) * 0xD6E8FEB86659FD93u;
  }
  [[nodiscard]] static std::uint32_t tag_of(std::uint64_t hash) noexcept {
    return static_cast<std::uint32_t>(hash >> 16) & n_units_max;
  }
  [[nodiscard]] Bucket& bucket_of(std::uint64_t hash) noexcept { return buckets_[place_of(hash)]; }
  [[nodiscard]] const Bucket& bucket_of(std::uint64_t hash) const noexcept { return buckets_[place_of(hash)]; }
  [[nodiscard]] std::size_t place_of(std::uint64_t hash) const noexcept {
    return static_cast<std::size_t>(((hash >> 32) * buckets_.size()) >> 32);
  }
  [[nodiscard]] std::uint32_t used_at(const Way& way, std::uint32_t now) const noexcept {
    return now - ((((now >> unit_bits_) - way.used) & n_units_max) << unit_bits_);
  }

  base::Column<Bucket> buckets_;
  std::uint32_t unit_bits_{};
};

}  // namespace infcore::cache
