#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace infcore::base {

/// Ids by 32 bits of their keys' hash, the tag; the keys are the owner's, who compares them. Open addressing with
/// linear probes in 8 bytes a place; what is erased leaves no mark. Single-threaded; O(1) while it is not nearly full;
/// allocates in resize() only.
class IdTable {
 public:
  static constexpr std::uint32_t no_id = std::numeric_limits<std::uint32_t>::max();

  /// Half of a stirred 64-bit key: of keys that count up, too. The constant: 2^64 over the golden ratio, odd.
  [[nodiscard]] static std::uint32_t tag_of(std::uint64_t key) noexcept {
    return static_cast<std::uint32_t>((key * 0x9E3779B97F4A7C15u) >> 32);
  }

  /// A power of two, more than there will ever be ids. Nothing is in it then. Where it throws, nothing has changed.
  void resize(std::size_t n_places) {
    std::vector<Place> places(n_places, Place{0, no_id});
    places_.swap(places);
    mask_ = static_cast<std::uint32_t>(n_places - 1);
  }
  [[nodiscard]] std::size_t n_places() const noexcept { return places_.size(); }

  /// Where a search stands.
  struct Probe {
    std::uint32_t at;
    std::uint32_t id;  ///< no_id: there are no more
  };
  [[nodiscard]] Probe first(std::uint32_t tag) const noexcept { return from(tag & mask_, tag); }
  [[nodiscard]] Probe next(Probe probe, std::uint32_t tag) const noexcept { return from((probe.at + 1) & mask_, tag); }

  /// The id with that tag for which same(id) is true, or no_id.
  template <class Same>
  [[nodiscard]] std::uint32_t find(std::uint32_t tag, Same same) const noexcept {
    for (Probe probe = first(tag);; probe = next(probe, tag))
      if (probe.id == no_id || same(probe.id)) return probe.id;
  }

  /// Asks for the memory that a search will look at.
  void prefetch(std::uint32_t tag) const noexcept { __builtin_prefetch(&places_[tag & mask_]); }

  void insert(std::uint32_t tag, std::uint32_t id) noexcept {
    std::uint32_t at = tag & mask_;
    while (places_[at].id != no_id) at = (at + 1) & mask_;
    places_[at] = {tag, id};
  }

  /// Precondition: it was inserted with that tag.
  void erase(std::uint32_t tag, std::uint32_t id) noexcept {
    std::uint32_t hole = tag & mask_;
    while (places_[hole].id != id) hole = (hole + 1) & mask_;
    // What stands behind moves up unless that would put it before its own place.
    for (std::uint32_t at = (hole + 1) & mask_; places_[at].id != no_id; at = (at + 1) & mask_) {
      if (((at - places_[at].tag) & mask_) < ((at - hole) & mask_)) continue;
      places_[hole] = places_[at];
      hole = at;
    }
    places_[hole].id = no_id;
  }

 private:
  struct Place {
    std::uint32_t tag;
    std::uint32_t id;
  };

  [[nodiscard]] Probe from(std::uint32_t at, std::uint32_t tag) const noexcept {
    for (;; at = (at + 1) & mask_) {
      const Place place = places_[at];
      if (place.id == no_id || place.tag == tag) return {at, place.id};
    }
  }

  std::vector<Place> places_;
  std::uint32_t mask_{};
};

}  // namespace infcore::base
