#pragma once
#include <infcore/base/id_table.hpp>
#include <infcore/contracts/eviction.hpp>
#include <infcore/contracts/token_curve.hpp>

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

namespace infcore::batch {

/// Blocks go over the border and to devices in whole arrays (as int32), so they are plain numbers.
using BlockId = std::uint32_t;
inline constexpr BlockId no_block = std::numeric_limits<BlockId>::max();

struct KVBlocksConfig {
  std::uint32_t n_blocks;       ///< on the device, 1 to n_blocks_max
  std::uint32_t block_size;     ///< tokens, 1 to block_size_max
  std::uint32_t n_host_blocks;  ///< to swap to, 0 to n_blocks_max
};

/// The KV cache of one token model on one device, in blocks of equal size: who uses which, and which hold a prefix that
/// may be used again. It moves no data; it says where data is.
///
/// A block is free, or used by n >= 1 owners, or cached: full, named by the chained hash of everything up to its end
/// (contracts/block_hash.hpp), and linked to the block before it. A cached block may be used or not. What nobody uses
/// stays until alloc() needs room; then EvictionPolicy chooses among the leaves. A block that is not full never gets a
/// name. A block is held where it is used, or a block after it is: so what alloc() can have is known without a walk.
///
/// Cost: alloc and free O(1) a block, eviction O(log n) a block, match and keep one probe of a hash table a block.
/// Bounded: 48 bytes a block plus the policy's; allocates in the constructor only. One thread at a time. No clock.
/// Source: paged blocks, reference counts and copy on write: Kwon et al., vLLM, SOSP 2023, section 4.3. Ours: names
/// are 64 bits, equal blocks become one when the second is kept, and eviction goes by leaves and any policy.
class KVBlocks final : private contracts::EvictionView {
 public:
  static constexpr std::uint32_t n_blocks_max = 1u << 30;
  static constexpr std::uint32_t block_size_max = 1u << 16;

  /// Throws InvalidArgument.
  KVBlocks(const KVBlocksConfig& config, std::unique_ptr<contracts::EvictionPolicy> policy);
  ~KVBlocks() override = default;
  KVBlocks(const KVBlocks&) = delete;
  KVBlocks& operator=(const KVBlocks&) = delete;

  /// All of out.size() blocks, each used once, evicting what must go; or false, and nothing changed.
  [[nodiscard]] bool alloc(std::span<BlockId> out) noexcept;
  /// One use less of each. Precondition: free_allowed().
  void free(std::span<const BlockId> blocks) noexcept;
  /// The first that is no block or has fewer uses than it stands in `blocks`; blocks.size() where none is.
  [[nodiscard]] std::size_t first_not_used(std::span<const BlockId> blocks) noexcept;
  /// One use more of each: a fork. Precondition: each is used.
  void share(std::span<const BlockId> blocks) noexcept;
  /// The leading names that are cached: their blocks, each used once more. Returns how many.
  /// Precondition: out.size() >= names.size().
  [[nodiscard]] std::uint32_t match(std::span<const std::uint64_t> names, std::span<BlockId> out) noexcept;

  struct Match {
    std::uint32_t n_blocks;  ///< leading names that are cached
    std::uint32_t n_unheld;  ///< of them, those that match() would take from what alloc() can have
  };
  /// What match() would find, changing nothing; also the blocks, where `out` is not empty.
  [[nodiscard]] Match peek(std::span<const std::uint64_t> names, std::span<BlockId> out = {}) const noexcept;

  /// Names a block that is full and computed; `parent` is the cached block before it, no_block: the first of its
  /// chain. Returns the block to use from now on: where the name is cached already, that one, and the use of `block`
  /// has moved to it. Precondition: `block` is used; if it has a name, it is this one.
  [[nodiscard]] BlockId keep(BlockId block, std::uint64_t name, BlockId parent) noexcept;
  /// Forgets every cached block that nobody holds; returns how many.
  std::uint32_t drop_cached() noexcept;

  /// Host blocks, for what is swapped out. All or none.
  [[nodiscard]] bool host_alloc(std::span<BlockId> out) noexcept;
  /// Precondition: each is from host_alloc and not freed since.
  void host_free(std::span<const BlockId> blocks) noexcept;

  /// What a cached block costs to make again, for policies that ask: its tokens by this curve. Before the first keep().
  void set_curve(const contracts::TokenCurve& curve) noexcept { curve_ = curve; }

  [[nodiscard]] std::uint32_t n_blocks() const noexcept { return static_cast<std::uint32_t>(blocks_.size()); }
  [[nodiscard]] std::uint32_t block_size() const noexcept { return block_size_; }
  [[nodiscard]] std::uint32_t n_uses(BlockId block) const noexcept { return blocks_[block].n_uses; }
  [[nodiscard]] bool is_cached(BlockId block) const noexcept { return blocks_[block].is_cached; }
  [[nodiscard]] std::uint64_t name(BlockId block) const noexcept { return blocks_[block].name; }
  [[nodiscard]] std::uint32_t n_free() const noexcept { return n_free_; }
  [[nodiscard]] std::uint32_t n_cached() const noexcept { return n_cached_; }
  /// What alloc() can have: free blocks, and cached ones that nobody holds.
  [[nodiscard]] std::uint32_t n_available() const noexcept { return n_free_ + n_reclaimable_; }
  [[nodiscard]] std::uint64_t n_evicted() const noexcept { return n_evicted_; }
  [[nodiscard]] std::uint32_t n_host_blocks() const noexcept { return static_cast<std::uint32_t>(host_free_.size()); }
  [[nodiscard]] std::uint32_t n_host_free() const noexcept { return n_host_free_; }

 private:
  struct Block {
    std::uint64_t name;
    std::uint32_t n_uses;
    std::uint32_t n_children;       ///< cached blocks right after it
    std::uint32_t n_held_children;  ///< of them
    BlockId parent;
    std::uint32_t depth;  ///< cached blocks before it
    bool is_cached;
    [[nodiscard]] bool held() const noexcept { return n_uses > 0 || n_held_children > 0; }
  };

  contracts::EvictionEntry entry(contracts::EntryId id) const noexcept override;
  [[nodiscard]] BlockId find(std::uint64_t name) const noexcept;
  void use(BlockId block) noexcept;
  void unuse(BlockId block) noexcept;
  void became_held(BlockId block) noexcept;
  void became_unheld(BlockId block) noexcept;
  void evict(BlockId block) noexcept;

  std::vector<Block> blocks_;
  std::vector<BlockId> free_;  ///< a stack: n_free_ of it
  base::IdTable cached_;       ///< by their names; at most half full
  std::vector<BlockId> host_free_;
  std::unique_ptr<contracts::EvictionPolicy> policy_;
  contracts::TokenCurve curve_;
  std::uint64_t n_evicted_{};
  std::uint32_t block_size_;
  std::uint32_t n_free_;
  std::uint32_t n_host_free_;
  std::uint32_t n_cached_{};
  std::uint32_t n_reclaimable_{};  ///< cached and not held
};

}  // namespace infcore::batch
