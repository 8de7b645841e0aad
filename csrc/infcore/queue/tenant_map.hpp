#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace infcore::queue {

/// Tenant's number -> place of its flow: open addressing, linear probing, no tombstones. Single-threaded. O(1) expected;
/// at most half full. Numbers are the caller's and may be all alike in their low bits, so they are mixed first.
class TenantMap {
 public:
  static constexpr std::uint32_t none = 0xFFFF'FFFFu;

  [[nodiscard]] std::uint32_t find(std::uint32_t tenant) const noexcept {
    if (cells_.empty()) return none;
    for (std::size_t at = home(tenant);; at = (at + 1) & mask()) {
      if (cells_[at].flow == none || cells_[at].tenant == tenant) return cells_[at].flow;
    }
  }

  /// Room for one more. False: out of memory, nothing changed.
  [[nodiscard]] bool make_room() noexcept {
    if (2 * (n_ + 1) <= cells_.size()) return true;
    try {
      std::vector<Cell> larger(cells_.empty() ? 16 : 2 * cells_.size());
      cells_.swap(larger);
      n_ = 0;
      for (const Cell& cell : larger) {
        if (cell.flow != none) insert(cell.tenant, cell.flow);
      }
    } catch (const std::bad_alloc&) {
      return false;
    }
    return true;
  }

  /// Preconditions: make_room() was true, and `tenant` is not there.
  void insert(std::uint32_t tenant, std::uint32_t flow) noexcept {
    std::size_t at = home(tenant);
    while (cells_[at].flow != none) at = (at + 1) & mask();
    cells_[at] = {tenant, flow};
    ++n_;
  }

  /// Precondition: `tenant` is there.
  void erase(std::uint32_t tenant) noexcept {
    std::size_t hole = home(tenant);
    while (cells_[hole].tenant != tenant || cells_[hole].flow == none) hole = (hole + 1) & mask();
    // Whoever was pushed past the hole moves up, so that a search may end at the first empty cell.
    for (std::size_t at = (hole + 1) & mask(); cells_[at].flow != none; at = (at + 1) & mask()) {
      if (((at - home(cells_[at].tenant)) & mask()) < ((at - hole) & mask())) continue;
      cells_[hole] = cells_[at];
      hole = at;
    }
    cells_[hole] = {};
    --n_;
  }

 private:
  struct Cell {
    std::uint32_t tenant{};
    std::uint32_t flow{none};
  };

  [[nodiscard]] std::size_t mask() const noexcept { return cells_.size() - 1; }
  [[nodiscard]] std::size_t home(std::uint32_t tenant) const noexcept {
    return (tenant * 0x9E37'79B1u) >> (32 - std::countr_zero(cells_.size()));  // Fibonacci hashing, Knuth vol. 3, 6.4
  }

  std::vector<Cell> cells_;
  std::size_t n_{};
};

}  // namespace infcore::queue
