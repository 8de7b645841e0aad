#pragma once
#include <infcore/contracts/node_health.hpp>
#include <infcore/route/fleet.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace infcore::route {

/// The health of a fleet's nodes, for all routers over it: each tells what it saw of an answer, one judges all of that,
/// and what follows is done to the fleet, where every router sees it. A node's state and bound of pending requests are
/// the fleet's; why it is out and until when is kept here.
///
/// A node that another process has ejected is out here, too; should that process be gone, it is let in half open after
/// the longest time that one is ejected for.
///
/// Any thread; calls are serialised by a mutex, but for due(). The fleet outlives it.
class HealthGate {
 public:
  HealthGate(Fleet& fleet, std::unique_ptr<contracts::NodeHealth> health);

  /// Before each pick: costs one load where nothing is due.
  void tick(base::TimeNs now_ns) {
    if (now_ns >= due_ns_.load(std::memory_order_relaxed)) act(now_ns);  // relaxed: a tick too late is the next one's
  }
  void answered(base::TimeNs now_ns, const contracts::Answer&, const contracts::LatencyTable&);
  void checked(base::TimeNs now_ns, NodeId, bool ok);
  /// The ejected nodes that somebody should ask how they are, and report() it: each once a second.
  void check_due(base::TimeNs now_ns, std::vector<NodeId>&);
  /// The fleet's members or their states have changed.
  void follow(base::TimeNs now_ns);

  [[nodiscard]] contracts::HealthStatus status(NodeId);
  /// How often the node was let in half open because it had been too slow: then its curves start again.
  [[nodiscard]] std::uint32_t n_restarts(NodeId node) const noexcept {
    return n_restarts_[node.value].load(std::memory_order_relaxed);
  }
  [[nodiscard]] bool expected(ModelId, NodeId, contracts::Curve&);
  /// "for errors in a row, until 12.5 s" of each node that health has taken out, by name; at most eight of them.
  [[nodiscard]] std::string why_out();
  [[nodiscard]] std::string why_out(NodeId);
  [[nodiscard]] const Fleet& fleet() const noexcept { return *fleet_; }

 private:
  void act(base::TimeNs now_ns);
  void follow_locked(base::TimeNs now_ns);
  void settle(base::TimeNs now_ns);
  void carry_out();

  Fleet* fleet_;
  std::mutex mutex_;
  std::unique_ptr<contracts::NodeHealth> health_;
  std::atomic<base::TimeNs> due_ns_{base::never_ns};
  std::uint64_t version_{};
  std::vector<std::uint64_t> born_;
  std::vector<std::atomic<std::uint32_t>> n_restarts_;
};

[[nodiscard]] std::shared_ptr<HealthGate> make_health_gate(Fleet& fleet, std::unique_ptr<contracts::NodeHealth> health);

/// Nodes of one kind, price and number of slots are expected to be equally fast: machines that differ in speed are
/// hardly ever alike in these.
[[nodiscard]] std::uint64_t alike(const Fleet& fleet, NodeId node) noexcept;

}  // namespace infcore::route
