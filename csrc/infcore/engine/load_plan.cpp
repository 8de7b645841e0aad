// Which models are loaded where, and what goes for them, where the engine decides that (EngineConfig::residency). Loads
// are made for who waits, the most urgent first, on the node where that would be done first; a model that is there
// already is loaded on a further node, after those, where its requests would wait for two loads longer without.
// What goes is the eviction policy's choice: never what is in use, on its way, or awaited. Where there is room and
// nobody waits, what is asked for most often per byte comes in.
//
// Source: one load at a time, decided when the last is over, by whose deadlines can still be met: Clockwork, Gujarati
// et al., OSDI 2020. We differ: what a load pushes out counts as a load more, as in the router's costs, and what leaves
// is up to the policy that serves cache and KV blocks, too. O(lanes that wait * nodes that may hold their models).
#include <infcore/engine/state_machine.hpp>

#include <algorithm>
#include <bit>
#include <limits>

namespace infcore::engine {
namespace {

constexpr double never_done_s = std::numeric_limits<double>::infinity();
/// A further copy is worth a load, and one more of what goes for it.
constexpr double loads_worth = 2.0;
/// A model that was never asked for comes after all that were.
constexpr double seldom_per_s = 1e-9;

constexpr std::uint64_t bit_of(std::uint32_t index) noexcept { return std::uint64_t{1} << (index % 64); }

}  // namespace

/// After the lanes that something happened to have had their turn.
void StateMachine::plan_loads(TimeNs now_ns) {
  looks_for_loads_ = false;
  Residency::Plan& plan = residency_->plan();
  plan.lanes.clear();
  std::fill_n(plan.backlog_s.begin(), fleet_.n_nodes(), 0.0);
  for (std::uint32_t word = 0; word < plan.waiting.size(); ++word) {
    for (std::uint64_t left = plan.waiting[word]; left != 0; left &= left - 1) {
      const std::uint32_t lane = word * 64 + static_cast<std::uint32_t>(std::countr_zero(left));
      if (lanes_[lane]->queue.size() == 0) {
        plan.waiting[word] &= ~bit_of(lane);
      } else {
        plan.lanes.push_back(lane);
        add_backlog(*lanes_[lane]);
      }
    }
  }
  for (NodeId id{0}; id.value < fleet_.n_nodes(); ++id.value)
    if (residency_->node(id) != nullptr) residency_->node(id)->reserves = false;
  if (residency_->any_idle()) make_loads(now_ns);  // the door reads who waits all the same
  for (NodeId id{0}; id.value < fleet_.n_nodes(); ++id.value) {
    Residency::NodeLoads* const loads = residency_->node(id);
    if (loads == nullptr || loads->is_reserved == loads->reserves) continue;
    loads->is_reserved = loads->reserves;
    occupancy_changed(id);
    if (!loads->is_reserved) mark_node(id);
  }
}

void StateMachine::make_loads(TimeNs now_ns) {
  Residency::Plan& plan = residency_->plan();
  std::sort(plan.lanes.begin(), plan.lanes.end(),
            [&](std::uint32_t a, std::uint32_t b) { return before(a, b, now_ns); });
  for (const bool is_further : {false, true}) {  // whom nobody serves first: else the busy models take every load
    for (const std::uint32_t lane : plan.lanes) {
      if (!residency_->any_idle()) return;
      if (lanes_[lane]->bound != base::no_node) {
        if (!is_further) load_bound(now_ns, *lanes_[lane]);
      } else if ((n_holding(lanes_[lane]->model) > 0) == is_further) {
        load_for(now_ns, *lanes_[lane]);
      }
    }
  }
  load_expected(now_ns);
  fill_up(now_ns);
}

/// What the nodes that hold its model have to do for the lane, each an equal share; where none does, those that may.
void StateMachine::add_backlog(const Lane& lane) {
  const contracts::BatchColumns curves = latency_.batch(lane.model);
  const std::uint32_t max_batch_size = models_[lane.model.value].config.max_batch_size;
  const auto work = static_cast<float>(lane.work_mean());
  const auto add = [&](std::uint32_t n, std::uint32_t n_there) {
    const NodeFinish finish = NodeFinish::of(0.0f, curves, n, work);
    const double load_s = in_turn_load_s(NodeId{n}, lane.model);
    residency_->plan().backlog_s[n] +=
        (batches_s(finish, lane.queue.size(), max_batch_size) + load_s) / n_there / std::max(1u, nodes_[n].slots);
  };
  if (lane.bound != base::no_node) return add(lane.bound.value, 1);
  const std::uint32_t n_there = n_for(lane, true), n_able = n_there > 0 ? n_there : n_for(lane, false);
  for (std::uint32_t word = 0; n_able > 0 && word < (fleet_.n_nodes() + 63) / 64; ++word) {
    std::uint64_t left = n_there > 0 ? serving(lane, word) : able_to_load(lane, word);
    for (; left != 0; left &= left - 1) add(word * 64 + static_cast<std::uint32_t>(std::countr_zero(left)), n_able);
  }
}

/// What its load would keep the node from running; nothing where the two do not wait for each other, or it is there.
double StateMachine::in_turn_load_s(NodeId id, ModelId model) const noexcept {
  const bool waits = !residency_->node(id)->beside_runs && !fleet_.resident(id, model);
  return waits ? residency_->load_s(model) : 0.0;
}

/// The nodes that are up, hold the lane's model and carry its labels.
std::uint64_t StateMachine::serving(const Lane& lane, std::uint32_t word) const noexcept {
  return able_to_load(lane, word) & fleet_.columns().resident(lane.model.value, word).load(std::memory_order_relaxed);
}

/// How many those are, or those that may hold it.
std::uint32_t StateMachine::n_for(const Lane& lane, bool there) const noexcept {
  std::uint32_t n = 0;
  for (std::uint32_t word = 0; word < (fleet_.n_nodes() + 63) / 64; ++word) {
    n += static_cast<std::uint32_t>(std::popcount(there ? serving(lane, word) : able_to_load(lane, word)));
  }
  return n;
}

/// Likewise of those that may hold it.
std::uint64_t StateMachine::able_to_load(const Lane& lane, std::uint32_t word) const noexcept {
  // relaxed: as in gather()
  std::uint64_t able = fleet_.columns().up(word).load(std::memory_order_relaxed) & residency_->hosts(lane.model, word);
  for (std::uint64_t left = lane.require; left != 0 && able != 0; left &= left - 1) {
    able &= fleet_.columns().labelled(std::countr_zero(left), word).load(std::memory_order_relaxed);
  }
  return able;
}

/// Whether something waits for the model that the node may serve.
bool StateMachine::is_awaited(NodeId id, ModelId model) const noexcept {
  const auto waits = [&](std::uint32_t index) {
    const Lane& lane = *lanes_[index];
    return lane.model == model && lane.queue.size() > 0 && serves(id, lane);
  };
  const std::vector<std::uint32_t>&joint = models_[model.value].lanes, &bound = nodes_[id.value].bound_lanes;
  return std::any_of(joint.begin(), joint.end(), waits) || std::any_of(bound.begin(), bound.end(), waits);
}

/// Whether the node could begin to load it now.
bool StateMachine::could_load(NodeId id, ModelId model) {
  Residency::NodeLoads& loads = *residency_->node(id);
  if (loads.is_loading() || loads.reserves || !residency_->hosts(id, model)) return false;
  const std::uint64_t bytes = residency_->model(model).weights_bytes;
  if (loads.memory.can_fit(bytes)) return true;
  for (std::size_t i = loads.awaited.size(); i-- > 0;) {  // whom they were loaded for may have gone elsewhere
    const ModelId each = loads.awaited[i];
    if (!is_awaited(id, each)) loads.forget_awaited(each);
  }
  return loads.memory.can_fit(bytes);
}

/// Whom no load could serve in time any more ends here: a load for them would be one less for others.
void StateMachine::shed_hopeless(TimeNs now_ns, Lane& lane) {
  const bool is_bound = lane.bound != base::no_node;
  while (lane.queue.size() > 0) {
    const std::uint32_t slot = lane.queue.front(now_ns);
    const contracts::Request& r = slots_[slot].request;
    if (r.deadline_ns == base::never_ns || (!is_bound && n_for(lane, true) > 0)) return;
    if (is_bound && fleet_.resident(lane.bound, lane.model)) return;
    const Residency::Cold cold = cold_of(now_ns, r, lane.bound, 0.0);
    if (cold.n_able == 0 || cold.least_s <= base::seconds(r.deadline_ns - now_ns)) return;
    leave_lane(slot);
    end(now_ns, slot, ActionKind::shed, Reason::deadline);
  }
}

void StateMachine::load_bound(TimeNs now_ns, Lane& lane) {
  shed_hopeless(now_ns, lane);
  if (lane.queue.size() == 0) return;
  const Residency::NodeLoads& loads = *residency_->node(lane.bound);
  if (loads.memory.holds(lane.model) || fleet_.state(lane.bound) != route::NodeState::up) return;
  if (!could_load(lane.bound, lane.model)) return reserve_for(now_ns, lane);
  load(now_ns, lane.bound, lane.model, Reason::none);
}

/// Where nobody serves the lane, and all that keeps its model out is in use: on the node that is done with that first
/// nothing new begins until the load has begun, unless who comes before the lane waits for what the node holds. Else a
/// model whose queue is never empty would keep its place, whatever others waited for. A node that has loaded runs as
/// long as that would take again: loads are not to take more than half of its time.
void StateMachine::reserve_for(TimeNs now_ns, const Lane& lane) {
  const std::uint64_t bytes = residency_->model(lane.model).weights_bytes;
  const TimeNs load_ns = base::to_ns(residency_->load_s(lane.model));
  const auto waits_before = [&](NodeId id) {  // the plan's lanes are in order
    for (const std::uint32_t index : residency_->plan().lanes) {
      const Lane& other = *lanes_[index];
      if (&other == &lane) return false;
      if (other.queue.size() > 0 && serves(id, other) && fleet_.resident(id, other.model)) return true;
    }
    return false;
  };
  NodeId best = base::no_node;
  TimeNs best_end_ns = base::never_ns;
  for (NodeId id{0}; id.value < fleet_.n_nodes(); ++id.value) {
    const Residency::NodeLoads* const loads = residency_->node(id);
    if (loads == nullptr || fleet_.state(id) != route::NodeState::up || !residency_->hosts(id, lane.model)) continue;
    if (!serves(id, lane) || loads->is_loading() || loads->reserves) continue;
    if (loads->over_ns != base::never_ns && now_ns - loads->over_ns < load_ns) continue;
    std::uint64_t in_use_bytes = 0;
    for (const ModelId model : loads->in_use) in_use_bytes += loads->memory.bytes(model);
    if (!loads->memory.can_fit(bytes - std::min(bytes, in_use_bytes)) || waits_before(id)) continue;
    TimeNs end_ns = 0;
    for (const Batch& b : nodes_[id.value].in_flight) end_ns = std::max(end_ns, b.expected_end_ns);
    if (loads->is_reserved) end_ns = -1;  // it has kept free for somebody already
    if (best != base::no_node && end_ns >= best_end_ns) continue;
    best = id;
    best_end_ns = end_ns;
  }
  if (best != base::no_node) residency_->node(best)->reserves = true;
}

/// When it would be done there with what waits in the lane, were that its share.
double StateMachine::done_s(TimeNs now_ns, const Lane& lane, NodeId id, double from_s, std::uint32_t n_share) {
  const NodeFinish finish =
      NodeFinish::of(0.0f, latency_.batch(lane.model), id.value, static_cast<float>(lane.work_mean()));
  const double free_s =
      has_free(id) ? 0.0 : static_cast<double>(NodeFinish::free_in(free_at_s_[id.value], base::seconds(now_ns)));
  const double begin_s = std::max(free_s + residency_->plan().backlog_s[id.value], from_s);
  return begin_s + batches_s(finish, n_share, models_[lane.model.value].config.max_batch_size);
}

void StateMachine::load_for(TimeNs now_ns, Lane& lane) {
  shed_hopeless(now_ns, lane);
  if (lane.queue.size() == 0) return;
  const ModelId model = lane.model;
  const std::uint32_t n_there = n_for(lane, true) + residency_->model(model).n_loading;
  const std::uint32_t n_share = (lane.queue.size() + n_there) / (n_there + 1);
  const double load_s = residency_->load_s(model), now_s = base::seconds(now_ns);
  double here_s = never_done_s, best_s = never_done_s, best_cost_s = never_done_s;
  NodeId best = base::no_node;
  for (std::uint32_t word = 0; word < (fleet_.n_nodes() + 63) / 64; ++word) {
    const std::uint64_t there = serving(lane, word);
    for (std::uint64_t left = able_to_load(lane, word); left != 0; left &= left - 1) {
      const NodeId id{word * 64 + static_cast<std::uint32_t>(std::countr_zero(left))};
      const Residency::NodeLoads& loads = *residency_->node(id);
      if ((there & bit_of(id.value)) != 0 || loads.loading == model) {
        const double from_s = loads.loading == model ? base::seconds(loads.expected_end_ns) - now_s : 0.0;
        here_s = std::min(here_s, done_s(now_ns, lane, id, from_s, std::max(1u, lane.queue.size() / n_there)));
      } else if (could_load(id, model)) {
        const double done = loads.beside_runs ? done_s(now_ns, lane, id, load_s, n_share)
                                              : done_s(now_ns, lane, id, 0.0, n_share) + load_s;
        const bool pushes_out = loads.memory.free_bytes() < residency_->model(model).weights_bytes;
        const double cost_s = done + (pushes_out ? load_s : 0.0);
        if (cost_s >= best_cost_s) continue;
        best = id;
        best_s = done;
        best_cost_s = cost_s;
      }
    }
  }
  if (best == base::no_node && here_s == never_done_s) return reserve_for(now_ns, lane);
  if (best == base::no_node) return;
  if (here_s != never_done_s && here_s <= best_s + loads_worth * load_s) return;
  load(now_ns, best, model, Reason::none);
}

/// What somebody expects to be asked for: where there is room, else where something may go for it.
void StateMachine::load_expected(TimeNs now_ns) {
  std::erase_if(residency_->plan().expected, [&](ModelId model) {
    if (!models_[model.value].known || n_holding(model) > 0) return true;
    const std::uint64_t bytes = residency_->model(model).weights_bytes;
    for (const bool has_room : {true, false}) {
      for (NodeId id{0}; id.value < fleet_.n_nodes(); ++id.value) {
        const Residency::NodeLoads* const loads = residency_->node(id);
        if (loads == nullptr || fleet_.state(id) != route::NodeState::up) continue;
        if ((loads->memory.free_bytes() >= bytes) != has_room || !could_load(id, model)) continue;
        if (load(now_ns, id, model, Reason::forecast)) return true;
      }
    }
    return false;
  });
}

/// Where there is room, and nobody waits for anything else there: what is asked for most, by what it takes; of what was
/// never asked for, one copy.
void StateMachine::fill_up(TimeNs now_ns) {
  for (std::uint32_t n = 0; n < fleet_.n_nodes() && residency_->any_idle(); ++n) {
    const NodeId id{n};
    Residency::NodeLoads* const loads = residency_->node(id);
    if (loads == nullptr || !loads->may_fill || loads->is_loading()) continue;
    if (loads->memory.free_bytes() < residency_->weights_bytes_least()) continue;
    if (fleet_.state(id) != route::NodeState::up) continue;
    if (!loads->beside_runs && !nodes_[n].in_flight.empty()) continue;
    loads->may_fill = false;
    ModelId best = base::no_model;
    double best_worth = 0.0;
    for (ModelId model{0}; model.value < n_models_; ++model.value) {
      const std::uint64_t bytes = residency_->model(model).weights_bytes;
      if (!models_[model.value].known || loads->memory.holds(model)) continue;
      if (bytes > loads->memory.free_bytes() || !could_load(id, model)) continue;
      const std::uint32_t n_there = n_holding(model);
      const double asked_per_s = residency_->model(model).demand.per_s(now_ns) + (n_there == 0 ? seldom_per_s : 0.0);
      const double worth = asked_per_s * residency_->cost_us(model) / static_cast<double>(bytes + 1) / (n_there + 1);
      if (asked_per_s == 0.0 || (best != base::no_model && worth <= best_worth)) continue;
      best = model;
      best_worth = worth;
    }
    if (best != base::no_model) load(now_ns, id, best, Reason::forecast);
  }
}

/// Nodes that are up and hold it, or where it is on its way.
std::uint32_t StateMachine::n_holding(ModelId model) const noexcept {
  const bool is_loaded = residency_->model(model).n_loading > 0;
  std::uint32_t n = 0;
  for (std::uint32_t word = 0; word < (fleet_.n_nodes() + 63) / 64; ++word) {
    const std::uint64_t up = fleet_.columns().up(word).load(std::memory_order_relaxed);
    const std::uint64_t held = fleet_.columns().resident(model.value, word).load(std::memory_order_relaxed);
    n += static_cast<std::uint32_t>(std::popcount(up & held));
    // A node may be up in the fleet before the engine is told of it: who loads may hold.
    const std::uint64_t others = is_loaded ? up & ~held & residency_->hosts(model, word) : 0;
    for (std::uint64_t left = others; left != 0; left &= left - 1) {
      const auto node = word * 64 + static_cast<std::uint32_t>(std::countr_zero(left));
      n += residency_->node(NodeId{node})->loading == model ? 1 : 0;
    }
  }
  return n;
}

}  // namespace infcore::engine
