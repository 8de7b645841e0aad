#pragma once
#include <infcore/contracts/eviction.hpp>

#include <cstdint>
#include <vector>

namespace infcore::cache {

/// Entries as their owner tells them, one by one: the view of an owner that keeps its table elsewhere.
class ToldEntries final : public contracts::EvictionView {
 public:
  void grow(std::uint32_t n_entries_max) { entries_.resize(n_entries_max); }
  void tell(contracts::EntryId id, const contracts::EvictionEntry& entry) noexcept { entries_[id] = entry; }
  [[nodiscard]] contracts::EvictionEntry entry(contracts::EntryId id) const noexcept override { return entries_[id]; }

 private:
  std::vector<contracts::EvictionEntry> entries_;
};

}  // namespace infcore::cache
