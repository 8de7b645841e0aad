// Models and devices come and go; what waits or was handed over follows them.
#include <infcore/base/errors.hpp>
#include <infcore/engine/state_machine.hpp>
#include <infcore/route/health_gate.hpp>

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

namespace infcore::engine {

void StateMachine::add_model(ModelId model, const ModelConfig& config) {
  if (model.value >= models_.size()) {
    throw InvalidArgument("models", std::to_string(model.value + 1), "at most " + std::to_string(models_.size()));
  }
  if (config.runs_share && config.max_batch_size != 1) {
    throw InvalidArgument("max_batch_size", std::to_string(config.max_batch_size), "1 where runs share a node");
  }
  ModelState& state = models_[model.value];
  if (!state.stats) state.stats = std::make_unique<Stats>(config_.stage_histograms);
  state.known = true;
  state.config = config;
  if (residency_) residency_->add_model(model, config.weights_bytes, config.load_s);
  state.tried.assign(candidates_.size(), 0);
  state.n_taken = state.n_tries = 0;
  if (model.value < n_models_) return;
  n_models_ = model.value + 1;
  for (NodeId node{0}; node.value < fleet_.n_nodes(); ++node.value) follow_residency(node);
}

void StateMachine::remove_model(TimeNs now_ns, ModelId model) {
  models_[model.value].known = false;
  reject_put_off(now_ns, model);
  for (const auto& lane : lanes_) {
    if (lane->model != model) continue;
    while (lane->queue.size() > 0) {
      const std::uint32_t slot = lane->queue.front(now_ns);
      leave_lane(slot);
      end(now_ns, slot, ActionKind::reject, Reason::unloaded);
    }
  }
  for (NodeId id{0}; id.value < fleet_.n_nodes(); ++id.value) {
    bool emptied = false;
    for (Batch& b : nodes_[id.value].in_flight) {
      if (!b.open || b.model != model) continue;
      for (const std::uint32_t slot : b.members) {
        if (!goes_on(now_ns, slot, b, Reason::unloaded)) end(now_ns, slot, ActionKind::reject, Reason::unloaded);
      }
      b.members.clear();
      b.shape = {};
      emptied = true;
    }
    if (emptied) occupancy_changed(id);  // what starts beside it next is told what is there
  }
}

void StateMachine::add_node(NodeId id, const NodeConfig& config) {
  Node& node = nodes_[id.value];
  node.run_limit_ns = config.run_limit_ns;
  node.slots = fleet_.slots(id);
  const std::uint64_t bit = std::uint64_t{1} << (id.value % 64);
  many_slots_[id.value / 64] = (many_slots_[id.value / 64] & ~bit) | (node.slots > 1 ? bit : 0);
  for (ModelState& model : models_) {
    if (!model.tried.empty()) model.tried[id.value / 64] &= ~(std::uint64_t{1} << (id.value % 64));
  }
  usd_per_s_[id.value] = static_cast<float>(fleet_.price_per_hour(id) / 3600.0 / node.slots);
  has_prices_ = std::any_of(usd_per_s_.begin(), usd_per_s_.begin() + fleet_.n_nodes(),
                            [&](float usd_per_s) { return usd_per_s != usd_per_s_.front(); });
  node.stats = std::make_unique<Stats>(config_.stage_histograms);
  node.free_since_ns = node.progress_ns = 0;
  for (const Batch& b : node.in_flight)
    if (b.open) close_door(b, id);
  node.in_flight.clear();  // of a removed node whose id this was: nobody waits for it, or its credit would hold the id
  bound_pending(id, 0);
  latency_.forget(id);
  latency_.set_class(id, fleet_.kind_id(id));
  // Alike for the first token's model: a kind may be as wide as "gpu", and price and memory tell what it is made of.
  const route::NodeSpec& spec = fleet_.spec(id);
  std::uint32_t alike = 0;
  for (; alike < id.value; ++alike) {
    const NodeId other{alike};
    if (fleet_.state(other) == route::NodeState::absent || fleet_.kind_id(other) != fleet_.kind_id(id)) continue;
    const route::NodeSpec& its = fleet_.spec(other);
    if (its.price_per_hour == spec.price_per_hour && its.memory_bytes == spec.memory_bytes) break;
  }
  tokens_.add_node(id, alike, config.kv_blocks);
  if (residency_) residency_->add_node(id, spec.memory_bytes, config.loads_beside_runs);
  follow_residency(id);
  if (residency_) follow_memory(id);
  if (!health_) return;
  health_->joined(id, route::alike(fleet_, id));
  health_->changes().clear();  // it is as the fleet has it
}

/// Brings the list of what the node holds up to date with the fleet.
void StateMachine::follow_residency(NodeId id) {
  ++door_.membership;
  Node& node = nodes_[id.value];
  const auto free = static_cast<std::uint32_t>(has_free_slot_[id.value / 64] >> (id.value % 64) & 1);
  for (const ModelId model : node.models) models_[model.value].n_free -= free;
  node.models.clear();
  for (ModelId model{0}; model.value < n_models_; ++model.value) {
    if (fleet_.resident(id, model)) node.models.push_back(model);
  }
  for (const ModelId model : node.models) models_[model.value].n_free += free;
}

template <class Which>
void StateMachine::give_up_where(TimeNs now_ns, NodeId id, Reason reason, Which which) {
  std::vector<Batch>& in_flight = nodes_[id.value].in_flight;
  const auto from =
      std::stable_partition(in_flight.begin(), in_flight.end(), [&](const Batch& b) { return !which(b); });
  if (from == in_flight.end()) return;
  std::vector<Batch> given_up(std::make_move_iterator(from), std::make_move_iterator(in_flight.end()));
  in_flight.erase(from, in_flight.end());
  nodes_[id.value].free_since_ns = now_ns;
  for (const Batch& b : given_up)
    if (b.open) close_door(b, id);
  occupancy_changed(id);
  for (Batch& b : given_up) give_up(now_ns, b, reason);
}

/// What the node was given and has not begun.
void StateMachine::send_elsewhere(TimeNs now_ns, NodeId id) {
  give_up_where(now_ns, id, Reason::device_removed, [](const Batch& b) { return b.open; });
  rebind(now_ns, id);
  mark_node(id);
  look_for_loads();
}

void StateMachine::residency_changed(TimeNs now_ns, NodeId id) {
  if (residency_) follow_memory(id);
  follow_fleet(now_ns, id);
}

void StateMachine::follow_fleet(TimeNs now_ns, NodeId id) {
  mark_node(id);  // those who waited for it and can't any more
  follow_residency(id);
  mark_node(id);
  give_up_where(now_ns, id, Reason::device_removed,
                [&](const Batch& b) { return b.open && !fleet_.resident(id, b.model); });
  rebind(now_ns, id);
  bind_waiting(now_ns, id);
}

void StateMachine::drain_node(TimeNs now_ns, NodeId id) {
  fleet_.drain(id);
  rebind(now_ns, id);
  mark_node(id);
  look_for_loads();
  if (health_) health_->members_changed(now_ns);
  settle_health(now_ns);
}

bool StateMachine::node_empty(NodeId id) const noexcept { return nodes_[id.value].in_flight.empty(); }

void StateMachine::remove_node(TimeNs now_ns, NodeId id) {
  fleet_.remove(id);
  mark_node(id);
  follow_residency(id);
  give_up_where(now_ns, id, Reason::device_removed, [](const Batch& b) { return b.open; });
  give_up_where(now_ns, id, Reason::device_lost, [](const Batch& b) { return b.running; });
  if (residency_) residency_->remove_node(id);
  rebind(now_ns, id);
  look_for_loads();
  if (!health_) return;
  health_->left(id);
  health_->members_changed(now_ns);
  settle_health(now_ns);
}

void StateMachine::node_lost(TimeNs now_ns, NodeId id) { take_out(now_ns, id, Reason::device_lost); }

void StateMachine::node_failed(TimeNs now_ns, NodeId id) { take_out(now_ns, id, Reason::device_failed); }

void StateMachine::take_out(TimeNs now_ns, NodeId id, Reason reason) {
  const route::NodeState state = fleet_.state(id);
  if (state == route::NodeState::up || state == route::NodeState::ejected) {
    fleet_.set_state(id, route::NodeState::lost);
    if (health_) health_->lost(now_ns, id);
  }
  tokens_.forget(id);
  // A worker reads the inputs of what it has claimed: those stay until started().
  give_up_where(now_ns, id, reason, [](const Batch& b) { return b.open || b.running; });
  rebind(now_ns, id);
  mark_node(id);
  look_for_loads();
  settle_health(now_ns);
}

void StateMachine::node_back(TimeNs now_ns, NodeId id) {
  if (fleet_.state(id) != route::NodeState::lost) return;
  fleet_.set_state(id, route::NodeState::up);
  nodes_[id.value].free_since_ns = now_ns;
  if (health_) health_->back(now_ns, id);
  settle_health(now_ns);
  mark_node(id);
  bind_waiting(now_ns, id);
  look_for_loads();
}

/// Whether requests for the model may be sent there.
bool StateMachine::may_serve(NodeId id, ModelId model) const noexcept {
  return residency_ ? residency_->hosts(id, model) : fleet_.resident(id, model);
}

/// What waits for a device that it can't have any more is bound anew.
void StateMachine::rebind(TimeNs now_ns, NodeId id) {
  const bool up = fleet_.state(id) == route::NodeState::up;
  for (const std::uint32_t index : nodes_[id.value].bound_lanes) {
    Lane& lane = *lanes_[index];
    if (up && may_serve(id, lane.model)) continue;
    while (lane.queue.size() > 0) {
      const std::uint32_t slot = lane.queue.front(now_ns);
      leave_lane(slot);
      act(slot, ActionKind::retry, Reason::device_removed, id);
      unreserve(slots_[slot]);
      slots_[slot].node = base::no_node;
      enqueue(now_ns, slot);
    }
  }
}

/// Under a policy that binds on arrival: what found no device then is bound now that one is there.
void StateMachine::bind_waiting(TimeNs now_ns, NodeId id) {
  if (!routing_->binds_on_arrival() || fleet_.state(id) != route::NodeState::up) return;
  for (ModelId model{0}; model.value < n_models_; ++model.value) {
    if (!may_serve(id, model)) continue;
    for (const std::uint32_t index : models_[model.value].lanes) {
      Lane& lane = *lanes_[index];
      if (!fleet_.columns().carries(id.value, lane.require)) continue;
      while (lane.queue.size() > 0) {
        const std::uint32_t slot = lane.queue.front(now_ns);
        leave_lane(slot);
        enqueue(now_ns, slot);
        if (slots_[slot].where == Where::waiting && slots_[slot].lane == index) break;  // no device after all
      }
    }
  }
}

/// The same for a lane when some device has more room: it may be what the policy waited for.
void StateMachine::bind_from(TimeNs now_ns, std::uint32_t index) {
  queue::TieredLane& waiting = lanes_[index]->queue;
  while (waiting.size() > 0) {
    const std::uint32_t slot = waiting.front(now_ns);
    const NodeId node = choose_node(now_ns, slots_[slot].request);
    if (node == base::no_node) return;
    leave_lane(slot);
    enqueue(now_ns, slot, node);
  }
}

void StateMachine::give_up(TimeNs now_ns, Batch& b, Reason reason) {
  for (std::uint32_t i = 0; i < b.members.size(); ++i) {
    const std::uint32_t slot = b.members[i];
    if (slot == vacated || goes_on(now_ns, slot, b, reason)) continue;
    // A batch that never ran costs no attempt and may go elsewhere whatever the model.
    if (!b.running) --slots_[slot].attempts;
    const bool again = !b.running || (models_[b.model.value].config.idempotent &&
                                      slots_[slot].attempts < config_.attempts_max && may_retry(b.model));
    if (again) {
      retry(now_ns, slot, slots_[slot].solo, reason);
    } else {
      end(now_ns, slot, ActionKind::complete, reason, i);
    }
  }
}

/// The lanes that might send something to the node are looked at again.
void StateMachine::mark_node(NodeId id) {
  for (const std::uint32_t lane : nodes_[id.value].bound_lanes) mark(lane);
  for (const ModelId model : nodes_[id.value].models) {
    for (const std::uint32_t lane : models_[model.value].lanes) mark(lane);
  }
}

}  // namespace infcore::engine
