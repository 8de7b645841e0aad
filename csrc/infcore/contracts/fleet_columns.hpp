#pragma once
#include <infcore/base/mapped_block.hpp>
#include <infcore/base/robust_mutex.hpp>
#include <infcore/contracts/node_credit.hpp>
#include <infcore/contracts/published_block.hpp>

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>

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
/// 64 nodes, of which a reader keeps its own copy. Sets of nodes (up, resident, labelled) are bit rows of 64 nodes a
/// word. The row of a new node is written before its `up` bit is set [F2], and readers look at `up` first.
///
/// The class holds the block, private or shared under a name with other processes of the host, and computes where
/// columns begin. A process has a credit cell of its own on each node, and so a slot; in private memory there is one.
class FleetColumns {
 public:
  static constexpr std::uint32_t layout_version = 5;
  static constexpr std::uint32_t block_nodes = 64;
  static constexpr std::uint32_t n_labels = 64;
  static constexpr std::uint32_t processes_max = 64;
  static constexpr std::uint32_t n_signal_locks = 64;
  /// Bytes for what is written in a shared fleet's node (name, kind, zone, location, labels), label, model.
  static constexpr std::uint32_t node_text_bytes = 256;
  static constexpr std::uint32_t label_text_bytes = 128;
  static constexpr std::uint32_t model_text_bytes = 128;

  /// The words of a block: a FloatPair for each node.
  enum Word : std::uint32_t {
    wait_inflight,     ///< {waiting in microseconds, requests in flight}
    pressure_network,  ///< {share of a service time that a busy node adds, network in microseconds}
    others_bound,      ///< {others' requests ahead of a new one per slot, where no signalled wait covers them;
                       ///< requests in flight at which nothing more is sent, +inf where there is no bound}
    heard_at,          ///< the time stamp of its newest signal, nanoseconds as an int64; Fleet::untimed: never heard of
    error_rate,        ///< {share of its requests that fail, as it says itself; 0}
    n_words_of_block
  };
  using Block = PublishedBlock<block_nodes, n_words_of_block>;

  /// What it takes to make a model's version resident, as it was declared.
  struct ModelFacts {
    std::atomic<std::uint32_t> declared{};  ///< 1: it may be loaded where it is not resident
    std::atomic<std::uint64_t> weights_bytes{};
    std::atomic<double> load_us{};
    std::atomic<std::uint64_t> require{};  ///< label bits that a node must have to hold it
  };

  /// A model that a node was told to load and does not hold yet. Read and written under the membership lock.
  struct Loading {
    std::uint32_t in_use;  ///< 0: the rest is of no account
    std::uint32_t model, node;
    base::TimeNs ready_ns;  ///< when it should be there
    base::TimeNs until_ns;  ///< from when on nobody waits for it any more
  };
  static constexpr std::uint32_t loadings_max = 64;

  /// A process that shares the fleet.
  struct Process {
    std::atomic<std::uint64_t> token;  ///< whose the slot is or was, a figure of its own each time; 0: never used
    std::atomic<base::TimeNs> beat_ns;
  };

  struct Header {
    std::uint64_t magic;  ///< refuses a block that is something else
    std::uint32_t layout;
    std::uint32_t max_nodes;
    std::uint32_t max_models;
    std::uint32_t n_labels;                   ///< that have a bit
    std::uint32_t n_models;                   ///< names and versions
    base::TimeNs heartbeat_ns;                ///< after which a silent process counts as dead
    std::atomic<std::uint32_t> n_nodes;       ///< upper bound of the ids in use
    std::atomic<std::uint64_t> version;       ///< counts membership changes
    std::atomic<std::uint64_t> residency;     ///< counts changes of who is up and what nodes hold or could load
    std::atomic<std::uint64_t> alive;         ///< a bit for each process whose credit counts
    std::atomic<std::uint32_t> bounded;       ///< 1 once some node had a bound of requests in flight
    std::atomic<std::uint32_t> signalled;     ///< 1 once some node said something of itself
    std::atomic<std::uint32_t> any_declared;  ///< 1 once some model had its size told
    std::uint64_t last_token;
    base::RobustMutex membership;
    std::array<base::RobustMutex, n_signal_locks> signals;  ///< of the nodes with that id modulo their number
    std::array<Process, processes_max> processes;
    std::array<Loading, loadings_max> loadings;
  };

  FleetColumns(std::uint32_t max_nodes, std::uint32_t max_models);
  /// The fleet of that name, made where no process has it. Until settle() nobody else gets it open.
  /// Throws InvalidArgument: the name is something else's, or was made with other sizes.
  FleetColumns(const std::string& name, std::uint32_t max_nodes, std::uint32_t max_models, base::TimeNs heartbeat_ns);

  void settle() noexcept { block_.settle(); }
  bool unlink() noexcept { return block_.unlink(); }
  [[nodiscard]] bool is_shared() const noexcept { return block_.is_shared(); }
  [[nodiscard]] std::size_t bytes() const noexcept { return block_.bytes(); }

  [[nodiscard]] Header& header() const noexcept { return *header_; }
  [[nodiscard]] std::uint32_t n_words() const noexcept { return n_words_; }

  [[nodiscard]] Block& block(std::uint32_t index) const noexcept { return blocks_[index]; }
  /// One pair of the node's row in its block; for readers that want this one only, and need no order.
  [[nodiscard]] FloatPair pair(std::uint32_t node, std::uint32_t word) const noexcept {
    return unpack(blocks_[node / block_nodes].get(node % block_nodes, word));
  }
  /// The time stamp of the node's newest signal.
  [[nodiscard]] base::TimeNs heard_at_ns(std::uint32_t node) const noexcept {
    return std::bit_cast<base::TimeNs>(blocks_[node / block_nodes].get(node % block_nodes, heard_at));
  }
  [[nodiscard]] std::atomic<double>& price_per_hour(std::uint32_t node) const noexcept { return price_[node]; }
  [[nodiscard]] std::atomic<std::uint32_t>& slots(std::uint32_t node) const noexcept { return slots_[node]; }
  [[nodiscard]] std::atomic<std::uint64_t>& memory_bytes(std::uint32_t node) const noexcept { return memory_[node]; }
  /// Device class: equal for nodes that are expected to be alike.
  [[nodiscard]] std::atomic<std::uint32_t>& kind_id(std::uint32_t node) const noexcept { return kind_id_[node]; }
  /// The version under which the node was added; another figure later is another node.
  [[nodiscard]] std::atomic<std::uint64_t>& born(std::uint32_t node) const noexcept { return born_[node]; }
  [[nodiscard]] std::atomic<std::uint8_t>& state(std::uint32_t node) const noexcept { return state_[node]; }
  [[nodiscard]] NodeRow& row(std::uint32_t node) const noexcept { return rows_[node]; }
  [[nodiscard]] CreditCell<>& cell(std::uint32_t process, std::uint32_t node) const noexcept {
    return cells_[std::size_t{process} * max_nodes_ + node];
  }
  [[nodiscard]] base::RobustMutex& signal_lock(std::uint32_t node) const noexcept {
    return header_->signals[node % n_signal_locks];
  }
  // Of a shared fleet, under the membership lock.
  [[nodiscard]] char* node_text(std::uint32_t node) const noexcept {
    return node_texts_ + std::size_t{node} * node_text_bytes;
  }
  [[nodiscard]] char* label_text(std::uint32_t bit) const noexcept {
    return label_texts_ + std::size_t{bit} * label_text_bytes;
  }
  [[nodiscard]] char* model_text(std::uint32_t model) const noexcept {
    return model_texts_ + std::size_t{model} * model_text_bytes;
  }

  [[nodiscard]] std::atomic<std::uint64_t>& up(std::uint32_t word) const noexcept { return up_[word]; }
  [[nodiscard]] std::atomic<std::uint64_t>& resident(std::uint32_t model, std::uint32_t word) const noexcept {
    return resident_[std::size_t{model} * n_words_ + word];
  }
  [[nodiscard]] ModelFacts& facts(std::uint32_t model) const noexcept { return facts_[model]; }
  /// When a request last asked for the model, to some milliseconds.
  [[nodiscard]] std::atomic<base::TimeNs>& wanted_ns(std::uint32_t model) const noexcept { return wanted_[model]; }
  [[nodiscard]] std::atomic<std::uint64_t>& labelled(std::uint32_t bit, std::uint32_t word) const noexcept {
    return labelled_[std::size_t{bit} * n_words_ + word];
  }
  /// Of 64 nodes, those that have every label of `require`.
  [[nodiscard]] std::uint64_t labelled_all(std::uint64_t require, std::uint32_t word) const noexcept {
    std::uint64_t passing = ~std::uint64_t{0};
    for (std::uint64_t left = require; left != 0; left &= left - 1)
      passing &= labelled(static_cast<std::uint32_t>(std::countr_zero(left)), word).load(std::memory_order_acquire);
    return passing;
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
  T* place(std::byte* block, std::size_t& at, std::size_t count);
  std::size_t lay_out(std::byte* block);
  void start(std::uint32_t max_nodes);

  std::uint32_t max_nodes_;
  std::uint32_t max_models_;
  std::uint32_t n_words_;
  std::uint32_t n_processes_;
  base::MappedBlock block_;

  Header* header_{};
  Block* blocks_{};
  std::atomic<double>* price_{};
  std::atomic<std::uint32_t>* slots_{};
  std::atomic<std::uint64_t>* memory_{};
  std::atomic<std::uint32_t>* kind_id_{};
  std::atomic<std::uint64_t>* born_{};
  std::atomic<std::uint8_t>* state_{};
  std::atomic<std::uint64_t>* up_{};
  std::atomic<std::uint64_t>* resident_{};
  std::atomic<std::uint64_t>* labelled_{};
  ModelFacts* facts_{};
  std::atomic<base::TimeNs>* wanted_{};
  NodeRow* rows_{};
  CreditCell<>* cells_{};
  char* node_texts_{};
  char* label_texts_{};
  char* model_texts_{};

  static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<double>::is_always_lock_free);
};

}  // namespace infcore::contracts
