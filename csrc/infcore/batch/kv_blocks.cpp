#include <infcore/base/errors.hpp>
#include <infcore/batch/kv_blocks.hpp>

#include <algorithm>
#include <bit>
#include <string>

namespace infcore::batch {
namespace {

void check(const char* field, std::uint32_t value, std::uint32_t least, std::uint32_t most) {
  if (value < least || value > most) {
    throw InvalidArgument(field, std::to_string(value), std::to_string(least) + " to " + std::to_string(most));
  }
}

/// The highest id at the bottom, so that the first blocks given out are 0, 1, 2.
std::vector<BlockId> stack_of(std::uint32_t n) {
  std::vector<BlockId> stack(n);
  for (std::uint32_t i = 0; i < n; ++i) stack[i] = n - 1 - i;
  return stack;
}

void pop(std::vector<BlockId>& stack, std::uint32_t& n_free, std::span<BlockId> out) noexcept {
  for (BlockId& block : out) block = stack[--n_free];
}

/// Probes ahead whose memory is asked for: a miss takes as long as some twelve probes that hit (measured: FACTS of the
/// project's prototypes; bench/micro/test_kv.py shows the cold case).
constexpr std::size_t n_ahead = 12;

}  // namespace

KVBlocks::KVBlocks(const KVBlocksConfig& config, std::unique_ptr<contracts::EvictionPolicy> policy)
    : policy_(std::move(policy)), block_size_(config.block_size), n_host_free_(config.n_host_blocks) {
  check("n_blocks", config.n_blocks, 1, n_blocks_max);
  check("block_size", config.block_size, 1, block_size_max);
  check("n_host_blocks", config.n_host_blocks, 0, n_blocks_max);
  n_free_ = config.n_blocks;
  blocks_.assign(config.n_blocks, Block{0, 0, 0, 0, no_block, 0, false});
  free_ = stack_of(config.n_blocks);
  host_free_ = stack_of(config.n_host_blocks);
  cached_.grow(std::bit_ceil(std::size_t{config.n_blocks} * 2));
  policy_->attach(*this, {.n_entries_max = config.n_blocks, .capacity_bytes = config.n_blocks});
}

contracts::EvictionEntry KVBlocks::entry(contracts::EntryId id) const noexcept {
  const Block& block = blocks_[id];
  const std::uint64_t first = std::uint64_t{block.depth} * block_size_;
  const double cost_s = curve_.recompute_s(first + block_size_) - curve_.recompute_s(first);
  // A curve that says nothing: every block costs the same.
  return {block.name, 1, cost_s > 0.0 ? cost_s * 1e6 : 1.0, block.n_children, block.held()};
}

BlockId KVBlocks::find(std::uint64_t name) const noexcept {
  return cached_.find(base::IdTable::tag_of(name), [&](BlockId block) { return blocks_[block].name == name; });
}

void KVBlocks::became_held(BlockId block) noexcept {
  for (;;) {
    const Block& now_held = blocks_[block];
    --n_reclaimable_;
    if (now_held.n_children == 0) policy_->on_held(block);
    block = now_held.parent;
    if (block == no_block) return;
    Block& parent = blocks_[block];
    const bool was_held = parent.held();
    ++parent.n_held_children;
    if (was_held) return;
  }
}

void KVBlocks::became_unheld(BlockId block) noexcept {
  for (;;) {
    const Block& let_go = blocks_[block];
    ++n_reclaimable_;
    if (let_go.n_children == 0) policy_->on_evictable(block);
    block = let_go.parent;
    if (block == no_block) return;
    --blocks_[block].n_held_children;
    if (blocks_[block].held()) return;
  }
}

void KVBlocks::use(BlockId block) noexcept {
  Block& used = blocks_[block];
  const bool was_held = used.held();
  ++used.n_uses;
  if (used.is_cached && !was_held) became_held(block);
}

void KVBlocks::unuse(BlockId block) noexcept {
  Block& used = blocks_[block];
  if (--used.n_uses > 0) return;
  if (!used.is_cached) {
    free_[n_free_++] = block;
  } else if (!used.held()) {
    became_unheld(block);
  }
}

void KVBlocks::evict(BlockId block) noexcept {
  Block& evicted = blocks_[block];
  cached_.erase(base::IdTable::tag_of(evicted.name), block);
  policy_->on_remove(block);
  evicted.is_cached = false;
  --n_cached_;
  --n_reclaimable_;
  free_[n_free_++] = block;
  if (evicted.parent == no_block) return;
  Block& parent = blocks_[evicted.parent];
  if (--parent.n_children == 0 && !parent.held()) policy_->on_evictable(evicted.parent);
}

bool KVBlocks::alloc(std::span<BlockId> out) noexcept {
  if (out.size() > n_available()) return false;
  while (n_free_ < out.size()) {
    evict(policy_->victim());
    ++n_evicted_;
  }
  pop(free_, n_free_, out);
  for (const BlockId block : out) blocks_[block].n_uses = 1;
  return true;
}

void KVBlocks::free(std::span<const BlockId> blocks) noexcept {
  // Names stand in runs: a sequence's full blocks, then its last one.
  for (std::size_t end = blocks.size(); end > 0;) {
    std::size_t from = end;
    while (from > 0 && blocks_[blocks[from - 1]].is_cached) --from;
    if (from < end) policy_->on_release(blocks.subspan(from, end - from));
    end = from;
    while (end > 0 && !blocks_[blocks[end - 1]].is_cached) --end;
  }
  // Last first: a leaf becomes evictable at once, without a walk to the root.
  for (std::size_t i = blocks.size(); i > 0; --i) unuse(blocks[i - 1]);
}

std::size_t KVBlocks::first_not_used(std::span<const BlockId> blocks) noexcept {
  std::size_t n_good = 0;
  for (; n_good < blocks.size(); ++n_good) {
    if (blocks[n_good] >= blocks_.size() || blocks_[blocks[n_good]].n_uses == 0) break;
    --blocks_[blocks[n_good]].n_uses;
  }
  for (std::size_t i = 0; i < n_good; ++i) ++blocks_[blocks[i]].n_uses;
  return n_good;
}

void KVBlocks::share(std::span<const BlockId> blocks) noexcept {
  for (const BlockId block : blocks) ++blocks_[block].n_uses;
}

std::uint32_t KVBlocks::match(std::span<const std::uint64_t> names, std::span<BlockId> out) noexcept {
  std::uint32_t n = 0;
  for (; n < names.size(); ++n) {
    if (n + n_ahead < names.size()) cached_.prefetch(base::IdTable::tag_of(names[n + n_ahead]));
    const BlockId block = find(names[n]);
    if (block == no_block) break;
    use(block);
    out[n] = block;
  }
  if (n > 0) policy_->on_hit(out.first(n));
  return n;
}

KVBlocks::Match KVBlocks::peek(std::span<const std::uint64_t> names, std::span<BlockId> out) const noexcept {
  Match found{0, 0};
  for (; found.n_blocks < names.size(); ++found.n_blocks) {
    const std::size_t ahead = found.n_blocks + n_ahead;
    if (ahead < names.size()) cached_.prefetch(base::IdTable::tag_of(names[ahead]));
    const BlockId block = find(names[found.n_blocks]);
    if (block == no_block) break;
    if (!blocks_[block].held()) ++found.n_unheld;
    if (!out.empty()) out[found.n_blocks] = block;
  }
  return found;
}

BlockId KVBlocks::keep(BlockId block, std::uint64_t name, BlockId parent) noexcept {
  if (blocks_[block].is_cached) return block;
  const BlockId same = find(name);
  if (same != no_block) {
    use(same);
    unuse(block);
    policy_->on_hit({&same, 1});
    return same;
  }
  Block& stored = blocks_[block];
  stored.name = name;
  stored.parent = parent;
  stored.depth = 0;
  if (parent != no_block) {
    Block& before = blocks_[parent];
    const bool was_held = before.held();
    ++before.n_held_children;
    if (!was_held) became_held(parent);
    ++before.n_children;
    stored.depth = before.depth + 1;
  }
  stored.is_cached = true;
  ++n_cached_;
  cached_.insert(base::IdTable::tag_of(name), block);
  policy_->on_insert(block);
  return block;
}

std::uint32_t KVBlocks::drop_cached() noexcept {
  const std::uint32_t n = n_reclaimable_;
  while (n_reclaimable_ > 0) evict(policy_->victim());
  return n;
}

bool KVBlocks::host_alloc(std::span<BlockId> out) noexcept {
  if (out.size() > n_host_free_) return false;
  pop(host_free_, n_host_free_, out);
  return true;
}

void KVBlocks::host_free(std::span<const BlockId> blocks) noexcept {
  for (std::size_t i = blocks.size(); i > 0; --i) host_free_[n_host_free_++] = blocks[i - 1];
}

}  // namespace infcore::batch
