#pragma once
#include <infcore/base/errors.hpp>
#include <infcore/contracts/eviction.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace infcore::cache {

/// The entries of a replayed cache, found by key: open addressing over ids that are used again. Single-threaded.
/// O(1); add() allocates where the table has to grow.
class ReplayedEntries {
 public:
  using EntryId = contracts::EntryId;
  struct Entry {
    std::uint64_t key;
    std::uint64_t bytes;
    double cost_us;
  };

  ReplayedEntries() { resize(n_at_first); }

  [[nodiscard]] Entry& operator[](EntryId id) noexcept { return entries_[id]; }
  [[nodiscard]] const Entry& operator[](EntryId id) const noexcept { return entries_[id]; }
  /// Ids are below it.
  [[nodiscard]] std::uint32_t n_entries_max() const noexcept { return static_cast<std::uint32_t>(entries_.size()); }
  [[nodiscard]] bool full() const noexcept { return free_.empty(); }

  /// Asks for the memory that find() will look at.
  void prefetch(std::uint64_t key) const noexcept { __builtin_prefetch(&places_[tag_of(key) & mask_]); }

  [[nodiscard]] EntryId find(std::uint64_t key) const noexcept {
    const std::uint32_t tag = tag_of(key);
    for (std::uint32_t at = tag & mask_;; at = (at + 1) & mask_) {
      const Place place = places_[at];
      if (place.id == contracts::no_entry) return contracts::no_entry;
      if (place.tag == tag && entries_[place.id].key == key) return place.id;
    }
  }

  /// Precondition: the key is not in; not full.
  EntryId add(const Entry& entry) noexcept {
    const EntryId id = free_.back();
    free_.pop_back();
    entries_[id] = entry;
    insert(id);
    return id;
  }

  void remove(EntryId id) noexcept {
    std::uint32_t hole = tag_of(entries_[id].key) & mask_;
    while (places_[hole].id != id) hole = (hole + 1) & mask_;
    // What stands behind moves up unless that would put it before its own place: no tombstones.
    for (std::uint32_t at = (hole + 1) & mask_; places_[at].id != contracts::no_entry; at = (at + 1) & mask_) {
      if (((at - places_[at].tag) & mask_) >= ((at - hole) & mask_)) {
        places_[hole] = places_[at];
        hole = at;
      }
    }
    places_[hole].id = contracts::no_entry;
    free_.push_back(id);
  }

  /// Twice the room; what is in keeps its id.
  void grow() {
    if (n_entries_max() > n_entries_limit / 2) {
      throw Error("the replayed cache holds more than " + std::to_string(n_entries_limit / 2) + " entries at once");
    }
    resize(n_entries_max() * 2);
  }

 private:
  /// Half of the stirred key, so that most probes need not look at the entry.
  struct Place {
    std::uint32_t tag;
    EntryId id;
  };
  static constexpr std::uint32_t n_at_first = 1024;
  static constexpr std::uint32_t n_entries_limit = 1u << 30;  // twice as many places fit their index

  [[nodiscard]] static std::uint32_t tag_of(std::uint64_t key) noexcept {
    // 2^64 over the golden ratio, odd: keys that count up spread out.
    return static_cast<std::uint32_t>((key * 0x9E3779B97F4A7C15u) >> 32);
  }

  void insert(EntryId id) noexcept {
    const std::uint32_t tag = tag_of(entries_[id].key);
    std::uint32_t at = tag & mask_;
    while (places_[at].id != contracts::no_entry) at = (at + 1) & mask_;
    places_[at] = {tag, id};
  }

  void resize(std::uint32_t n) {
    const std::uint32_t n_before = n_entries_max();
    std::vector<Place> places(std::bit_ceil(std::size_t{n} * 2), Place{0, contracts::no_entry});
    free_.reserve(n);
    entries_.resize(n);
    places_ = std::move(places);
    mask_ = static_cast<std::uint32_t>(places_.size() - 1);
    for (EntryId id = 0; id < n_before; ++id) insert(id);               // it grows where it is full
    for (EntryId id = n; id > n_before; --id) free_.push_back(id - 1);  // the lowest on top
  }

  std::vector<Entry> entries_;
  std::vector<EntryId> free_;  ///< a stack
  std::vector<Place> places_;  ///< a power of two, at most half full
  std::uint32_t mask_{};
};

}  // namespace infcore::cache
