#pragma once
#include <infcore/base/column.hpp>
#include <infcore/contracts/eviction.hpp>

#include <cstddef>
#include <cstdint>

namespace infcore::cache {

/// Some doubly linked lists over one set of entries, each in at most one of them; a list is a ring around a node of its
/// own, so that leaving one needs no word of which it is. Single-threaded; O(1); allocates in the constructor and
/// grow().
template <std::uint32_t n_lists>
class EntryLists {
 public:
  using EntryId = contracts::EntryId;

  EntryLists() {
    nodes_.grow(n_before);
    for (std::uint32_t list = 0; list < n_lists; ++list) nodes_[head(list)] = {head(list), head(list)};
  }

  /// Entries will be below n_entries_max, which is not less than before.
  void grow(std::uint32_t n_entries_max) { nodes_.grow(std::size_t{n_entries_max} + n_before); }

  [[nodiscard]] bool is_listed(EntryId id) const noexcept { return nodes_[place(id)].before != alone; }
  /// The one that came first; no_entry: none.
  [[nodiscard]] EntryId front(std::uint32_t list) const noexcept { return entry(nodes_[head(list)].after); }
  [[nodiscard]] EntryId back(std::uint32_t list) const noexcept { return entry(nodes_[head(list)].before); }
  /// The one behind it; no_entry: none. Precondition: listed.
  [[nodiscard]] EntryId after(EntryId id) const noexcept { return entry(nodes_[place(id)].after); }

  /// Precondition of both: not listed.
  void push_back(std::uint32_t list, EntryId id) noexcept { link(place(id), nodes_[head(list)].before, head(list)); }
  void push_front(std::uint32_t list, EntryId id) noexcept { link(place(id), head(list), nodes_[head(list)].after); }

  /// Precondition: listed.
  void remove(EntryId id) noexcept {
    Node& node = nodes_[place(id)];
    nodes_[node.before].after = node.after;
    nodes_[node.after].before = node.before;
    node.before = alone;
  }

  /// All of `from` behind all of `to`.
  void append(std::uint32_t to, std::uint32_t from) noexcept {
    const std::uint32_t end = head(to), emptied = head(from);
    const Node moved = nodes_[emptied];
    if (moved.after == emptied) return;
    const std::uint32_t last = nodes_[end].before;
    nodes_[last].after = moved.after;
    nodes_[moved.after].before = last;
    nodes_[moved.before].after = end;
    nodes_[end].before = moved.before;
    nodes_[emptied] = {emptied, emptied};
  }

 private:
  struct Node {
    std::uint32_t before;
    std::uint32_t after;
  };
  static constexpr std::uint32_t alone = 0;  ///< as a column begins, so that nobody stands at 0
  static constexpr std::uint32_t n_before = n_lists + 1;

  [[nodiscard]] static std::uint32_t head(std::uint32_t list) noexcept { return list + 1; }
  [[nodiscard]] static std::size_t place(EntryId id) noexcept { return std::size_t{id} + n_before; }
  [[nodiscard]] static EntryId entry(std::uint32_t at) noexcept {
    return at < n_before ? contracts::no_entry : at - n_before;
  }

  void link(std::size_t at, std::uint32_t before, std::uint32_t after) noexcept {
    nodes_[at] = {before, after};
    nodes_[before].after = static_cast<std::uint32_t>(at);
    nodes_[after].before = static_cast<std::uint32_t>(at);
  }

  base::Column<Node> nodes_;  ///< the lists' own first, then the entries'
};

}  // namespace infcore::cache
