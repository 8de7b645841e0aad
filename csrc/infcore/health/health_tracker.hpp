#pragma once
#include <infcore/contracts/fleet_columns.hpp>
#include <infcore/contracts/node_health.hpp>
#include <infcore/health/answer_history.hpp>
#include <infcore/health/class_pace.hpp>

#include <cstdint>
#include <memory>
#include <vector>

namespace infcore::health {

/// Ejects nodes whose answers are worse than their peers', and lets them in again by and by.
///
/// A node is taken out for so many errors in a row, for its share of errors, or for grey failure: it answers, but
/// takes a multiple of what its class takes (ClassPace). Each of them only where the other nodes' answers of the same
/// time are better: what all nodes have, a bad input, a slow network, an overload, is no node's fault. It comes back
/// half open after a time that doubles with each ejection, has to answer a few requests one at a time, and then gets
/// more step by step. Of the nodes that are there, and of those that hold a model, at most a configured share is out at
/// a time; where nodes are lost meanwhile, the least bad of those that are out come back for them at once.
///
/// Whom it judges "slower than its class" from its first answers on is a guess: the class may be one of unlike
/// machines. So that wants three other nodes to compare with, and at most a quarter of the class like it: then the
/// capacity given up is less than 1 / (3 * slow_factor) of the class's.
///
/// Cost: an answer about 20 ns; an ejection O(nodes of the class + models * nodes / 64). Memory: 120 bytes a node.
class HealthTracker final : public contracts::NodeHealth {
 public:
  /// Throws InvalidArgument for a figure out of bounds. The columns outlive it.
  HealthTracker(const contracts::FleetColumns&, const contracts::HealthConfig&);

  void joined(base::NodeId, std::uint64_t alike) override;
  void left(base::NodeId) override;
  void answered(base::TimeNs now_ns, const contracts::Answer&, const contracts::LatencyTable&) override;
  void lost(base::TimeNs now_ns, base::NodeId) override;
  void back(base::TimeNs now_ns, base::NodeId) override;
  void checked(base::TimeNs now_ns, base::NodeId, bool ok) override;
  void seen_elsewhere(base::TimeNs now_ns, base::NodeId, bool ejected) override;
  void members_changed(base::TimeNs now_ns) override;
  void tick(base::TimeNs now_ns) override;
  [[nodiscard]] base::TimeNs next_ns() const noexcept override { return next_ns_; }
  [[nodiscard]] contracts::HealthStatus status(base::NodeId) const noexcept override;
  [[nodiscard]] bool expected(base::ModelId, base::NodeId, contracts::Curve&) const noexcept override;
  [[nodiscard]] bool suspect(base::NodeId) const noexcept override;
  void check_due(base::TimeNs now_ns, std::vector<base::NodeId>&) override;
  [[nodiscard]] bool wants_check(base::TimeNs now_ns, base::NodeId) override;
  /// Classes that are remembered: of nodes that are there, or were.
  [[nodiscard]] std::size_t n_classes() const noexcept { return alike_.size(); }

 private:
  using Stage = contracts::HealthStage;
  using Why = contracts::EjectedFor;
  struct Row {
    AnswerHistory errors, slow, apart;
    base::TimeNs last_ns{}, until_ns{base::never_ns}, well_since_ns{}, checked_ns{};
    std::uint32_t in_a_row{};  ///< errors
    std::uint32_t n_ejections{}, n_good{}, step{};
    std::uint32_t n_unasked{};  ///< answers before it is looked at again whether the node may be ejected
    Stage stage{};
    Why why{};
  };
  void learn(base::TimeNs now_ns, Row&, const contracts::Answer&, const Pace&);
  void probed(base::TimeNs now_ns, std::uint32_t node, bool good);
  [[nodiscard]] Why bad(std::uint32_t node) const noexcept;
  [[nodiscard]] bool errs(std::uint32_t node, Why&) const noexcept;
  [[nodiscard]] bool lags(std::uint32_t node, Why&) const noexcept;
  [[nodiscard]] bool stands_alone(std::uint32_t node) const noexcept;
  void eject(base::TimeNs now_ns, std::uint32_t node, Why, base::TimeNs for_ns);
  void resume(base::TimeNs now_ns, std::uint32_t node);
  void enter(std::uint32_t node, Stage, std::uint32_t pending_max, base::TimeNs until_ns);
  void put_well(base::TimeNs now_ns, std::uint32_t node);
  void count_ejection(base::TimeNs now_ns, Row&) noexcept;
  [[nodiscard]] base::TimeNs ejection_ns(std::uint32_t n_ejections) const noexcept;
  [[nodiscard]] bool may_eject(std::uint32_t node) const noexcept;
  [[nodiscard]] bool is_needed(std::uint32_t node) const noexcept;
  [[nodiscard]] std::uint32_t least_bad() const noexcept;
  template <class Visit>
  bool any_set_of(std::uint32_t node, Visit) const noexcept;
  [[nodiscard]] std::uint32_t share_of(std::uint32_t n) const noexcept;
  void set_next() noexcept;

  const contracts::FleetColumns& columns_;
  contracts::HealthConfig config_;
  std::vector<Row> rows_;
  std::vector<std::uint64_t> alike_;          // by class, at most as many as the fleet may have nodes
  std::vector<std::uint32_t> n_of_class_;     // nodes
  std::vector<std::uint32_t> watched_;        // nodes that are neither well nor lost, ascending
  std::vector<std::uint64_t> out_, bounded_;  // nodes that are ejected; half open or in slow start: 64 a word
  PeerHistory errors_;                        // of the fleet
  std::vector<PeerHistory> slow_;             // by class
  ClassPace pace_;
  base::TimeNs next_ns_{base::never_ns};
  bool members_changed_{};
};

[[nodiscard]] std::unique_ptr<contracts::NodeHealth> make_health_tracker(const contracts::FleetColumns&,
                                                                         const contracts::HealthConfig&);

}  // namespace infcore::health
