#pragma once
#include <infcore/base/ids.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace infcore::route {

/// Where a node keeps a block: its accelerator's memory, the host's, or a disk.
enum class KvTier : std::uint8_t { device, host, disk };
inline constexpr std::size_t n_kv_tiers = 3;

/// Interned sets of (node, tier): equal sets have one id, and a block of a prefix that 1,024 nodes hold costs as much
/// as one that a single node holds. Counted: who keeps an id holds a reference to it.
///
/// A set is its words of 64 nodes that are not 0, in order, and their places: 10 bytes a word, so that a set of a few
/// nodes among 10,000 stays small. Equal sets are found by a hash that changes with one exclusive or when a node comes
/// or goes, then compared.
///
/// A node that loses all it holds is taken out of each set, not of each block: the set changes in place, or, where the
/// smaller set is known already, forwards to it. resolve() follows; ids that readers keep stay good.
///
/// Cost: with and without O(words of the set); clear_node O(sets). One thread at a time. Allocates when a set is new.
class NodeSets {
 public:
  using Id = std::uint32_t;
  static constexpr Id empty = 0;  ///< not counted

  explicit NodeSets(std::uint32_t max_nodes);

  /// The set with a member more, or less; the caller gets a reference to it. Precondition: `id` is resolved.
  [[nodiscard]] Id with(Id id, base::NodeId node, KvTier tier);
  [[nodiscard]] Id without(Id id, base::NodeId node, KvTier tier);
  [[nodiscard]] bool contains(Id id, base::NodeId node, KvTier tier) const noexcept;

  void keep(Id id) noexcept {
    if (id != empty) ++sets_[id].n_uses;
  }
  void drop(Id id) noexcept;
  [[nodiscard]] std::uint32_t n_uses(Id id) const noexcept { return sets_[id].n_uses; }

  /// Takes a node out of every set. Returns how many references were to sets that are empty now.
  std::size_t clear_node(base::NodeId node) noexcept;
  void clear() noexcept;

  [[nodiscard]] Id resolve(Id id) const noexcept {
    while (sets_[id].forward != none) id = sets_[id].forward;
    return id;
  }
  /// Some member is not on its device. Precondition for this and the next two: `id` is resolved.
  [[nodiscard]] bool is_tiered(Id id) const noexcept { return sets_[id].is_tiered; }
  /// out[w] = the nodes 64w to 64w + 63 with the block anywhere; and on one tier. Nodes beyond `out` are left out.
  void holders(Id id, std::span<std::uint64_t> out) const noexcept;
  void holders(Id id, KvTier tier, std::span<std::uint64_t> out) const noexcept;

  /// Words of 64 nodes, up to the last that was ever a member.
  [[nodiscard]] std::uint32_t n_words() const noexcept { return n_words_; }
  [[nodiscard]] std::size_t n_sets() const noexcept { return n_sets_; }
  /// Ids that forward to others, as long as somebody keeps one.
  [[nodiscard]] std::size_t n_forwarding() const noexcept { return n_forwarding_; }
  /// What the sets take at most, with the room that vectors of them have to spare.
  [[nodiscard]] std::size_t n_bytes_charged() const noexcept {
    return (n_sets_ + n_forwarding_) * 2 * (sizeof(Set) + 2 * sizeof(Id)) + n_payload_bytes_;
  }
  [[nodiscard]] std::size_t n_bytes() const noexcept;

 private:
  static constexpr Id none = ~Id{0};
  struct Set {
    std::uint64_t hash;
    std::unique_ptr<std::uint64_t[]> words;  ///< n_words of bits, then their places, four to a word
    std::uint32_t n_uses;  ///< with those of sets that forward here; 0: a free id, whose next is `forward`
    Id forward;
    std::uint32_t n_room;  ///< what `words` has room for
    std::uint16_t n_words;
    bool is_tiered;

    [[nodiscard]] const std::uint16_t* places() const noexcept {
      return reinterpret_cast<const std::uint16_t*>(words.get() + n_words);
    }
  };

  [[nodiscard]] std::uint16_t place_of(base::NodeId node, std::size_t tier) const noexcept {
    return static_cast<std::uint16_t>(tier * stride_ + node.value / 64);
  }
  void copy(const Set& set) noexcept;
  bool change(std::uint16_t place, std::uint64_t bit, bool add) noexcept;
  [[nodiscard]] Id intern(std::uint64_t hash);
  [[nodiscard]] Id find(std::uint64_t hash) const noexcept;
  [[nodiscard]] Id new_id();
  void fill(Set& set, std::uint64_t hash);
  void release(Set& set) noexcept;
  void insert(Id id) noexcept;
  void erase(Id id) noexcept;
  void grow();
  [[nodiscard]] std::size_t home(std::uint64_t hash) const noexcept { return hash & (places_.size() - 1); }
  [[nodiscard]] static std::size_t payload_words(std::size_t n_words) noexcept { return n_words + (n_words + 3) / 4; }

  std::uint32_t stride_;      ///< words of a tier
  std::uint32_t n_words_{1};  ///< of them in use
  std::vector<Set> sets_;
  Id free_{none};
  std::size_t n_sets_{};
  std::size_t n_forwarding_{};
  std::size_t n_payload_bytes_{};
  std::vector<Id> places_;           ///< open addressing by hash, a power of two, at most half full; 0: nothing
  std::vector<std::uint64_t> bits_;  ///< the set that is being made
  std::vector<std::uint16_t> at_;
  std::size_t n_made_{};
};

}  // namespace infcore::route
