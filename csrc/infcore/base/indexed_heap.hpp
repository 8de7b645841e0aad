#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace infcore::base {

/// 4-ary min-heap of slots, each with a key, that knows where each slot is. Keys of one heap are never equal: put the
/// slot or an id last in them. Single-threaded; O(log n) push and remove, O(1) top; allocates in the constructor and
/// grow() only.
template <class Key>
class IndexedHeap {
 public:
  /// Slots will be below n_slots.
  explicit IndexedHeap(std::uint32_t n_slots) : places_(n_slots, absent) { nodes_.reserve(n_slots); }

  /// Slots will be below n_slots, which is not less than before.
  void grow(std::uint32_t n_slots) {
    nodes_.reserve(n_slots);
    places_.resize(n_slots, absent);
  }

  [[nodiscard]] bool empty() const noexcept { return nodes_.empty(); }
  [[nodiscard]] std::uint32_t size() const noexcept { return static_cast<std::uint32_t>(nodes_.size()); }
  [[nodiscard]] bool contains(std::uint32_t slot) const noexcept { return places_[slot] != absent; }
  /// Precondition of both: not empty.
  [[nodiscard]] std::uint32_t top() const noexcept { return nodes_.front().slot; }
  [[nodiscard]] const Key& top_key() const noexcept { return nodes_.front().key; }

  /// Precondition: not contained.
  void push(std::uint32_t slot, const Key& key) noexcept {
    nodes_.push_back({key, slot});
    rise(nodes_.size() - 1, {key, slot});
  }

  /// Precondition: contained.
  void remove(std::uint32_t slot) noexcept {
    const std::size_t hole = places_[slot];
    places_[slot] = absent;
    const Node last = nodes_.back();
    nodes_.pop_back();
    if (hole == nodes_.size()) return;
    // The last node belongs near the leaves: walk the hole down first, then let it rise, one comparison less a level.
    rise(sink_hole(hole), last);
  }

 private:
  static constexpr std::uint32_t absent = 0xFFFF'FFFFu;
  struct Node {
    Key key;
    std::uint32_t slot;
  };

  void put(std::size_t at, const Node& node) noexcept {
    nodes_[at] = node;
    places_[node.slot] = static_cast<std::uint32_t>(at);
  }

  void rise(std::size_t at, const Node node) noexcept {
    while (at > 0) {
      const std::size_t parent = (at - 1) / 4;
      if (!(node.key < nodes_[parent].key)) break;
      put(at, nodes_[parent]);
      at = parent;
    }
    put(at, node);
  }

  /// Moves the least child up, level by level; returns the leaf where the hole ends.
  std::size_t sink_hole(std::size_t at) noexcept {
    const std::size_t n = nodes_.size();
    for (;;) {
      const std::size_t first = 4 * at + 1;
      if (first >= n) return at;
      const std::size_t end = first + 4 < n ? first + 4 : n;
      std::size_t least = first;
      for (std::size_t i = first + 1; i < end; ++i) {
        if (nodes_[i].key < nodes_[least].key) least = i;
      }
      put(at, nodes_[least]);
      at = least;
    }
  }

  std::vector<Node> nodes_;
  std::vector<std::uint32_t> places_;
};

}  // namespace infcore::base
