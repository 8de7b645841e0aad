#pragma once
#include <infcore/contracts/node_credit.hpp>
#include <infcore/contracts/published_block.hpp>

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace infcore::contracts {

/// Two figures that belong together, published as one atomic word.
struct FloatPair {
  float first{};
  float second{};
};
[[nodiscard]] inline std::uint64_t pack(FloatPair p) noexcept { return std::bit_cast<std::uint64_t>(p); }
[[nodiscard]] inline FloatPair unpack(std::uint64_t word) noexcept { return std::bit_cast<FloatPair>(word); }

/// The fleet as scorers see it: one block without pointers, of fixed capacity, in columns.
///
/// Any number of readers and writers; readers never wait. What changes per request or signal is published in blocks of
/// 16 nodes, of which a reader keeps its own copy. Sets of nodes (up, resident, labelled) are bit rows of 64 nodes a
/// word. The row of a new node is written before its `up` bit is set [F2], and readers look at `up` first.
///
/// The class holds the block and computes where columns begin; what is inside would work in shared memory.
class FleetColumns {
 public:
  static constexpr std::uint32_t layout_version = 1;
  static constexpr std::uint32_t block_nodes = 16;
  static constexpr std::uint32_t n_labels = 64;

  /// The words of a block: a FloatPair for each node.
  enum Word : std::uint32_t {
    wait_inflight,     ///< {waiting in microseconds, requests in flight}
    pressure_network,  ///< {share of a service time that a busy node adds, network in microseconds}
    others_bound,      ///< {others' requests ahead of a new one per slot, where no signalled wait covers them;
                       ///< requests in flight at which nothing more is sent, +inf where there is no bound}
    n_words_of_block
  };
  using Block = PublishedBlock<block_nodes, n_words_of_block>;

  struct Header {
    std::uint64_t magic{0x31656574666e69ull};  // "infeet1": refuses a block that is something else
    std::uint32_t layout{layout_version};
    std::uint32_t max_nodes{};
    std::uint32_t max_models{};
    std::atomic<std::uint32_t> n_nodes{};  ///< upper bound of the ids in use
    std::atomic<std::uint64_t> version{};  ///< counts membership changes
    std::atomic<std::uint32_t> bounded{};    ///< 1 once some node had a bound of requests in flight
    std::atomic<std::uint32_t> signalled{};  ///< 1 once some node said something of itself
  };

  FleetColumns(std::uint32_t max_nodes, std::uint32_t max_models);

  [[nodiscard]] Header& header() const noexcept { return *header_; }
  [[nodiscard]] std::uint32_t n_words() const noexcept { return n_words_; }

  [[nodiscard]] Block& block(std::uint32_t index) const noexcept { return blocks_[index]; }
  /// One pair of the node's row in its block; for readers that want this one only, and need no order.
  [[nodiscard]] FloatPair pair(std::uint32_t node, std::uint32_t word) const noexcept {
    return unpack(blocks_[node / block_nodes].get(node % block_nodes, word));
  }
  [[nodiscard]] std::atomic<double>& price_per_hour(std::uint32_t node) const noexcept { return price_[node]; }
  [[nodiscard]] std::atomic<std::uint32_t>& slots(std::uint32_t node) const noexcept { return slots_[node]; }
  /// Device class: equal for nodes that are expected to be alike.
  [[nodiscard]] std::atomic<std::uint32_t>& kind_id(std::uint32_t node) const noexcept { return kind_id_[node]; }
  /// The version under which the node was added; another figure later is another node.
  [[nodiscard]] std::atomic<std::uint64_t>& born(std::uint32_t node) const noexcept { return born_[node]; }
  [[nodiscard]] std::atomic<std::uint8_t>& state(std::uint32_t node) const noexcept { return state_[node]; }
  [[nodiscard]] NodeCredit& credit(std::uint32_t node) const noexcept { return credit_[node]; }

  [[nodiscard]] std::atomic<std::uint64_t>& up(std::uint32_t word) const noexcept { return up_[word]; }
  [[nodiscard]] std::atomic<std::uint64_t>& resident(std::uint32_t model, std::uint32_t word) const noexcept {
    return resident_[std::size_t{model} * n_words_ + word];
  }
  [[nodiscard]] std::atomic<std::uint64_t>& labelled(std::uint32_t bit, std::uint32_t word) const noexcept {
    return labelled_[std::size_t{bit} * n_words_ + word];
  }
  /// Whether the node has every label of `require`, a bit each.
  [[nodiscard]] bool carries(std::uint32_t node, std::uint64_t require) const noexcept {
    for (std::uint64_t left = require; left != 0; left &= left - 1) {
      const auto bit = static_cast<std::uint32_t>(std::countr_zero(left));
      if ((labelled(bit, node / 64).load(std::memory_order_acquire) >> (node % 64) & 1u) == 0) return false;
    }
    return true;
  }

 private:
  template <class T>
  T* place(std::size_t count);
  void lay_out();

  struct Release {
    void operator()(std::byte* block) const noexcept;
  };
  std::unique_ptr<std::byte[], Release> block_;
  std::size_t used_bytes_{};  // while laying out; without a block only sizes are added up
  std::uint32_t max_nodes_;
  std::uint32_t max_models_;
  std::uint32_t n_words_;

  Header* header_{};
  Block* blocks_{};
  std::atomic<double>* price_{};
  std::atomic<std::uint32_t>* slots_{};
  std::atomic<std::uint32_t>* kind_id_{};
  std::atomic<std::uint64_t>* born_{};
  std::atomic<std::uint8_t>* state_{};
  std::atomic<std::uint64_t>* up_{};
  std::atomic<std::uint64_t>* resident_{};
  std::atomic<std::uint64_t>* labelled_{};
  NodeCredit* credit_{};

  static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<double>::is_always_lock_free);
};

}  // namespace infcore::contracts
