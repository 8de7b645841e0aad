#pragma once
#include <infcore/contracts/eviction.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace infcore::cache {

/// Some doubly linked lists over one set of entries, each in at most one of them; a list is a ring around a node of its
/// own, so that leaving one needs no word of which it is. Single-threaded; O(1); allocates in the constructor and
/// grow().
template <std::uint32_t n_lists>
class EntryLists {
 public:
  using EntryId = contracts::EntryId;

  EntryLists() {
    for (std::uint32_t list = 0; list < n_lists; ++list) nodes_.push_back({list, list});
  }

  /// Entries will be below n_entries_max, which is not less than before.
  void grow(std::uint32_t n_entries_max) { nodes_.resize(std::size_t{n_entries_max} + n_lists, Node{alone, alone}); }

  [[nodiscard]] bool is_listed(EntryId id) const noexcept { return nodes_[place(id)].before != alone; }
  /// The one that came first; no_entry: none.
  [[nodiscard]] EntryId front(std::uint32_t list) const noexcept { return entry(nodes_[list].after); }
  [[nodiscard]] EntryId back(std::uint32_t list) const noexcept { return entry(nodes_[list].before); }
  /// The one behind it; no_entry: none. Precondition: listed.
  [[nodiscard]] EntryId after(EntryId id) const noexcept { return entry(nodes_[place(id)].after); }

  /// Precondition of both: not listed.
  void push_back(std::uint32_t list, EntryId id) noexcept { link(place(id), nodes_[list].before, list); }
  void push_front(std::uint32_t list, EntryId id) noexcept { link(place(id), list, nodes_[list].after); }

  /// Precondition: listed.
  void remove(EntryId id) noexcept {
    Node& node = nodes_[place(id)];
    nodes_[node.before].after = node.after;
    nodes_[node.after].before = node.before;
    node.before = alone;
  }

  /// All of `from` behind all of `to`.
  void append(std::uint32_t to, std::uint32_t from) noexcept {
    const Node moved = nodes_[from];
    if (moved.after == from) return;
    const std::size_t last = nodes_[to].before;
    nodes_[last].after = moved.after;
    nodes_[moved.after].before = static_cast<std::uint32_t>(last);
    nodes_[moved.before].after = to;
    nodes_[to].before = moved.before;
    nodes_[from] = {from, from};
  }

 private:
  struct Node {
    std::uint32_t before;
    std::uint32_t after;
  };
  static constexpr std::uint32_t alone = 0xFFFF'FFFFu;

  [[nodiscard]] static std::size_t place(EntryId id) noexcept { return std::size_t{id} + n_lists; }
  [[nodiscard]] static EntryId entry(std::uint32_t at) noexcept {
    return at < n_lists ? contracts::no_entry : at - n_lists;
  }

  void link(std::size_t at, std::uint32_t before, std::uint32_t after) noexcept {
    nodes_[at] = {before, after};
    nodes_[before].after = static_cast<std::uint32_t>(at);
    nodes_[after].before = static_cast<std::uint32_t>(at);
  }

  std::vector<Node> nodes_;  ///< the lists' own first, then the entries'
};

}  // namespace infcore::cache
