#include <infcore/route/prefix_table.hpp>

#include <algorithm>
#include <bit>

namespace infcore::route {
namespace {

constexpr std::size_t table_places_at_first = 64;
constexpr std::size_t bytes_per_block_most = 40;
constexpr std::size_t set_bytes_least = 64 * 1024;  // of a small table: sets of many nodes are larger than its blocks
constexpr std::size_t places_per_block_most = 3;    // of clear_some: a table is at least 3/8 full, or small
constexpr std::size_t sweep_at_once = 64;           // blocks looked at by a call, and twice as many as it is told of

bool too_full(std::size_t n, std::size_t n_places) noexcept { return n * 4 > n_places * 3; }

/// What the blocks and their places leave of the memory that is allowed.
std::size_t set_bytes_most(std::size_t max_blocks, std::size_t block_bytes, std::size_t place_bytes) noexcept {
  std::size_t n_places = table_places_at_first;
  while (too_full(max_blocks, n_places)) n_places *= 2;
  const std::size_t all = bytes_per_block_most * max_blocks, fixed = max_blocks * block_bytes + n_places * place_bytes;
  return std::max(set_bytes_least, all > fixed ? all - fixed : 0);
}

}  // namespace

PrefixTable::PrefixTable(std::uint32_t max_nodes, std::uint32_t max_blocks)
    : sets_(max_nodes),
      max_blocks_(max_blocks),
      set_bytes_most_(set_bytes_most(max_blocks, sizeof(Block), sizeof(places_[0]))),
      index_mask_((std::uint32_t{1} << std::bit_width(max_blocks)) - 1),
      shift_(64 - std::countr_zero(table_places_at_first)),
      // Untouched pages of a large table take no memory, and are 0, which after() and walk() rely on.
      memory_((std::size_t{max_blocks} + 2) * sizeof(Block)),
      blocks_(reinterpret_cast<Block*>(memory_.data())),
      places_(table_places_at_first) {}

std::size_t PrefixTable::n_bytes() const noexcept {
  return (std::size_t{n_used_} + 1) * sizeof(Block) + places_.size() * sizeof(places_[0]) + sets_.n_bytes();
}

std::size_t PrefixTable::stored(base::NodeId node, std::span<const std::uint64_t> blocks, KvTier tier,
                                const std::uint64_t* after_block) {
  forget_change();  // of a call that threw
  sweep(2 * blocks.size() + sweep_at_once);
  Index before = after_block ? find(*after_block) : none;
  if (settle(before) == NodeSets::empty) before = none;  // may be given back at any time
  std::size_t n = 0;
  for (const std::uint64_t hash : blocks) {
    Index i = after(before, hash);
    if (i == none) {
      if (!make_room(before)) break;
      i = add(hash, before);
    } else {
      if (blocks_[i].parent == none && before != none) adopt(before, i);
      if (blocks_[i].b != has_children) {
        unlink(i);
        link_youngest(i);
      }
    }
    change(i, true, node, tier);
    before = i;
    ++n;
  }
  forget_change();
  while (sets_.n_bytes_charged() > set_bytes_most_) {
    if (sets_.n_forwarding() > 0) {
      sweep(sweep_at_once);
    } else if (!evict_oldest(none)) {
      break;
    }
  }
  return n;
}

std::size_t PrefixTable::removed(base::NodeId node, std::span<const std::uint64_t> blocks, KvTier tier) {
  forget_change();  // of a call that threw
  sweep(2 * blocks.size() + sweep_at_once);
  std::size_t n = 0;
  Index before = none;
  for (const std::uint64_t hash : blocks) {
    const Index i = after(before, hash);
    before = i;
    if (i == none || !sets_.contains(settle(i), node, tier)) continue;
    change(i, false, node, tier);
    free_if_unused(i);
    ++n;
  }
  forget_change();
  return n;
}

void PrefixTable::clear_node(base::NodeId node) noexcept {
  forget_change();
  const std::size_t n = sets_.clear_node(node);
  n_held_ -= n;
  n_dead_ += n;
}

bool PrefixTable::clear_some(std::size_t n) noexcept {
  forget_change();
  if (n_taken_ == 0) return true;
  const std::size_t n_blocks = std::min<std::size_t>(n, n_used_);
  for (const Index end = n_used_ - static_cast<Index>(n_blocks); n_used_ > end; --n_used_) {
    sets_.drop(blocks_[n_used_].holders);
    blocks_[n_used_] = Block{};
  }
  const std::size_t n_places = std::min(places_per_block_most * n, places_.size() - n_places_cleared_);
  std::fill_n(places_.begin() + static_cast<std::ptrdiff_t>(n_places_cleared_), n_places, 0u);
  n_places_cleared_ += n_places;
  if (n_used_ > 0 || n_places_cleared_ < places_.size()) return false;
  blocks_[none] = Block{};
  free_ = none;
  n_taken_ = n_held_ = n_dead_ = n_places_cleared_ = 0;
  swept_ = 0;
  return true;
}

/// A block's holders, as a set that forwards to no other.
NodeSets::Id PrefixTable::settle(Index i) noexcept {
  Block& block = blocks_[i];
  const NodeSets::Id now = sets_.resolve(block.holders);
  if (now == block.holders) return now;
  sets_.keep(now);
  sets_.drop(block.holders);
  block.holders = now;
  if (now == NodeSets::empty) --n_dead_;
  return now;
}

void PrefixTable::change(Index i, bool add, base::NodeId node, KvTier tier) {
  const NodeSets::Id from = settle(i);
  if (!has_change_ || from != from_) {
    const NodeSets::Id to = add ? sets_.with(from, node, tier) : sets_.without(from, node, tier);
    forget_change();
    sets_.keep(from);
    from_ = from;
    to_ = to;
    has_change_ = true;
  }
  if (to_ == from) return;
  sets_.keep(to_);
  sets_.drop(from);
  blocks_[i].holders = to_;
  if (from == NodeSets::empty) ++n_held_;
  if (to_ == NodeSets::empty) --n_held_;
}

void PrefixTable::forget_change() noexcept {
  if (!has_change_) return;
  sets_.drop(from_);
  sets_.drop(to_);
  has_change_ = false;
}

/// A new block that nobody holds yet. Precondition: make_room().
PrefixTable::Index PrefixTable::add(std::uint64_t hash, Index parent) {
  if (too_full(n_taken_ + 1, places_.size())) grow();
  Index i = free_;
  if (i != none) {
    free_ = blocks_[i].a;
  } else {
    i = ++n_used_;
  }
  blocks_[i] = Block{hash, NodeSets::empty, none, none, none};
  ++n_taken_;
  link_youngest(i);
  insert(i);
  if (parent != none) hang(parent, i);
  return i;
}

void PrefixTable::hang(Index parent, Index child) noexcept {
  blocks_[child].parent = parent;
  Block& before = blocks_[parent];
  if (before.b == has_children) {
    ++before.a;
    return;
  }
  unlink(parent);
  before.a = 1;
  before.b = has_children;
}

/// What came before the block it stands after. Not where the two would stand after each other: names made up at will.
void PrefixTable::adopt(Index parent, Index child) noexcept {
  for (Index i = parent; i != none; i = blocks_[i].parent)
    if (i == child) return;
  hang(parent, child);
}

/// Room for a block more, by whatever nobody holds, else by the oldest leaf; false where that is `keep`.
bool PrefixTable::make_room(Index keep) {
  while (n_taken_ >= max_blocks_) {
    if (n_dead_ > 0) {
      sweep(sweep_at_once);
    } else if (!evict_oldest(keep)) {
      return false;
    }
  }
  return true;
}

bool PrefixTable::evict_oldest(Index keep) noexcept {
  Index oldest = blocks_[none].b;
  if (oldest == keep) oldest = blocks_[oldest].b;
  if (oldest == none) return false;
  if (settle(oldest) != NodeSets::empty) {
    sets_.drop(blocks_[oldest].holders);
    blocks_[oldest].holders = NodeSets::empty;
    --n_held_;
    ++n_evicted_;
  }
  free_if_unused(oldest);
  return true;
}

/// Gives back a leaf that nobody holds, and what stood before it and was there for its sake alone.
void PrefixTable::free_if_unused(Index i) noexcept {
  while (i != none && blocks_[i].holders == NodeSets::empty && blocks_[i].b != has_children) {
    const Index parent = blocks_[i].parent;
    unlink(i);
    erase(i);
    blocks_[i].a = free_;
    blocks_[i].b = is_free;
    free_ = i;
    --n_taken_;
    if (parent == none || --blocks_[parent].a > 0) return;
    link_oldest(parent);
    i = parent;
  }
}

/// Looks at some blocks, turn by turn, as long as there are any whose holders changed with a cleared node.
void PrefixTable::sweep(std::size_t n_looked_at) noexcept {
  for (; sets_.n_forwarding() > 0 && n_looked_at > 0; --n_looked_at) {
    swept_ = swept_ >= n_used_ ? 1 : swept_ + 1;
    if (blocks_[swept_].holders == NodeSets::empty || settle(swept_) != NodeSets::empty) continue;
    free_if_unused(swept_);
  }
}

// Leaves in a ring through blocks_[none]: its `b` is the oldest, its `a` the youngest.
void PrefixTable::link_youngest(Index i) noexcept {
  const Index youngest = blocks_[none].a;
  blocks_[i].a = youngest;
  blocks_[i].b = none;
  blocks_[youngest].b = i;
  blocks_[none].a = i;
}

void PrefixTable::link_oldest(Index i) noexcept {
  const Index oldest = blocks_[none].b;
  blocks_[i].a = none;
  blocks_[i].b = oldest;
  blocks_[oldest].a = i;
  blocks_[none].b = i;
}

void PrefixTable::unlink(Index i) noexcept {
  blocks_[blocks_[i].a].b = blocks_[i].b;
  blocks_[blocks_[i].b].a = blocks_[i].a;
}

void PrefixTable::insert(Index i) noexcept {
  const std::size_t mask = places_.size() - 1;
  std::size_t at = home(blocks_[i].hash);
  while (places_[at] != 0) at = (at + 1) & mask;
  places_[at] = i | tag(blocks_[i].hash);
}

/// Closes the gap, so that no probe has to step over what is gone (Knuth, volume 3, 6.4, algorithm R).
void PrefixTable::erase(Index i) noexcept {
  const std::size_t mask = places_.size() - 1;
  std::size_t gap = home(blocks_[i].hash);
  while ((places_[gap] & index_mask_) != i) gap = (gap + 1) & mask;
  for (std::size_t at = (gap + 1) & mask; places_[at] != 0; at = (at + 1) & mask) {
    const std::size_t wanted = home(blocks_[places_[at] & index_mask_].hash);
    if (((at - wanted) & mask) < ((at - gap) & mask)) continue;
    places_[gap] = places_[at];
    gap = at;
  }
  places_[gap] = 0;
}

void PrefixTable::grow() {
  std::vector<std::uint32_t> wider(places_.size() * 2);
  places_.swap(wider);
  shift_ -= 1;
  for (Index i = 1; i <= n_used_; ++i)
    if (blocks_[i].b != is_free) insert(i);
}

}  // namespace infcore::route
