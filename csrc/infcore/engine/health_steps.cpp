// What follows from how devices answer: the sick are taken out, what was bound to them is bound anew, and they come
// back by and by. Who is sick says health/health_tracker.hpp; all of it comes of the machine's own events, so that a
// replayed log gives the same.
#include <infcore/engine/state_machine.hpp>
#include <infcore/health/health_tracker.hpp>

#include <algorithm>
#include <utility>

namespace infcore::engine {

using contracts::EjectedFor;
using contracts::HealthStage;

void StateMachine::set_up_health() {
  if (config_.judges_health) health_ = health::make_health_tracker(fleet_.columns(), config_.health);
}

/// The fleet's column is for policies that bind on arrival, the machine's own for the joint choice.
void StateMachine::bound_pending(NodeId id, std::uint32_t pending_max) {
  const std::uint32_t configured = fleet_.spec(id).pending_max;
  if (pending_max == 0 || (configured != 0 && configured < pending_max)) pending_max = configured;
  fleet_.bound_pending(id, pending_max);
  nodes_[id.value].pending_max = pending_max == 0 ? no_bound : pending_max;
  const std::uint64_t bit = std::uint64_t{1} << (id.value % 64);
  std::uint64_t& word = bounded_[id.value / 64];
  word = pending_max == 0 ? word & ~bit : word | bit;
  occupancy_changed(id);
}

/// A batch runs to its end whoever still wants it, and so it says how its device is; a share of a device that others
/// use, too, ends with its request.
void StateMachine::tell_health(TimeNs now_ns, NodeId id, const Batch& b, double service_s, bool ok) {
  if (!health_) return;
  const bool cut_off = models_[b.model.value].config.runs_share && b.members.front() == vacated;
  if (!cut_off) health_->answered(now_ns, {id, b.model, learned_shape(b), service_s, ok}, latency_);
}

void StateMachine::checked(TimeNs now_ns, NodeId id, bool ok) {
  if (!health_) return;
  health_->checked(now_ns, id, ok);
  settle_health(now_ns);
}

bool StateMachine::wants_check(TimeNs now_ns, NodeId id) {
  return health_ && nodes_[id.value].in_flight.empty() && health_->wants_check(now_ns, id);
}

/// After anything that health was told, and when something of it is due.
void StateMachine::settle_health(TimeNs now_ns) {
  if (!health_) return;
  std::vector<contracts::HealthChange>& changes = health_->changes();
  for (;;) {
    for (std::size_t i = 0; i < changes.size(); ++i) carry_out(now_ns, contracts::HealthChange(changes[i]));
    changes.clear();
    if (health_->next_ns() > now_ns) return;
    health_->tick(now_ns);
  }
}

void StateMachine::carry_out(TimeNs now_ns, const contracts::HealthChange& change) {
  const NodeId id = change.node;
  const route::NodeState state = fleet_.state(id);
  if (state == route::NodeState::absent) return;
  bound_pending(id, change.pending_max);
  if (change.stage == HealthStage::ejected) {
    if (state != route::NodeState::up) return;  // whoever drains it has the last word
    fleet_.set_state(id, route::NodeState::ejected);
    ++nodes_[id.value].stats->ejections;
    return send_elsewhere(now_ns, id);
  }
  if (change.stage == HealthStage::lost) return;
  if (change.stage == HealthStage::half_open) restart_curves(id);
  if (state == route::NodeState::ejected) fleet_.set_state(id, route::NodeState::up);
  if (fleet_.state(id) != route::NodeState::up) return;
  mark_node(id);
  bind_waiting(now_ns, id);
  look_for_loads();
}

/// What a device learned of itself while it was slow would keep it from being asked how it is now.
void StateMachine::restart_curves(NodeId id) {
  const EjectedFor why = health_->status(id).why;
  if (why != EjectedFor::slowed_down && why != EjectedFor::slower_than_class) return;
  for (const ModelId model : nodes_[id.value].models) {
    contracts::Curve curve;
    if (health_->expected(model, id, curve)) latency_.restart(model, id, curve);
  }
}

/// A request that failed alone may be bad itself, or its device be: so it is tried once on another one, and more often
/// only where its device fails others, too, that peers do not. What is in vain of that the retry budget bounds.
bool StateMachine::to_be_tried_elsewhere(const Slot& slot, NodeId id) const noexcept {
  if (!health_ || slot.attempts >= config_.attempts_max) return false;
  if (health_->suspect(id)) return true;
  if (slot.failed_on != base::no_node && slot.failed_on != id) return false;  // two devices say the same of it
  std::uint64_t others = 0;
  for (std::uint32_t word = 0; word < (fleet_.n_nodes() + 63) / 64; ++word) {
    others |= able(word, slot.request) & ~(word == id.value / 64 ? std::uint64_t{1} << (id.value % 64) : 0);
  }
  return others != 0;
}

/// To another device at once where one is free and would be in time, else in its turn.
void StateMachine::try_elsewhere(TimeNs now_ns, std::uint32_t slot, NodeId failed_on) {
  Slot& s = slots_[slot];
  s.failed_on = failed_on;
  const ModelId model = s.request.model;
  Second other = second_node(failed_on, s.request, false);
  if (other.node != base::no_node && late_on(now_ns, model, s.request, other.node)) other = {};
  if (models_[model.value].config.runs_share) other = {};  // how long it takes there hangs on who else runs there
  retry(now_ns, slot, true, Reason::device_failed, other.node);
  const bool waits_for_any = s.where == Where::waiting && lanes_[s.lane]->bound == base::no_node;
  if (other.node != base::no_node && waits_for_any && !routing_->binds_on_arrival()) {
    send_alone(now_ns, slot, other.node);
  }
}

/// From its lane into a batch of its own. Precondition: the node has a slot for it.
void StateMachine::send_alone(TimeNs now_ns, std::uint32_t slot, NodeId id) {
  const std::uint32_t index = slots_[slot].lane;
  Lane& lane = *lanes_[index];
  lane.unheld = false;
  Batch b = new_batch(now_ns, index);
  Filling filling = filling_of(lane, id);
  take(now_ns, slot, id, b, filling);
  fleet_.change_credit(id, filling.credit);
  b.expected_end_ns = base::add_ns(now_ns, base::to_ns(latency_.at(b.model, id).service_s(b.shape)));
  nodes_[id.value].in_flight.push_back(std::move(b));
  open_nodes_of(lane).push_back(id);
  occupancy_changed(id);
}

}  // namespace infcore::engine
