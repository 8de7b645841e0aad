#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/base/ids.hpp>
#include <infcore/contracts/fleet_columns.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
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

/// The nodes of a fleet: who is there, what each holds, what it says of itself and how much we have sent it.
///
/// Membership, models and labels change under a mutex, from any thread. signal, reserve and release lock one node's
/// row for a few dozen instructions. What scorers read (FleetColumns, inflight, wait_s, state, resident) never waits.
/// Ids are the lowest free; the id of a removed node is used again once the last credit on it is released.
class Fleet {
 public:
  static constexpr std::uint32_t models_max = 1024;
  /// The time of a reserve or release whose caller has none: as old as the one before it.
  static constexpr base::TimeNs untimed = std::numeric_limits<base::TimeNs>::min();
  /// Required by a request, carried by no node.
  static constexpr std::uint64_t no_such_label = std::uint64_t{1} << 63;

  explicit Fleet(std::uint32_t max_nodes, std::uint32_t max_models = models_max);

  /// Throws InvalidArgument: a field out of bounds, a name in use, more than max_nodes.
  NodeId add(const NodeSpec& spec);
  /// The same under an id that was chosen before: a recorded one. Throws InvalidArgument also where that is taken.
  NodeId add_at(NodeId node, const NodeSpec& spec);
  void drain(NodeId node) { set_state(node, NodeState::draining); }
  void remove(NodeId node) { set_state(node, NodeState::absent); }
  void set_state(NodeId node, NodeState state);

  /// The node's bound of requests in flight from now on; 0: none. A circuit breaker, or how a node that comes back is
  /// let in by and by.
  void bound_pending(NodeId node, std::uint32_t pending_max) noexcept;
  /// Takes the figures that are given; false where they are older than what is known.
  bool signal(NodeId node, const Signal& signal) noexcept;
  /// In-flight credit: one request, and the seconds it is predicted to take.
  void reserve(NodeId node, double service_s, base::TimeNs now_ns = untimed) noexcept;
  void release(NodeId node, double service_s, base::TimeNs now_ns = untimed) noexcept;
  /// Several reserves and releases at once: what they come to, the seconds of each as credit_ns() has them.
  void change_credit(NodeId node, const contracts::Credit& by, base::TimeNs now_ns = untimed) noexcept;
  /// The nanoseconds that reserve() adds and release() takes: the same seconds give the same back.
  [[nodiscard]] static std::int64_t credit_ns(double service_s) noexcept;

  /// Seconds before a new request would start: the signalled queue wait, plus what we reserved since then per slot.
  [[nodiscard]] double wait_s(NodeId node) const noexcept;
  /// Signalled in-flight total, plus our reserves and less our releases since its time stamp.
  [[nodiscard]] std::uint32_t inflight(NodeId node) const noexcept;
  [[nodiscard]] NodeState state(NodeId node) const noexcept;
  [[nodiscard]] bool resident(NodeId node, ModelId model) const noexcept;
  [[nodiscard]] double price_per_hour(NodeId node) const noexcept;
  [[nodiscard]] std::uint32_t slots(NodeId node) const noexcept;
  /// Device class: equal for nodes of one kind.
  [[nodiscard]] std::uint32_t kind_id(NodeId node) const noexcept;
  /// The version() under which the node was added: another figure later is another node.
  [[nodiscard]] std::uint64_t born(NodeId node) const noexcept;
  /// A copy of the exact figures behind the columns.
  void read(NodeId node, contracts::Credit& own, Signal& last) const noexcept;

  /// Valid until the node is removed.
  [[nodiscard]] const NodeSpec& spec(NodeId node) const noexcept { return specs_[node.value]; }
  /// What `read` makes of the spec of the node that has or had that id, while no other thread changes it.
  template <class Read>
  auto read_spec(NodeId node, Read read) const {
    const std::lock_guard hold(membership_);
    return read(spec(node));
  }
  [[nodiscard]] std::uint32_t n_nodes() const noexcept;
  [[nodiscard]] std::uint32_t max_nodes() const noexcept { return columns_.header().max_nodes; }
  [[nodiscard]] std::uint32_t max_models() const noexcept { return columns_.header().max_models; }
  /// base::no_node where no present node has that name.
  [[nodiscard]] NodeId find(std::string_view name) const;
  /// Counts changes of membership and state.
  [[nodiscard]] std::uint64_t version() const noexcept;

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

  [[nodiscard]] const contracts::FleetColumns& columns() const noexcept { return columns_; }

 private:
  struct ModelEntry {
    std::string name;
    std::uint32_t version;
    ModelId any;
  };
  NodeId free_row();
  [[nodiscard]] bool is_free(NodeId node) const noexcept;
  void place(NodeId node, const NodeSpec& spec);
  NodeId find_locked(std::string_view name) const;
  void check_present(NodeId node) const;
  void check_model(ModelId model) const;
  bool carries(NodeId node, const std::pair<std::string, std::string>& label) const;
  void clear_sets(NodeId node) noexcept;
  std::uint32_t kind_id_of(const std::string& kind, NodeId node) const noexcept;
  void reset_credit(NodeId node) noexcept;
  void publish(NodeId node) noexcept;
  void publish_signals(NodeId node) noexcept;

  contracts::FleetColumns columns_;
  mutable std::mutex membership_;
  std::vector<NodeSpec> specs_;
  std::unordered_map<std::string, NodeId> ids_;  // of the present nodes, by name
  NodeId lowest_absent_{0};                      // every lower id is a present node's
  Labels labels_;                                // index = bit
  std::vector<ModelEntry> models_;
};

}  // namespace infcore::route
