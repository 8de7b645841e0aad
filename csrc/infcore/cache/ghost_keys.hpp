#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace infcore::cache {

/// Keys of what was evicted, as many as were asked for at most: the oldest make room. Single-threaded; O(1); allocates
/// in grow() only.
class GhostKeys {
 public:
  /// From now on it remembers n_keys_max > 0, not less than before; what it knows stays.
  void grow(std::uint32_t n_keys_max) {
    std::vector<std::uint64_t> ring(n_keys_max);
    std::vector<Place> places(std::bit_ceil(std::size_t{n_keys_max} * 2));
    ring.swap(ring_);
    places.swap(places_);
    mask_ = places_.size() - 1;
    for (const Place& place : places) {
      if (place.went == 0) continue;
      ring_[place.went % ring_.size()] = place.key;
      insert(place);
    }
  }

  /// Also a key that it knows: it counts as new.
  void remember(std::uint64_t key) noexcept {
    forget(key);
    ++n_gone_;
    // The one that stood here is the oldest, unless it was taken or came again.
    const std::uint64_t oldest = ring_[n_gone_ % ring_.size()];
    const std::size_t at = find(oldest);
    if (places_[at].went != 0 && places_[at].went + ring_.size() == n_gone_) erase(at);
    ring_[n_gone_ % ring_.size()] = key;
    insert({key, n_gone_});
  }

  /// Whether it was among the last `n_latest` to go, n_latest <= n_keys_max; it is forgotten.
  [[nodiscard]] bool take(std::uint64_t key, std::uint64_t n_latest) noexcept {
    const std::uint64_t went = forget(key);
    return went != 0 && n_gone_ - went < n_latest;
  }

 private:
  struct Place {
    std::uint64_t key{};
    std::uint64_t went{};  ///< after how many others, from 1; 0: nobody stands here
  };

  [[nodiscard]] std::size_t home(std::uint64_t key) const noexcept {
    return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15u) >> 32) & mask_;
  }
  /// Where it stands, or would.
  [[nodiscard]] std::size_t find(std::uint64_t key) const noexcept {
    std::size_t at = home(key);
    while (places_[at].went != 0 && places_[at].key != key) at = (at + 1) & mask_;
    return at;
  }
  void insert(const Place& place) noexcept { places_[find(place.key)] = place; }
  std::uint64_t forget(std::uint64_t key) noexcept {
    const std::size_t at = find(key);
    const std::uint64_t went = places_[at].went;
    if (went != 0) erase(at);
    return went;
  }
  void erase(std::size_t hole) noexcept {
    for (std::size_t at = (hole + 1) & mask_; places_[at].went != 0; at = (at + 1) & mask_) {
      if (((at - home(places_[at].key)) & mask_) >= ((at - hole) & mask_)) {
        places_[hole] = places_[at];
        hole = at;
      }
    }
    places_[hole].went = 0;
  }

  std::vector<std::uint64_t> ring_;  ///< the n-th to go stands at n % size
  std::vector<Place> places_;        ///< open addressing, at most half full
  std::size_t mask_{};
  std::uint64_t n_gone_{};
};

}  // namespace infcore::cache
