#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace infcore::engine {

/// Which blocks of prompts a node is believed to hold: those of the requests that were sent there, as many as it has
/// room for, the least recently used forgotten first. A guess, as good as the node's own word where its cache is LRU:
/// 8 nodes on Mooncake's conversations found .250 of the prompts by it, .245 by what their caches held (DECISIONS.md).
///
/// Names are chained, and a use of a block is a later use of all before it: so where a block is held, all before it
/// are, and n_held() searches by halves. Cost: picked() one probe a block, n_held() log2 of them. Memory: 28 bytes a
/// block, grown as they come, up to the bound. One thread at a time.
class PickedBlocks {
 public:
  /// Forgets everything; `n_blocks_max` >= 1.
  void reset(std::uint32_t n_blocks_max);
  /// How many leading names are held.
  [[nodiscard]] std::uint32_t n_held(std::span<const std::uint64_t> names) const noexcept;
  /// A request with this prompt was sent there. What is beyond the bound by itself is left out at its end.
  void picked(std::span<const std::uint64_t> names);
  [[nodiscard]] std::uint32_t n_blocks() const noexcept { return n_blocks_; }

 private:
  static constexpr std::uint32_t none = 0xFFFF'FFFFu;
  struct Block {
    std::uint64_t name;
    std::uint32_t newer, older;
  };

  [[nodiscard]] static std::uint32_t tag_of(std::uint64_t name) noexcept;
  [[nodiscard]] std::uint32_t find(std::uint64_t name) const noexcept;
  void use(std::uint64_t name);
  void unlink(std::uint32_t block) noexcept;
  void push_newest(std::uint32_t block) noexcept;
  void erase(std::uint32_t block) noexcept;
  void grow();

  std::vector<Block> blocks_{};
  std::vector<std::uint32_t> places_{};  ///< open addressing, a power of two, at most half full; none: empty
  std::uint32_t n_blocks_max_{1}, n_blocks_{};
  std::uint32_t newest_{none}, oldest_{none};
};

}  // namespace infcore::engine
