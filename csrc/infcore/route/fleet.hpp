#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/base/ids.hpp>
#include <infcore/contracts/fleet_columns.hpp>
#include <infcore/route/lease_book.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace infcore::route {

using base::ModelId;
using base::NodeId;
using contracts::Signal;

enum class NodeState : std::uint8_t {
  absent,
  up,
  draining,
  lost,
  ejected  ///< alive, but its answers are bad: health took it out for a while
};
inline constexpr std::size_t n_states = 5;
[[nodiscard]] const char* name_of(NodeState state) noexcept;

using Labels = std::vector<std::pair<std::string, std::string>>;

struct NodeSpec {
  std::string name;
  std::string kind{"gpu"};  ///< device class: nodes of one kind are expected to be alike
  std::string zone;
  std::string location{"cloud"};
  std::uint64_t memory_bytes{};
  double price_per_hour{};
  double rtt_s{};
  std::uint32_t slots{1};       ///< batches (or requests) it runs at once
  std::uint32_t pending_max{};  ///< requests in flight at which nothing more is sent there; 0: not bounded
  Labels labels;
};

/// What it takes to make a version of a model resident.
struct ModelSize {
  std::uint64_t weights_bytes{};
  double load_s{};
  std::uint64_t require{};  ///< label bits that a node must have to hold it
};

/// The nodes of a fleet: who is there, what each holds, what it says of itself and how much we have sent it.
///
/// Membership, models and labels change under a mutex, from any thread; signals of one node exclude each other. reserve
/// and release are lock-free, and what scorers read (FleetColumns, inflight, wait_s, state, resident) never waits.
/// Ids are the lowest free; the id of a removed node is used again once the last credit on it is released.
///
/// A fleet with a name is one for all processes of the host that open it: nodes, models, labels and signals are
/// everybody's, and the credit of each counts as long as its heart beats (any timed reserve or release does, and
/// beat()). All use one clock. Who was silent for too long and comes back has its credit back.
class Fleet {
 public:
  static constexpr std::uint32_t models_max = 1024;
  /// The time of a reserve or release whose caller has none: older than any signal.
  static constexpr base::TimeNs untimed = std::numeric_limits<base::TimeNs>::min();
  /// Required by a request, carried by no node.
  static constexpr std::uint64_t no_such_label = std::uint64_t{1} << 63;

  explicit Fleet(std::uint32_t max_nodes, std::uint32_t max_models = models_max);
  /// The fleet of that name; made, where no process has it. Throws InvalidArgument: another max_nodes, max_models or
  /// heartbeat than it was made with, no name, more than 64 processes.
  Fleet(const std::string& shared, std::uint32_t max_nodes, std::uint32_t max_models, base::TimeNs heartbeat_ns,
        base::TimeNs now_ns);
  Fleet(const Fleet&) = delete;
  Fleet& operator=(const Fleet&) = delete;
  /// Takes its credit back; the last process out takes the name away.
  ~Fleet();

  /// Throws InvalidArgument: a field out of bounds, a name in use, more than max_nodes.
  NodeId add(const NodeSpec& spec);
  /// The same under an id that was chosen before: a recorded one. Throws InvalidArgument also where that is taken.
  NodeId add_at(NodeId node, const NodeSpec& spec);
  void drain(NodeId node) { set_state(node, NodeState::draining); }
  void remove(NodeId node) { set_state(node, NodeState::absent); }
  void set_state(NodeId node, NodeState state);

  /// The node's bound of requests in flight from now on; 0: none. A circuit breaker.
  void bound_pending(NodeId node, std::uint32_t pending_max) noexcept;
  /// The same beside it, in powers of two: how a node that comes back is let in by and by. The lower one counts.
  void limit_pending(NodeId node, std::uint32_t limit) noexcept;
  [[nodiscard]] std::uint32_t pending_max(NodeId node) const noexcept;
  /// Takes the figures that are given; false where they are older than what is known.
  bool signal(NodeId node, const Signal& signal) noexcept;
  /// Says that this process lives, and notices which ones no longer do. Nothing in private memory.
  void beat(base::TimeNs now_ns) noexcept;
  /// The same, where the last one is some time ago.
  void beat_if_due(base::TimeNs now_ns) noexcept {
    if (columns_.is_shared() && now_ns >= next_beat_ns_.load(std::memory_order_relaxed)) beat(now_ns);
  }
  /// Processes whose credit counts, this one among them.
  [[nodiscard]] std::uint32_t n_processes() const noexcept;
  /// Takes the name of a shared fleet away: who has it open keeps it, who comes later makes another.
  bool unlink() noexcept { return columns_.unlink(); }
  [[nodiscard]] bool is_shared() const noexcept { return columns_.is_shared(); }

  /// In-flight credit: one request, and the seconds it is predicted to take.
  void reserve(NodeId node, double service_s, base::TimeNs now_ns = untimed) noexcept;
  void release(NodeId node, double service_s, base::TimeNs now_ns = untimed) noexcept;
  /// Several reserves and releases at once: what they come to, the seconds of each as credit_ns() has them.
  void change_credit(NodeId node, const contracts::Credit& by, base::TimeNs now_ns = untimed) noexcept;
  /// The nanoseconds that reserve() adds and release() takes: the same seconds give the same back.
  [[nodiscard]] static std::int64_t credit_ns(double service_s) noexcept;

  /// Credit that end_leases() releases at `end_ns`, unless end_lease() was first. To be taken before the reserve: it is
  /// what may throw.
  LeaseBook::Handle add_lease(NodeId node, double service_s, base::TimeNs end_ns) {
    return leases_.add({node, service_s}, end_ns);
  }
  /// True where the credit is still held: the caller releases it.
  bool end_lease(LeaseBook::Handle lease) noexcept { return leases_.end(lease); }
  /// Releases the credit of every lease of this process that is over.
  void end_leases(base::TimeNs now_ns) noexcept {
    leases_.end_due(now_ns, [this](const LeaseBook::Lease& lease, base::TimeNs end_ns) {
      release(lease.node, lease.service_s, end_ns);
    });
  }

  /// Seconds before a new request would start: the signalled queue wait, plus what we reserved since then per slot.
  [[nodiscard]] double wait_s(NodeId node) const noexcept {
    return static_cast<double>(columns_.pair(node.value, contracts::FleetColumns::wait_inflight).first) * 1e-6;
  }
  /// Signalled in-flight total, plus our reserves and less our releases since its time stamp.
  [[nodiscard]] std::uint32_t inflight(NodeId node) const noexcept {
    return static_cast<std::uint32_t>(columns_.pair(node.value, contracts::FleetColumns::wait_inflight).second);
  }
  [[nodiscard]] NodeState state(NodeId node) const noexcept {
    return static_cast<NodeState>(columns_.state(node.value).load(std::memory_order_acquire));
  }
  [[nodiscard]] bool resident(NodeId node, ModelId model) const noexcept {
    const auto& word = columns_.resident(model.value, node.value / 64);
    return (word.load(std::memory_order_acquire) >> (node.value & 63u) & 1u) != 0;
  }
  [[nodiscard]] double price_per_hour(NodeId node) const noexcept {  // relaxed, as below: written before the up bit
    return columns_.price_per_hour(node.value).load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint32_t slots(NodeId node) const noexcept {
    return columns_.slots(node.value).load(std::memory_order_relaxed);
  }
  /// Device class: equal for nodes of one kind.
  [[nodiscard]] std::uint32_t kind_id(NodeId node) const noexcept {
    return columns_.kind_id(node.value).load(std::memory_order_relaxed);
  }
  /// The version() under which the node was added: another figure later is another node.
  [[nodiscard]] std::uint64_t born(NodeId node) const noexcept {
    return columns_.born(node.value).load(std::memory_order_relaxed);
  }
  /// A copy of the exact figures behind the columns.
  void read(NodeId node, contracts::Credit& own, Signal& last) const noexcept;

  /// Valid until the node is removed.
  [[nodiscard]] const NodeSpec& spec(NodeId node) const noexcept {
    if (columns_.is_shared() && known_born_[node.value] != born(node)) const Hold follow(*this);
    return specs_[node.value];
  }
  /// What `read` makes of the spec of the node that has or had that id, while no other thread changes it.
  template <class Read>
  auto read_spec(NodeId node, Read read) const {
    const Hold hold(*this);
    return read(specs_[node.value]);
  }
  [[nodiscard]] std::uint32_t n_nodes() const noexcept {
    return columns_.header().n_nodes.load(std::memory_order_acquire);
  }
  /// How many nodes are there.
  [[nodiscard]] std::uint32_t n_present() const;
  [[nodiscard]] std::uint32_t max_nodes() const noexcept { return columns_.header().max_nodes; }
  [[nodiscard]] std::uint32_t max_models() const noexcept { return columns_.header().max_models; }
  /// base::no_node where no present node has that name.
  [[nodiscard]] NodeId find(std::string_view name) const;
  /// Counts changes of membership and state.
  [[nodiscard]] std::uint64_t version() const noexcept {
    return columns_.header().version.load(std::memory_order_acquire);
  }

  /// Bits of (key, value) pairs. A node carries its labels and its kind, zone and location. A pair gets its bit when
  /// it is first asked for, with `add` in any case, without only if some node carries it; else no_such_label.
  /// Throws InvalidArgument beyond 63 pairs.
  std::uint64_t label_bits(const Labels& labels, bool add);

  /// The pairs that have a bit, from that bit on.
  [[nodiscard]] Labels labels_from(std::uint32_t bit) const;

  /// The id of a model's version; version 0 is "any version". The first call for a name makes it.
  ModelId model_id(std::string_view name, std::uint32_t version);
  [[nodiscard]] const std::string& model_name(ModelId model) const noexcept { return models_[model.value].name; }
  [[nodiscard]] std::uint32_t model_version(ModelId model) const noexcept { return models_[model.value].version; }
  /// Names and versions known, "any version" of each name included; ids are below it.
  [[nodiscard]] std::uint32_t n_models() const;
  /// Also makes "any version" of it resident, and takes that back with the last version.
  void load_model(NodeId node, ModelId model);
  void unload_model(NodeId node, ModelId model);

  /// Says that the version may be loaded where it is not resident, and what that takes. Throws InvalidArgument.
  void declare_model(ModelId model, const ModelSize& size);
  [[nodiscard]] ModelSize size_of(ModelId model) const noexcept;
  [[nodiscard]] bool is_declared(ModelId model) const noexcept;
  /// Whether any model ever was.
  [[nodiscard]] bool any_declared() const noexcept {
    return columns_.header().any_declared.load(std::memory_order_relaxed) != 0;  // relaxed: a flag
  }
  /// Of each node id: bytes of the declared weights of what it holds.
  [[nodiscard]] std::vector<std::uint64_t> used_bytes() const;
  /// A request asks for the model: who makes room lets go first of what nobody has asked for longest.
  void want(ModelId model, base::TimeNs now_ns) noexcept;
  /// Microseconds before each node could run the model: 0 where it is resident; where it was declared and fits into the
  /// node's memory, its load_s, plus the load_s of what must go to make room, the least recently wanted first, which
  /// has to be loaded again some day; +inf elsewhere. The least of its versions, for "any version". `column` has room
  /// for all nodes, padded to 64. False where no node would have to load it, but those that hold it. O(nodes), and
  /// O(nodes / 64) for each version of any model: for who keeps the column until residency() moves.
  bool load_costs(ModelId model, float* column) const;
  /// A model that a node loads: until ready_ns it takes the rest of that time; from until_ns on it does not any more.
  struct Loading {
    NodeId node;
    base::TimeNs ready_ns, until_ns;
  };
  /// Who sends a request to a node that has to load its model first says so, and everybody counts on that load instead
  /// of having another node load it as well: load_model() or end_load() ends it, or time does, where whoever was to see
  /// to it is gone. False where somebody has said so already, or it is there. Remembers 64 loads at a time.
  bool begin_load(NodeId node, ModelId model, base::TimeNs now_ns);
  /// It does not load it after all.
  void end_load(NodeId node, ModelId model);
  /// Of the model or, for "any version", of its versions.
  [[nodiscard]] std::vector<Loading> loading(ModelId model) const;

  /// Counts changes of who is up and of what nodes hold or could load. What was wanted meanwhile changes the column
  /// with the next one.
  [[nodiscard]] std::uint64_t residency() const noexcept {
    return columns_.header().residency.load(std::memory_order_acquire);
  }

  [[nodiscard]] const contracts::FleetColumns& columns() const noexcept { return columns_; }

 private:
  struct ModelEntry {
    std::string name;
    std::uint32_t version;
    ModelId any;
  };
  /// Device classes of present nodes: of a kind, its id and how many it has.
  struct Kind {
    std::uint32_t id;
    std::uint32_t n_nodes;
  };
  /// The membership lock; what other processes have changed is known under it.
  class Hold {
   public:
    explicit Hold(const Fleet& fleet) : fleet_(fleet) {
      fleet_.columns_.header().membership.lock();
      if (fleet_.columns_.is_shared()) const_cast<Fleet&>(fleet_).follow();
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() { fleet_.columns_.header().membership.unlock(); }

   private:
    const Fleet& fleet_;
  };

  // Under the membership lock.
  NodeId add_locked(NodeId node, const NodeSpec& spec);
  NodeId free_row();
  [[nodiscard]] bool is_free(NodeId node) const noexcept;
  void place(NodeId node, const NodeSpec& spec);
  void changed() noexcept;
  NodeId find_locked(std::string_view name) const;
  void check_present(NodeId node) const;
  void check_model(ModelId model) const;
  void set_resident(NodeId node, ModelId model, bool on) noexcept;
  [[nodiscard]] ModelId version_to_load(ModelId model) const noexcept;
  template <class Which>
  bool forget_loads(Which which) noexcept;
  void end_loads_of(NodeId node, const ModelId* model) noexcept;
  [[nodiscard]] std::vector<ModelId> least_wanted_first() const;
  void load_costs_of_word(ModelId model, std::uint32_t word, std::span<const ModelId> least_wanted,
                          float* column) const;
  bool carries(NodeId node, const std::pair<std::string, std::string>& label) const;
  void clear_sets(NodeId node) noexcept;
  void enter_kind(NodeId node, const std::string& kind);
  void count_kind(const std::string& kind, std::uint32_t id);
  void leave_kind(const std::string& kind) noexcept;
  void know(NodeId node, NodeSpec spec);
  void unknow(NodeId node) noexcept;

  // Of a shared fleet, under the membership lock.
  void follow();
  void write_model(ModelId model);
  void write_label(std::uint32_t bit);
  void enter(base::TimeNs now_ns);
  template <class IsOurs, class IsSilent>
  void look_around(base::TimeNs now_ns, IsOurs is_ours, IsSilent is_silent) noexcept;
  void set_alive(std::uint32_t process, bool on) noexcept;

  void reset_credit(NodeId node) noexcept;
  [[nodiscard]] contracts::Credit own_of(NodeId node) const noexcept;
  [[nodiscard]] contracts::Credit own_then(NodeId node, base::TimeNs at_ns) const noexcept;
  [[nodiscard]] std::uint64_t load_of(NodeId node) const noexcept;
  void publish_load(NodeId node) noexcept;
  void publish_signals(NodeId node) noexcept;

  contracts::FleetColumns columns_;
  std::vector<NodeSpec> specs_;
  std::unordered_map<std::string, NodeId> ids_;  // of the present nodes, by name
  NodeId lowest_absent_{0};                      // every lower id is a present node's
  Labels labels_;                                // index = bit
  std::vector<ModelEntry> models_;
  std::unordered_map<std::string, Kind> kinds_;
  std::vector<std::uint8_t> kind_taken_;  // by id
  std::uint32_t lowest_kind_{};           // every lower id is taken
  LeaseBook leases_;

  // Of a shared fleet.
  std::atomic<std::uint32_t> process_{};  // our slot; another one where somebody took us for dead and it was needed
  std::atomic<std::uint64_t> token_{};
  std::uint32_t built_under_{};
  std::atomic<base::TimeNs> next_beat_ns_{};
  std::uint64_t known_version_{};
  std::vector<std::uint64_t> known_born_;  // of the spec that we know; 0: none
};

}  // namespace infcore::route
