#pragma once
#include <infcore/base/column.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

namespace infcore::base {

/// Ids by 32 bits of their keys' hash, the tag; the keys are the owner's, who compares them. Open addressing with
/// linear probes in 8 bytes a place; what is erased leaves no mark. A place goes by the tag's upper bits, so that any
/// number of places will do and a larger table is filled from front to back. Single-threaded; O(1) while it is not
/// nearly full; allocates in grow() only.
class IdTable {
 public:
  static constexpr std::uint32_t no_id = std::numeric_limits<std::uint32_t>::max();

  /// Half of a stirred 64-bit key: of keys that count up, too. The constant: 2^64 over the golden ratio, odd.
  [[nodiscard]] static std::uint32_t tag_of(std::uint64_t key) noexcept {
    return static_cast<std::uint32_t>((key * 0x9E3779B97F4A7C15u) >> 32);
  }

  /// More places than there will be ids, and than before; what is in stays. Where it throws, nothing has changed.
  void grow(std::size_t n_places) {
    Column<Place> before;
    before.grow(n_places);
    before.swap(places_);
    n_places_ = static_cast<std::uint32_t>(n_places);
    std::fill(places_.begin(), places_.end(), Place{0, no_id});
    for (const Place& place : before)
      if (place.id != no_id) insert(place.tag, place.id);
  }
  [[nodiscard]] std::size_t n_places() const noexcept { return n_places_; }
  void swap(IdTable& other) noexcept {
    places_.swap(other.places_);
    std::swap(n_places_, other.n_places_);
  }

  /// Where a search stands.
  struct Probe {
    std::uint32_t at;
    std::uint32_t id;  ///< no_id: there are no more
  };
  [[nodiscard]] Probe first(std::uint32_t tag) const noexcept { return from(home(tag), tag); }
  [[nodiscard]] Probe next(Probe probe, std::uint32_t tag) const noexcept { return from(behind(probe.at), tag); }

  /// The id with that tag for which same(id) is true, or no_id.
  template <class Same>
  [[nodiscard]] std::uint32_t find(std::uint32_t tag, Same same) const noexcept {
    for (Probe probe = first(tag);; probe = next(probe, tag))
      if (probe.id == no_id || same(probe.id)) return probe.id;
  }

  /// Asks for the memory that a search will look at.
  void prefetch(std::uint32_t tag) const noexcept { __builtin_prefetch(&places_[home(tag)]); }

  void insert(std::uint32_t tag, std::uint32_t id) noexcept {
    std::uint32_t at = home(tag);
    while (places_[at].id != no_id) at = behind(at);
    places_[at] = {tag, id};
  }

  /// Precondition: it was inserted with that tag.
  void erase(std::uint32_t tag, std::uint32_t id) noexcept {
    std::uint32_t hole = home(tag);
    while (places_[hole].id != id) hole = behind(hole);
    // What stands behind moves up unless that would put it before its own place.
    for (std::uint32_t at = behind(hole); places_[at].id != no_id; at = behind(at)) {
      if (distance(home(places_[at].tag), at) < distance(hole, at)) continue;
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

  [[nodiscard]] std::uint32_t home(std::uint32_t tag) const noexcept {
    return static_cast<std::uint32_t>((std::uint64_t{tag} * n_places_) >> 32);
  }
  [[nodiscard]] std::uint32_t behind(std::uint32_t at) const noexcept { return at + 1 < n_places_ ? at + 1 : 0; }
  /// Steps from one place on to the other.
  [[nodiscard]] std::uint32_t distance(std::uint32_t from, std::uint32_t to) const noexcept {
    return to - from + (to < from ? n_places_ : 0);
  }

  [[nodiscard]] Probe from(std::uint32_t at, std::uint32_t tag) const noexcept {
    for (;; at = behind(at)) {
      const Place place = places_[at];
      if (place.id == no_id || place.tag == tag) return {at, place.id};
    }
  }

  Column<Place> places_;
  std::uint32_t n_places_{};
};

}  // namespace infcore::base
