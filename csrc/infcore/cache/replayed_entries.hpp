#pragma once
#include <infcore/base/errors.hpp>
#include <infcore/base/id_table.hpp>
#include <infcore/contracts/eviction.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace infcore::cache {

/// The entries of a replayed cache, found by key: ids that go are used again. Single-threaded.
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
  void prefetch(std::uint64_t key) const noexcept { ids_.prefetch(base::IdTable::tag_of(key)); }

  [[nodiscard]] EntryId find(std::uint64_t key) const noexcept {
    return ids_.find(base::IdTable::tag_of(key), [&](EntryId id) { return entries_[id].key == key; });
  }

  /// Precondition: the key is not in; not full.
  EntryId add(const Entry& entry) noexcept {
    const EntryId id = free_.back();
    free_.pop_back();
    entries_[id] = entry;
    ids_.insert(base::IdTable::tag_of(entry.key), id);
    return id;
  }

  void remove(EntryId id) noexcept {
    ids_.erase(base::IdTable::tag_of(entries_[id].key), id);
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
  static constexpr std::uint32_t n_at_first = 1024;
  static constexpr std::uint32_t n_entries_limit = 1u << 30;  // twice as many places fit their index

  void resize(std::uint32_t n) {
    const std::uint32_t n_before = n_entries_max();
    free_.reserve(n);
    entries_.reserve(n);
    ids_.grow(std::size_t{n} * 2);  // the last that may throw
    entries_.resize(n);
    for (EntryId id = n; id > n_before; --id) free_.push_back(id - 1);  // the lowest on top
  }

  std::vector<Entry> entries_;
  std::vector<EntryId> free_;  ///< a stack
  base::IdTable ids_;          ///< at most half full
};

}  // namespace infcore::cache
