#pragma once
#include <infcore/base/mapped_block.hpp>
#include <infcore/route/node_sets.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace infcore::route {

/// Blocks by the chained hash of everything up to their end (contracts/block_hash.hpp), and who holds each.
///
/// A block lies beside the one it was stored after, so that reading a prefix is a comparison a block, and the hash
/// table is asked only where a chain begins or its blocks lie apart. Places of the table are 4 bytes: an index, and
/// some bits of the hash above it. A block that has blocks after it stays, held or not, until those are gone: what is
/// after it could not be found otherwise by who stores the middle again. It is then a ghost: counted as room taken, not
/// as held.
///
/// Full (max_blocks, or 40 bytes for each of them): the leaf that was stored longest ago goes, and its parent, once it
/// has nothing after it, stands first in line. Bounded; a table of hashes that doubles as it fills.
///
/// Cost: stored and removed O(1) a block where neighbours have the same holders, else O(words of a set); clear_node
/// O(sets), and what nobody else held is given back bit by bit by later calls. Memory: 24 bytes a block, 5.3 to 10.7
/// for its place, and the sets. One thread at a time.
class PrefixTable {
 public:
  static constexpr std::uint32_t max_blocks_most = 1u << 28;

  /// Precondition: 1 <= max_blocks <= max_blocks_most.
  PrefixTable(std::uint32_t max_nodes, std::uint32_t max_blocks);

  /// The node holds `blocks`, each right after the one before it and the first after `*after`, where it is given. How
  /// many it holds of them now: fewer only where nothing can be evicted but what they stand on.
  std::size_t stored(base::NodeId node, std::span<const std::uint64_t> blocks, KvTier tier, const std::uint64_t* after);
  /// How many it held there.
  std::size_t removed(base::NodeId node, std::span<const std::uint64_t> blocks, KvTier tier);
  void clear_node(base::NodeId node) noexcept;
  void clear() noexcept {
    while (!clear_some(max_blocks_)) {
    }
  }
  /// Forgets some of it, in time in proportion to `n`. True once it is empty: until then nothing else may be asked.
  bool clear_some(std::size_t n) noexcept;

  /// visit(set, i) for each run of blocks[i...] whose holders are the same, until a block is not there or visit returns
  /// false. Returns how many blocks were there.
  template <class Visit>
  std::size_t walk(std::span<const std::uint64_t> blocks, Visit visit) const noexcept;

  [[nodiscard]] const NodeSets& sets() const noexcept { return sets_; }
  [[nodiscard]] std::size_t n_blocks() const noexcept { return n_held_; }
  [[nodiscard]] std::uint64_t n_evicted() const noexcept { return n_evicted_; }
  /// Of what was touched; room is reserved for max_blocks, and taken page by page.
  [[nodiscard]] std::size_t n_bytes() const noexcept;

 private:
  using Index = std::uint32_t;
  static constexpr Index none = 0;  ///< also the head of the list of leaves
  static constexpr Index has_children = ~Index{0};
  static constexpr Index is_free = ~Index{0} - 1;
  static constexpr std::size_t prefetch_places = 16;
  static constexpr std::size_t prefetch_blocks = 8;

  struct Block {
    std::uint64_t hash;
    NodeSets::Id holders;
    Index parent;  ///< the block that it was stored after; none: not known
    Index a;       ///< a leaf: the older one; a free one: the next; else how many were stored right after it
    Index b;       ///< a leaf: the younger one; else is_free or has_children
  };
  static_assert(sizeof(Block) == 24);

  [[nodiscard]] std::uint64_t mixed(std::uint64_t hash) const noexcept { return hash * 0x9e3779b97f4a7c15u; }
  [[nodiscard]] std::size_t home(std::uint64_t hash) const noexcept { return mixed(hash) >> shift_; }
  [[nodiscard]] std::uint32_t tag(std::uint64_t hash) const noexcept {
    return static_cast<std::uint32_t>(mixed(hash)) & ~index_mask_;
  }
  [[nodiscard]] Index find(std::uint64_t hash) const noexcept;
  [[nodiscard]] Index after(Index before, std::uint64_t hash) const noexcept;
  void prefetch(std::span<const std::uint64_t> blocks, std::size_t i) const noexcept;

  [[nodiscard]] Index add(std::uint64_t hash, Index parent);
  void hang(Index parent, Index child) noexcept;
  void adopt(Index parent, Index child) noexcept;
  [[nodiscard]] bool make_room(Index keep);
  [[nodiscard]] bool evict_oldest(Index keep) noexcept;
  NodeSets::Id settle(Index i) noexcept;
  void change(Index i, bool add, base::NodeId node, KvTier tier);
  void forget_change() noexcept;
  void sweep(std::size_t n_looked_at) noexcept;
  void free_if_unused(Index i) noexcept;
  void link_youngest(Index i) noexcept;
  void link_oldest(Index i) noexcept;
  void unlink(Index i) noexcept;
  void insert(Index i) noexcept;
  void erase(Index i) noexcept;
  void grow();

  NodeSets sets_;
  std::uint32_t max_blocks_;
  std::size_t set_bytes_most_;
  std::uint32_t index_mask_;
  std::uint32_t shift_;
  base::MappedBlock memory_;
  Block* blocks_;                      ///< 1 to n_used_; 0 is `none`
  std::vector<std::uint32_t> places_;  ///< open addressing, a power of two, at most 3/4 full
  Index n_used_{};                     ///< ever; those in between that are free are in a list
  Index free_{none};
  std::size_t n_taken_{};  ///< blocks and ghosts
  std::size_t n_held_{};
  std::size_t n_dead_{};  ///< blocks that do not know yet that nobody holds them
  Index swept_{};
  std::size_t n_places_cleared_{};
  std::uint64_t n_evicted_{};
  /// The last change of holders: neighbours most often have the same. Kept during a call only.
  NodeSets::Id from_{NodeSets::empty}, to_{NodeSets::empty};
  bool has_change_{};
};

inline PrefixTable::Index PrefixTable::find(std::uint64_t hash) const noexcept {
  const std::uint32_t wanted = tag(hash);
  const std::size_t mask = places_.size() - 1;
  for (std::size_t at = home(hash); places_[at] != 0; at = (at + 1) & mask) {
    const std::uint32_t place = places_[at];
    if ((place & ~index_mask_) == wanted && blocks_[place & index_mask_].hash == hash) return place & index_mask_;
  }
  return none;
}

/// find(), looking beside `before` first. What is free or a ghost has no holders, and may have any hash.
inline PrefixTable::Index PrefixTable::after(Index before, std::uint64_t hash) const noexcept {
  const Block& beside = blocks_[before + 1];  // one more than max_blocks are allocated
  if (beside.hash == hash && beside.holders != NodeSets::empty) [[likely]]
    return before + 1;
  return find(hash);
}

/// For the probe of blocks[i]: its place well ahead, then the block that its place most likely names.
inline void PrefixTable::prefetch(std::span<const std::uint64_t> blocks, std::size_t i) const noexcept {
  if (i + prefetch_places < blocks.size()) __builtin_prefetch(&places_[home(blocks[i + prefetch_places])]);
  if (i + prefetch_blocks < blocks.size())
    __builtin_prefetch(&blocks_[places_[home(blocks[i + prefetch_blocks])] & index_mask_]);
}

template <class Visit>
std::size_t PrefixTable::walk(std::span<const std::uint64_t> blocks, Visit visit) const noexcept {
  Index at = none;
  NodeSets::Id seen = NodeSets::empty;      // as blocks have it
  NodeSets::Id resolved = NodeSets::empty;  // and what it stands for
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const Block* beside = &blocks_[at + 1];
    if (beside->hash == blocks[i] && beside->holders != NodeSets::empty) [[likely]] {
      ++at;
    } else {
      prefetch(blocks, i);
      at = find(blocks[i]);
      if (at == none) return i;
    }
    const NodeSets::Id holders = blocks_[at].holders;
    if (holders == seen && holders != NodeSets::empty) continue;
    seen = holders;
    const NodeSets::Id now = sets_.resolve(holders);
    if (now == NodeSets::empty) return i;
    if (now == resolved) continue;
    resolved = now;
    if (!visit(now, i)) return i;
  }
  return blocks.size();
}

}  // namespace infcore::route
