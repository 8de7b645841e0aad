#pragma once
#include <infcore/base/column.hpp>

#include <cstddef>
#include <cstdint>

namespace infcore::base {

/// 4-ary min-heap of slots, each with a key, that knows where each slot is. Keys of one heap are never equal: put the
/// slot or an id last in them; or `ties_by_slot`, of equal ones the lowest slot is least. Single-threaded; O(log n)
/// push and remove, O(1) top; allocates in the constructor and grow() only, and takes memory for as many as were ever
/// in.
template <class Key, bool ties_by_slot = false>
class IndexedHeap {
 public:
  /// Slots will be below n_slots.
  explicit IndexedHeap(std::uint32_t n_slots) { grow(n_slots); }

  /// Slots will be below n_slots, which is not less than before.
  void grow(std::uint32_t n_slots) {
    nodes_.grow(n_slots);
    behind_.grow(n_slots);
  }

  [[nodiscard]] bool empty() const noexcept { return n_ == 0; }
  [[nodiscard]] std::uint32_t size() const noexcept { return n_; }
  [[nodiscard]] bool contains(std::uint32_t slot) const noexcept { return behind_[slot] != 0; }
  /// Precondition of both: not empty.
  [[nodiscard]] std::uint32_t top() const noexcept { return nodes_[0].slot; }
  [[nodiscard]] const Key& top_key() const noexcept { return nodes_[0].key; }

  /// Precondition: contained.
  [[nodiscard]] const Key& key(std::uint32_t slot) const noexcept { return nodes_[behind_[slot] - 1].key; }

  /// Precondition: not contained.
  void push(std::uint32_t slot, const Key& key) noexcept { rise(n_++, {key, slot}); }

  /// Precondition: contained.
  void remove(std::uint32_t slot) noexcept {
    const std::uint32_t hole = behind_[slot] - 1;
    behind_[slot] = 0;
    const Node last = nodes_[--n_];
    if (hole == n_) return;
    // The last node belongs near the leaves: walk the hole down first, then let it rise, one comparison less a level.
    rise(sink_hole(hole), last);
  }

 private:
  struct Node {
    Key key;
    std::uint32_t slot;
    bool operator<(const Node& other) const noexcept {
      if constexpr (ties_by_slot) return key < other.key || (key == other.key && slot < other.slot);
      return key < other.key;
    }
  };

  void put(std::uint32_t at, const Node& node) noexcept {
    nodes_[at] = node;
    behind_[node.slot] = at + 1;
  }

  void rise(std::uint32_t at, const Node node) noexcept {
    while (at > 0) {
      const std::uint32_t parent = (at - 1) / 4;
      if (!(node < nodes_[parent])) break;
      put(at, nodes_[parent]);
      at = parent;
    }
    put(at, node);
  }

  /// Moves the least child up, level by level; returns the leaf where the hole ends.
  std::uint32_t sink_hole(std::uint32_t at) noexcept {
    for (;;) {
      const std::uint64_t first = std::uint64_t{4} * at + 1;
      if (first >= n_) return at;
      const std::uint32_t end = first + 4 < n_ ? static_cast<std::uint32_t>(first + 4) : n_;
      std::uint32_t least = static_cast<std::uint32_t>(first);
      for (std::uint32_t i = least + 1; i < end; ++i) {
        if (nodes_[i] < nodes_[least]) least = i;
      }
      put(at, nodes_[least]);
      at = least;
    }
  }

  Column<Node> nodes_;
  Column<std::uint32_t> behind_;  ///< of each slot: the place behind its node's; 0: it has none
  std::uint32_t n_{};
};

}  // namespace infcore::base
