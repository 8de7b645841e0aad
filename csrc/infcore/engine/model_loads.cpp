// What the engine knows and does of models on nodes, where it decides that itself (EngineConfig::residency): who may
// hold what, what came of a load, what goes for one. Which loads are made is load_plan.cpp's.
#include <infcore/base/errors.hpp>
#include <infcore/engine/state_machine.hpp>

#include <algorithm>
#include <utility>

namespace infcore::engine {
namespace {

/// After a load has failed, the node is asked for that model again after as long.
constexpr TimeNs load_again_ns = 10'000'000'000;

}  // namespace

void StateMachine::set_up_residency() {
  if (config_.residency.empty()) return;
  residency_ = std::make_unique<Residency>(config_.residency, config_.max_nodes, config_.max_models);
  view_.send_to(residency_->all_hosts());
}

// ---- events

void StateMachine::may_hold(TimeNs now_ns, NodeId id, ModelId model, bool may) {
  if (!residency_)
    throw InvalidArgument("residency", "''", "an eviction policy, where nodes are told what they may hold");
  Residency::NodeLoads* const loads = residency_->node(id);
  if (loads == nullptr || residency_->may_hold(id, model) == may) return;
  residency_->may_hold(id, model, may);
  residency_->forgive(id, model);
  ++door_.membership;
  if (may) {
    loads->may_fill = looks_for_loads_ = true;
    bind_waiting(now_ns, id);
  } else if (loads->loading == model) {
    loads->is_unwanted = true;  // for good: who may hold it again may mean another model of that name
    rebind(now_ns, id);
  } else if (loads->memory.holds(model)) {
    drop(now_ns, id, model);
    loads->may_fill = looks_for_loads_ = true;
  } else {
    rebind(now_ns, id);
  }
}

void StateMachine::preload(ModelId model) {
  if (!residency_) throw InvalidArgument("residency", "''", "an eviction policy, where models are to be preloaded");
  std::vector<ModelId>& expected = residency_->plan().expected;
  if (!models_[model.value].known || std::find(expected.begin(), expected.end(), model) != expected.end()) return;
  expected.push_back(model);
  looks_for_loads_ = true;
}

bool StateMachine::loaded(TimeNs now_ns, NodeId id, ModelId model, bool ok, double load_s) {
  Residency::NodeLoads* const loads = residency_ ? residency_->node(id) : nullptr;
  if (loads == nullptr || loads->loading != model) return false;
  residency_->end_load(id);
  loads->over_ns = now_ns;
  loads->may_fill = looks_for_loads_ = true;
  for (Stats* stats : {nodes_[id.value].stats.get(), models_[model.value].stats.get()}) {
    ++(ok ? stats->loads : stats->loads_failed);
    stats->load_s += load_s;
  }
  if (ok) residency_->measured(model, load_s, now_ns);
  if (ok && !loads->is_unwanted) {
    fleet_.load_model(id, model);
    loads->memory.hold(model, Hold::on_its_way, false);
    follow_fleet(now_ns, id);
  } else {
    loads->forget_awaited(model);
    loads->memory.remove(model);
    if (ok) act_on_model(ActionKind::unload, Reason::none, id, model, 0.0);
    // Of a node that was lost meanwhile, or of who bore the name before, it says nothing.
    const bool says_so = !loads->is_unwanted && fleet_.state(id) != route::NodeState::lost;
    if (!ok && says_so) load_failed(now_ns, id, model);
  }
  occupancy_changed(id);
  mark_node(id);
  return true;
}

/// The node is left alone with it for a while, and what was bound to it goes elsewhere. Where all that could hold it
/// for those who wait have failed to load it, these end: nothing else would end them.
void StateMachine::load_failed(TimeNs now_ns, NodeId id, ModelId model) {
  const TimeNs until_ns = base::add_ns(now_ns, load_again_ns);
  residency_->fail(id, model, until_ns);
  timers_.set(id.value, until_ns);
  rebind(now_ns, id);
  const auto may_come = [&](const Lane& lane) {  // from a node that is up or not
    for (NodeId other{0}; other.value < fleet_.n_nodes(); ++other.value) {
      if (residency_->hosts(other, model) && serves(other, lane)) return true;
    }
    return false;
  };
  for (const auto& lane : lanes_) {
    if (lane->model != model || may_come(*lane)) continue;
    while (lane->queue.size() > 0) {
      const std::uint32_t slot = lane->queue.front(now_ns);
      leave_lane(slot);
      end(now_ns, slot, ActionKind::complete, Reason::device_failed);
    }
  }
}

/// What could not be loaded there may be tried again; returns when the next may.
TimeNs StateMachine::forgive_loads(TimeNs now_ns, NodeId id) {
  const Residency::NodeLoads* const loads = residency_->node(id);
  if (loads == nullptr || loads->failed.empty()) return base::never_ns;
  const std::size_t n_failed = loads->failed.size();
  const TimeNs next_ns = residency_->forgive(id, now_ns);
  if (loads->failed.size() < n_failed) bind_waiting(now_ns, id);
  return next_ns;
}

/// Whether the lane's requests may go there, as to their labels or to the node that they are bound to.
bool StateMachine::serves(NodeId id, const Lane& lane) const noexcept {
  return lane.bound == base::no_node ? fleet_.columns().carries(id.value, lane.require) : lane.bound == id;
}

/// The fleet was changed by others than us: a node that lost its memory, or came with something in it.
void StateMachine::follow_memory(NodeId id) {
  Residency::NodeLoads* const loads = residency_->node(id);
  if (loads == nullptr) return;
  for (ModelId model{0}; model.value < n_models_; ++model.value) {
    const bool is_there = residency_->model(model).is_known && fleet_.resident(id, model);
    if (loads->memory.holds(model) == is_there || loads->loading == model) continue;
    if (is_there) {
      residency_->forgive(id, model);
      loads->memory.insert(model, residency_->model(model).weights_bytes, residency_->cost_us(model), 1.0, false);
    } else {
      loads->forget_awaited(model);
      loads->memory.remove(model);
    }
    loads->may_fill = looks_for_loads_ = true;
  }
  follow_use(id);
}

/// After any change of the node's batches: what is in use does not go.
void StateMachine::follow_use(NodeId id) {
  Residency::NodeLoads* const loads = residency_->node(id);
  if (loads == nullptr) return;
  const std::vector<Batch>& in_flight = nodes_[id.value].in_flight;
  std::erase_if(loads->in_use, [&](ModelId model) {
    const auto is_its = [&](const Batch& b) { return b.model == model; };
    if (std::any_of(in_flight.begin(), in_flight.end(), is_its)) return false;
    if (loads->memory.holds(model)) loads->memory.hold(model, Hold::in_use, false);
    looks_for_loads_ = true;  // it may go now
    return true;
  });
  for (const Batch& b : in_flight) {
    if (!loads->memory.holds(b.model)) continue;  // it was told to go while it runs
    if (std::find(loads->in_use.begin(), loads->in_use.end(), b.model) == loads->in_use.end()) {
      loads->in_use.push_back(b.model);
    }
    loads->memory.hold(b.model, Hold::in_use, true);
    loads->forget_awaited(b.model);
  }
}

// ---- what goes and comes

void StateMachine::act_on_model(ActionKind kind, Reason reason, NodeId id, ModelId model, double takes_s) {
  Action action;
  action.kind = kind;
  action.reason = reason;
  action.node = id;
  action.member = model.value;
  action.hint_s = static_cast<float>(takes_s);
  actions_.push_back(action);
}

void StateMachine::drop(TimeNs now_ns, NodeId id, ModelId model) {
  Residency::NodeLoads& loads = *residency_->node(id);
  loads.forget_awaited(model);
  loads.memory.remove(model);
  ++nodes_[id.value].stats->unloads;
  ++models_[model.value].stats->unloads;
  act_on_model(ActionKind::unload, Reason::none, id, model, 0.0);
  fleet_.unload_model(id, model);
  follow_fleet(now_ns, id);
}

/// False: not enough may go; for a forecast nothing that somebody waits for.
bool StateMachine::load(TimeNs now_ns, NodeId id, ModelId model, Reason reason) {
  Residency::NodeLoads& loads = *residency_->node(id);
  const std::uint64_t bytes = residency_->model(model).weights_bytes;
  const auto hold_wanted = [&](bool on) {  // what something waits for there stays, if enough else may go
    for (const std::uint32_t index : residency_->plan().lanes) {
      const Lane& lane = *lanes_[index];
      const bool waits = lane.queue.size() > 0 && serves(id, lane);
      if (loads.memory.holds(lane.model) && (!on || waits)) loads.memory.hold(lane.model, Hold::wanted, on);
    }
  };
  if (loads.memory.free_bytes() < bytes) {
    hold_wanted(true);
    if (reason == Reason::none && !loads.memory.can_fit(bytes)) hold_wanted(false);
    while (loads.memory.can_fit(bytes) && loads.memory.free_bytes() < bytes) {
      const ModelId victim = loads.memory.victim();
      if (victim == base::no_model) break;
      drop(now_ns, id, victim);
    }
    hold_wanted(false);
    if (loads.memory.free_bytes() < bytes) return false;
  }
  const double load_s = residency_->load_s(model);
  const TimeNs from_ns =
      loads.beside_runs || has_free(id) ? now_ns : std::max(now_ns, base::to_ns(free_at_s_[id.value]));
  residency_->begin_load(id, model, now_ns, base::add_ns(from_ns, base::to_ns(load_s)));
  if (reason == Reason::none) {
    loads.awaited.push_back(model);
    loads.memory.hold(model, Hold::awaited, true);
  }
  act_on_model(ActionKind::load, reason, id, model, load_s);
  timers_.set(id.value, load_limit_ns(id));
  occupancy_changed(id);
  return true;
}

/// When a load that is not over takes its node for lost: as late as a run may be, or as it takes ten times; where
/// nobody knows what it takes, after ten minutes. Never where runs have no limit.
TimeNs StateMachine::load_limit_ns(NodeId id) const noexcept {
  constexpr double times_late = 10.0, unknown_s = 600.0;
  const Residency::NodeLoads& loads = *residency_->node(id);
  const TimeNs run_limit_ns = nodes_[id.value].run_limit_ns;
  if (!loads.is_loading() || run_limit_ns == base::never_ns) return base::never_ns;
  const double load_s = residency_->told_load_s(loads.loading), late_s = load_s > 0.0 ? times_late * load_s : unknown_s;
  return base::add_ns(loads.expected_end_ns, std::max(run_limit_ns, base::to_ns(late_s)));
}

}  // namespace infcore::engine
