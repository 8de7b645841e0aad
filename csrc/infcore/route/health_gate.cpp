#include <infcore/route/health_gate.hpp>

#include <bit>
#include <utility>

namespace infcore::route {

using contracts::HealthStage;

std::uint64_t alike(const Fleet& fleet, NodeId node) noexcept {
  constexpr std::uint64_t mix = 0x9E37'79B9'7F4A'7C15u;  // odd, so that no bit of a part is lost
  std::uint64_t key = fleet.kind_id(node);
  key = (key * mix) ^ (key >> 29) ^ fleet.slots(node);
  return (key * mix) ^ (key >> 29) ^ std::bit_cast<std::uint64_t>(fleet.price_per_hour(node));
}

std::shared_ptr<HealthGate> make_health_gate(Fleet& fleet, std::unique_ptr<contracts::NodeHealth> health) {
  return std::make_shared<HealthGate>(fleet, std::move(health));
}

HealthGate::HealthGate(Fleet& fleet, std::unique_ptr<contracts::NodeHealth> health)
    : fleet_(&fleet), health_(std::move(health)), born_(fleet.max_nodes()), n_restarts_(fleet.max_nodes()) {}

void HealthGate::answered(base::TimeNs now_ns, const contracts::Answer& answer, const contracts::LatencyTable& table) {
  const std::lock_guard hold(mutex_);
  follow_locked(now_ns);
  health_->answered(now_ns, answer, table);
  settle(now_ns);
}

void HealthGate::checked(base::TimeNs now_ns, NodeId node, bool ok) {
  const std::lock_guard hold(mutex_);
  follow_locked(now_ns);
  health_->checked(now_ns, node, ok);
  settle(now_ns);
}

void HealthGate::check_due(base::TimeNs now_ns, std::vector<NodeId>& nodes) {
  const std::lock_guard hold(mutex_);
  settle(now_ns);
  health_->check_due(now_ns, nodes);
}

void HealthGate::follow(base::TimeNs now_ns) {
  const std::lock_guard hold(mutex_);
  follow_locked(now_ns);
}

void HealthGate::follow_locked(base::TimeNs now_ns) {
  if (fleet_->version() == version_) return;
  version_ = fleet_->version();
  for (NodeId node{0}; node.value < fleet_->n_nodes(); ++node.value) {
    const NodeState state = fleet_->state(node);
    if (fleet_->born(node) != born_[node.value]) {
      born_[node.value] = fleet_->born(node);
      health_->joined(node, alike(*fleet_, node));
      health_->changes().clear();  // a node that is new is as the fleet has it
    }
    const HealthStage stage = health_->status(node).stage;
    if (state == NodeState::absent && stage != HealthStage::well) {
      health_->left(node);
      health_->changes().clear();
    }
    if (state == NodeState::lost && stage != HealthStage::lost) health_->lost(now_ns, node);
    if (state == NodeState::up && stage == HealthStage::lost) health_->back(now_ns, node);
    if (state == NodeState::ejected || stage == HealthStage::ejected)
      health_->seen_elsewhere(now_ns, node, state == NodeState::ejected);
  }
  health_->members_changed(now_ns);
  settle(now_ns);
}

void HealthGate::act(base::TimeNs now_ns) {
  const std::lock_guard hold(mutex_);
  settle(now_ns);
}

/// Carries out what follows from the last call, and what is due.
void HealthGate::settle(base::TimeNs now_ns) {
  carry_out();
  while (health_->next_ns() <= now_ns) {
    health_->tick(now_ns);
    carry_out();
  }
  due_ns_.store(health_->next_ns(), std::memory_order_relaxed);
}

void HealthGate::carry_out() {
  for (const contracts::HealthChange& change : health_->changes()) {
    const NodeId node = change.node;
    const NodeState state = fleet_->state(node);
    if (state == NodeState::absent) continue;
    fleet_->limit_pending(node, change.pending_max);
    const contracts::EjectedFor why = health_->status(node).why;
    const bool was_slow = why == contracts::EjectedFor::slowed_down || why == contracts::EjectedFor::slower_than_class;
    if (change.stage == HealthStage::half_open && was_slow) {
      n_restarts_[node.value].fetch_add(1, std::memory_order_relaxed);
    }
    // Whoever drained or removed the node meanwhile has the last word.
    const bool out = change.stage == HealthStage::ejected;
    if (out && state == NodeState::up) fleet_->set_state(node, NodeState::ejected);
    if (!out && change.stage != HealthStage::lost && state == NodeState::ejected)
      fleet_->set_state(node, NodeState::up);
  }
  health_->changes().clear();
}

contracts::HealthStatus HealthGate::status(NodeId node) {
  const std::lock_guard hold(mutex_);
  return health_->status(node);
}

bool HealthGate::expected(ModelId model, NodeId node, contracts::Curve& curve) {
  const std::lock_guard hold(mutex_);
  return health_->expected(model, node, curve);
}

std::string HealthGate::why_out(NodeId node) {
  const contracts::HealthStatus status = this->status(node);
  if (status.stage != HealthStage::ejected) return {};
  return std::string("for ") + contracts::name_of(status.why) + ", until " +
         std::to_string(base::seconds(status.until_ns)) + " s";
}

std::string HealthGate::why_out() {
  constexpr std::uint32_t listed_max = 8;
  std::string all;
  std::uint32_t n = 0;
  for (NodeId node{0}; node.value < fleet_->n_nodes(); ++node.value) {
    if (fleet_->state(node) != NodeState::ejected) continue;
    if (++n > listed_max) break;
    const std::string why = why_out(node);
    all +=
        (n > 1 ? "; '" : "'") + fleet_->spec(node).name + "' is ejected " + (why.empty() ? "by another process" : why);
  }
  return all;
}

}  // namespace infcore::route
