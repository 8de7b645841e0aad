#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace infcore::queue {

/// Indexed 4-ary min-heap of slots by key. Single-threaded. O(log n) push and remove, O(1) top.
///
/// Every call is handed an `Index`: position(slot) -> uint32_t&, where the heap keeps each slot's place, and
/// first(a, b) -> bool, the order of two slots with equal keys. So an empty heap is one empty vector, and thousands of
/// them can share an arena. Four children: half the levels of a binary heap, and the four keys share a cache line.
class SlotHeap {
 public:
  [[nodiscard]] bool empty() const noexcept { return nodes_.empty(); }
  [[nodiscard]] std::uint32_t size() const noexcept { return static_cast<std::uint32_t>(nodes_.size()); }
  [[nodiscard]] std::uint32_t top() const noexcept { return nodes_.front().slot; }
  [[nodiscard]] std::int64_t top_key() const noexcept { return nodes_.front().key; }

  /// Room for one more, growing geometrically. False: out of memory, nothing changed.
  [[nodiscard]] bool make_room() noexcept {
    if (nodes_.size() < nodes_.capacity()) return true;
    try {
      nodes_.reserve(nodes_.empty() ? 8 : 2 * nodes_.size());
    } catch (const std::bad_alloc&) {
      return false;
    }
    return true;
  }

  /// May throw std::bad_alloc.
  void reserve(std::size_t n) { nodes_.reserve(n); }
  [[nodiscard]] std::size_t capacity() const noexcept { return nodes_.capacity(); }
  void clear() noexcept { nodes_.clear(); }

  /// Every key becomes less by so much; the order stays.
  void lower_keys(std::int64_t by) noexcept {
    for (Node& node : nodes_) node.key -= by;
  }

  /// Precondition: make_room() was true, or there is room by reserve().
  template <class Index>
  void push(Index index, std::int64_t key, std::uint32_t slot) noexcept {
    nodes_.push_back({key, slot});
    rise(index, nodes_.size() - 1, {key, slot});
  }

  /// Hands out the slots in order, without taking them, until `visit(slot)` returns false. `frontier` is scratch: it
  /// grows to three places a slot visited. O(log visited) each.
  template <class Index, class Visit>
  void in_order(Index index, std::vector<std::uint32_t>& frontier, Visit visit) const noexcept {
    const auto later = [&](std::uint32_t a, std::uint32_t b) { return less(index, nodes_[b], nodes_[a]); };
    frontier.clear();
    if (!nodes_.empty()) frontier.push_back(0);
    while (!frontier.empty()) {
      std::pop_heap(frontier.begin(), frontier.end(), later);
      const std::size_t at = frontier.back();
      frontier.pop_back();
      if (!visit(nodes_[at].slot)) return;
      for (std::size_t child = 4 * at + 1; child < std::min(4 * at + 5, nodes_.size()); ++child) {
        frontier.push_back(static_cast<std::uint32_t>(child));
        std::push_heap(frontier.begin(), frontier.end(), later);
      }
    }
  }

  /// Precondition: `slot` is in this heap.
  template <class Index>
  void remove(Index index, std::uint32_t slot) noexcept {
    const std::size_t hole = index.position(slot);
    const Node last = nodes_.back();
    nodes_.pop_back();
    if (hole == nodes_.size()) return;
    // The last node belongs near the leaves: walk the hole down first, then let it rise, one comparison less a level.
    rise(index, sink_hole(index, hole), last);
  }

 private:
  struct Node {
    std::int64_t key;
    std::uint32_t slot;
  };

  template <class Index>
  static bool less(Index index, const Node& a, const Node& b) noexcept {
    return a.key != b.key ? a.key < b.key : index.first(a.slot, b.slot);
  }

  template <class Index>
  void put(Index index, std::size_t at, const Node& node) noexcept {
    nodes_[at] = node;
    index.position(node.slot) = static_cast<std::uint32_t>(at);
  }

  template <class Index>
  void rise(Index index, std::size_t at, const Node node) noexcept {
    while (at > 0) {
      const std::size_t parent = (at - 1) / 4;
      if (!less(index, node, nodes_[parent])) break;
      put(index, at, nodes_[parent]);
      at = parent;
    }
    put(index, at, node);
  }

  /// Moves the least child up, level by level; returns the leaf where the hole ends.
  template <class Index>
  std::size_t sink_hole(Index index, std::size_t at) noexcept {
    const std::size_t n = nodes_.size();
    for (;;) {
      const std::size_t child = 4 * at + 1;
      if (child >= n) return at;
      std::size_t least = child;
      if (child + 3 < n) {
        const std::size_t left = child + (less(index, nodes_[child + 1], nodes_[child]) ? 1 : 0);
        const std::size_t right = child + 2 + (less(index, nodes_[child + 3], nodes_[child + 2]) ? 1 : 0);
        least = less(index, nodes_[right], nodes_[left]) ? right : left;
      } else {
        for (std::size_t i = child + 1; i < n; ++i) {
          if (less(index, nodes_[i], nodes_[least])) least = i;
        }
      }
      put(index, at, nodes_[least]);
      at = least;
    }
  }

  std::vector<Node> nodes_;
};

}  // namespace infcore::queue
