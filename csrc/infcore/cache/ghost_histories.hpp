#pragma once
#include <infcore/cache/reuse_rates.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace infcore::cache {

/// Histories of keys that left, about four for each entry there may be: the oldest of a key's eight neighbours makes
/// room. 20 bytes for each entry; keys are 16 bits of a hash: one in 8,000 is taken for another, which then seems
/// known. Single-threaded; O(1), one cache line or two; allocates in grow() only.
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
    std::vector<Bucket> buckets(n_entries_max / 2 + 1);
    buckets.swap(buckets_);
    // Times wrap after 65,536 units, eight times as many insertions as there may be entries; ghosts last for four.
    const std::uint32_t n_bits = static_cast<std::uint32_t>(std::bit_width(n_entries_max));
    unit_bits_ = n_bits > 13 ? n_bits - 13 : 0;
  }

  /// What is known of the key, which is forgotten.
  [[nodiscard]] Ghost take(std::uint64_t key, std::uint32_t now) noexcept {
    const std::uint64_t hash = hash_of(key);
    Bucket& bucket = bucket_of(hash);
    for (std::size_t way = 0; way < n_ways; ++way) {
      if (bucket.tags[way] != tag_of(hash) || bucket.histories[way].empty()) continue;
      const Ghost found{bucket.histories[way], used_at(bucket, way, now)};
      bucket.histories[way] = {};
      return found;
    }
    return {{}, 0};
  }

  /// Calls lost(ghost) for each one that it forgets for it, or because it is older than age_max.
  template <class Lost>
  void remember(std::uint64_t key, const Ghost& ghost, const Life& life, Lost&& lost) noexcept {
    const std::uint64_t hash = hash_of(key);
    Bucket& bucket = bucket_of(hash);
    std::size_t oldest = 0;
    std::uint32_t oldest_age = 0;
    for (std::size_t way = 0; way < n_ways; ++way) {
      if (bucket.histories[way].empty()) {
        oldest = way;
        oldest_age = ~0u;
        continue;
      }
      const std::uint32_t used = used_at(bucket, way, life.now);
      if (life.now - used > life.age_max) {
        lost(Ghost{bucket.histories[way], used});
        bucket.histories[way] = {};
        oldest = way;
        oldest_age = ~0u;
      } else if (life.now - used >= oldest_age) {
        oldest = way;
        oldest_age = life.now - used;
      }
    }
    if (!bucket.histories[oldest].empty()) lost(Ghost{bucket.histories[oldest], used_at(bucket, oldest, life.now)});
    bucket.tags[oldest] = tag_of(hash);
    bucket.used[oldest] = static_cast<std::uint16_t>(ghost.used >> unit_bits_);
    bucket.histories[oldest] = ghost.history;
  }

 private:
  static constexpr std::size_t n_ways = 8;
  struct Bucket {
    std::array<std::uint16_t, n_ways> tags;
    std::array<std::uint16_t, n_ways> used;  ///< in units of 2^unit_bits_ insertions
    std::array<ReuseHistory, n_ways> histories;
  };
  static_assert(sizeof(Bucket) == 40);

  [[nodiscard]] static std::uint64_t hash_of(std::uint64_t key) noexcept {
    // Keys may be hashes or count up: two odd factors, of the golden ratio and of a search for good mixing.
    key = (key ^ key >> 32) * 0x9E3779B97F4A7C15u;
    return (key ^ key >> 32) * 0xD6E8FEB86659FD93u;
  }
  [[nodiscard]] static std::uint16_t tag_of(std::uint64_t hash) noexcept {
    return static_cast<std::uint16_t>(hash >> 16);
  }
  [[nodiscard]] Bucket& bucket_of(std::uint64_t hash) noexcept {
    return buckets_[static_cast<std::size_t>(((hash >> 32) * buckets_.size()) >> 32)];
  }
  [[nodiscard]] std::uint32_t used_at(const Bucket& bucket, std::size_t way, std::uint32_t now) const noexcept {
    const std::uint32_t age = static_cast<std::uint16_t>((now >> unit_bits_) - bucket.used[way]);
    return now - (age << unit_bits_);
  }

  std::vector<Bucket> buckets_;
  std::uint32_t unit_bits_{};
};

}  // namespace infcore::cache
