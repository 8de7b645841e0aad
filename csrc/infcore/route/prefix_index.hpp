#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/base/ids.hpp>
#include <infcore/route/fleet.hpp>
#include <infcore/route/prefix_table.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace infcore::route {

struct PrefixConfig {
  std::uint32_t max_nodes{1024};
  std::uint32_t max_blocks{1u << 20};  ///< 1 to PrefixTable::max_blocks_most; at most 40 bytes each
  /// What a block on the host or on disk saves, as a part of one on the device, 0 to 1. A token of a model of 8 billion
  /// parameters has 128 KiB of keys and values (32 layers, 8 heads of 128, 2 bytes): 5 us from the host at 25 GB/s,
  /// where computing it takes 20 us (50,000 tokens/s); 15 us from two NVMe disks at 8 GB/s.
  float host_credit{0.75f};
  float disk_credit{0.25f};
  /// Also believe one's own picks, for nodes that tell nothing themselves: picked(), forgotten between ttl / 2 and ttl
  /// after the last time. Takes the memory of three more indices.
  bool approximate{};
  base::TimeNs ttl_ns{120'000'000'000};  ///< as long as NVIDIA Dynamo's router believes its own
};

struct PrefixStats {
  std::size_t n_blocks{};         ///< with a holder, of what nodes said
  std::size_t n_picked_blocks{};  ///< of what is believed of one's own picks; a block may be counted twice
  std::uint64_t n_evicted{};      ///< of what nodes said
  std::size_t n_bytes{};
};

/// Which node holds which prefix: a replica of what the nodes say, or a guess from one's own picks.
///
/// A node that said anything itself (stored, removed, cleared) is believed from then on, and picks of it are not. Node
/// ids of a fleet are used again: follow() forgets what a former node held.
///
/// Reads: a comparison a block, and O(nodes / 64) where the holders change. Writes, memory and bounds: PrefixTable. One
/// thread at a time. No clock.
class PrefixIndex {
 public:
  using NodeId = base::NodeId;

  /// Throws InvalidArgument.
  explicit PrefixIndex(const PrefixConfig& config);

  // Precondition of all: node < max_nodes. `blocks`: chained hashes, each of the block right after the one before.
  /// `after`: the block before the first, where blocks.front() is not the first of its prompt; null: none, or not
  /// known. Returns how many of them are held now: fewer only where the whole index is full of this very prefix.
  std::size_t stored(NodeId node, std::span<const std::uint64_t> blocks, KvTier tier = KvTier::device,
                     const std::uint64_t* after = nullptr);
  /// Returns how many of them it held there.
  std::size_t removed(NodeId node, std::span<const std::uint64_t> blocks, KvTier tier = KvTier::device);
  void cleared(NodeId node) noexcept;
  /// A request with these blocks, all that its prompt has, was sent to the node. Nothing where not approximate.
  void picked(NodeId node, std::span<const std::uint64_t> blocks, base::TimeNs now_ns);
  /// Forgets picks that are too old by now. Cheap.
  void advance(base::TimeNs now_ns) noexcept {
    if (young_ && now_ns >= turn_ns_) turn(now_ns);
  }
  /// Forgets the nodes of a fleet that are gone. Cheap where the fleet did not change. `fleet`: the same in every call.
  void follow(const Fleet& fleet) noexcept {
    if (fleet.version() != version_) forget_gone(fleet);
  }

  /// column[node] = how many leading blocks it holds, each counted by the credit of the tier where it is nearest; 0 for
  /// all others. True where it is not 0 everywhere. Precondition: column.size() is a multiple of 64, and no more than
  /// max_nodes padded to it. Nodes beyond it are left out.
  bool held(std::span<const std::uint64_t> blocks, std::span<float> column) const noexcept;
  /// The nodes with at least one, by id, and how many leading blocks they hold anywhere. The spans stay good until the
  /// next call.
  struct Match {
    std::span<const std::int32_t> nodes;
    std::span<const std::int32_t> held;
  };
  [[nodiscard]] Match match(std::span<const std::uint64_t> blocks) const noexcept;

  [[nodiscard]] const PrefixConfig& config() const noexcept { return config_; }
  [[nodiscard]] PrefixStats stats() const noexcept;

 private:
  template <class Depth>
  bool depths(const PrefixTable& table, std::span<const std::uint64_t> blocks, std::span<Depth> column) const noexcept;
  void take_credit(const NodeSets& sets, NodeSets::Id id, std::size_t n_blocks, std::span<float> column) const noexcept;
  void believe(NodeId node) noexcept;
  void forget(NodeId node) noexcept;
  void turn(base::TimeNs now_ns) noexcept;
  void forget_gone(const Fleet& fleet) noexcept;

  PrefixConfig config_;
  PrefixTable exact_;
  std::unique_ptr<PrefixTable> young_, old_;  ///< by picks of this and of the last half of ttl; null: not approximate
  std::unique_ptr<PrefixTable> spare_;        ///< what was old: emptied bit by bit, so that no pick waits for all of it
  base::TimeNs turn_ns_{base::never_ns};      ///< when the young ones become old
  std::vector<bool> says_;                    ///< nodes that were heard of
  std::vector<bool> known_;                   ///< nodes that anything is kept of
  std::vector<std::uint64_t> born_;           ///< Fleet::born of them
  std::uint64_t version_{};
  // Of a read, so that it allocates nothing.
  mutable std::vector<std::uint64_t> alive_, next_, host_;
  mutable std::vector<float> other_column_;
  mutable std::vector<std::int32_t> depth_, other_depth_, nodes_, held_;
};

}  // namespace infcore::route
