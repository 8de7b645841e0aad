#pragma once
#include <infcore/contracts/eviction.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace infcore::cache {

/// Heaps over one set of entries, each entry in at most one of them: on top the one whose next use is farthest, of
/// equals the lowest id. Pairing heaps (Fredman, Sedgewick, Sleator, Tarjan, Algorithmica 1, 1986) through the entries,
/// so that any number of them need one array. Single-threaded; O(1) push, O(log n) remove on average; allocates in the
/// constructor and grow().
class FarthestHeaps {
 public:
  using EntryId = contracts::EntryId;

  explicit FarthestHeaps(std::size_t n_heaps) : roots_(n_heaps, contracts::no_entry) {}

  void grow(std::uint32_t n_entries_max) { nodes_.resize(n_entries_max); }

  /// no_entry: empty.
  [[nodiscard]] EntryId top(std::size_t heap) const noexcept { return roots_[heap]; }
  [[nodiscard]] std::uint64_t next_use(EntryId id) const noexcept { return nodes_[id].next_use; }

  /// Precondition: in no heap.
  void push(std::size_t heap, EntryId id, std::uint64_t next_use) noexcept {
    nodes_[id] = Node{.next_use = next_use};
    roots_[heap] = joined(roots_[heap], id);
  }

  /// Precondition: in this heap.
  void remove(std::size_t heap, EntryId id) noexcept {
    const EntryId below = paired(nodes_[id].child);
    if (roots_[heap] == id) {
      roots_[heap] = below;
      return;
    }
    const EntryId before = nodes_[id].before, after = nodes_[id].after;
    (nodes_[before].child == id ? nodes_[before].child : nodes_[before].after) = after;
    if (after != contracts::no_entry) nodes_[after].before = before;
    roots_[heap] = joined(roots_[heap], below);
  }

 private:
  struct Node {
    std::uint64_t next_use{};
    EntryId child{contracts::no_entry};
    EntryId before{contracts::no_entry};  ///< the sibling, or of the first child the parent
    EntryId after{contracts::no_entry};
  };

  [[nodiscard]] bool is_above(EntryId a, EntryId b) const noexcept {
    return nodes_[a].next_use != nodes_[b].next_use ? nodes_[a].next_use > nodes_[b].next_use : a < b;
  }

  /// Both are roots, or nothing.
  EntryId joined(EntryId a, EntryId b) noexcept {
    if (a == contracts::no_entry) return b;
    if (b == contracts::no_entry) return a;
    if (!is_above(a, b)) return joined(b, a);
    nodes_[b].before = a;
    nodes_[b].after = nodes_[a].child;
    if (nodes_[b].after != contracts::no_entry) nodes_[nodes_[b].after].before = b;
    nodes_[a].child = b;
    return a;
  }

  /// Siblings, made one heap: two by two, then the pairs from the last to the first.
  EntryId paired(EntryId first) noexcept {
    EntryId pairs = contracts::no_entry;  // a stack through `after`
    while (first != contracts::no_entry) {
      const EntryId a = first, b = nodes_[a].after;
      first = b == contracts::no_entry ? b : nodes_[b].after;
      nodes_[a].after = nodes_[a].before = contracts::no_entry;
      if (b != contracts::no_entry) nodes_[b].after = nodes_[b].before = contracts::no_entry;
      const EntryId pair = joined(a, b);
      nodes_[pair].after = pairs;
      pairs = pair;
    }
    EntryId all = contracts::no_entry;
    while (pairs != contracts::no_entry) {
      const EntryId next = nodes_[pairs].after;
      nodes_[pairs].after = contracts::no_entry;
      all = joined(all, pairs);
      pairs = next;
    }
    return all;
  }

  std::vector<Node> nodes_;
  std::vector<EntryId> roots_;
};

}  // namespace infcore::cache
