#pragma once
#include <infcore/base/ids.hpp>
#include <infcore/base/mapped_block.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace infcore::route {

/// What engines call their blocks, and what they are called here: (node, an engine's id) -> chained hash. Engines name
/// the same tokens differently, and say of a block that goes, or of one that others come after, only its id.
///
/// Bounded: full, it forgets what was not asked for or told since the hand last came by (second chance: CLOCK, F. J.
/// Corbato, 1968). A node's names end at once with its epoch, and make room as the hand passes. Ids are mixed with the
/// node's epoch to 64 bits: of n names two meet with probability n^2 / 2^65. 24 to 27 bytes a name. O(1). One thread at
/// a time.
class EngineBlocks {
 public:
  static constexpr std::uint32_t max_names_most = 1u << 30;

  /// Precondition: 1 <= max_names <= max_names_most.
  EngineBlocks(std::uint32_t max_nodes, std::uint32_t max_names);

  void put(base::NodeId node, std::uint64_t id, std::uint64_t block);
  /// False where it is not known.
  [[nodiscard]] bool find(base::NodeId node, std::uint64_t id, std::uint64_t& block) noexcept;
  void clear_node(base::NodeId node) noexcept { epochs_[node.value] = ++n_epochs_; }

  [[nodiscard]] std::size_t n_names() const noexcept { return n_names_; }
  [[nodiscard]] std::size_t n_bytes() const noexcept {
    return (std::size_t{n_names_} + 1) * sizeof(Name) + places_.size() * sizeof(places_[0]);
  }

 private:
  struct Name {
    std::uint64_t key;
    std::uint64_t block;
  };
  static constexpr std::uint32_t asked = 1u << 31;  ///< of a place: since the hand came by

  [[nodiscard]] std::uint64_t key_of(base::NodeId node, std::uint64_t id) const noexcept;
  [[nodiscard]] std::size_t place_of(std::uint64_t key) const noexcept;
  [[nodiscard]] std::uint32_t forget_one() noexcept;
  void grow();

  std::uint32_t max_names_;
  std::uint32_t n_names_{};
  std::uint32_t hand_{};
  std::uint32_t n_epochs_{};
  std::vector<std::uint32_t> epochs_;  ///< of each node
  base::MappedBlock memory_;
  Name* names_;                        ///< 1 to n_names_
  std::vector<std::uint32_t> places_;  ///< open addressing, a power of two, at most 3/4 full
};

}  // namespace infcore::route
