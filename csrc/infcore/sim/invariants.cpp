// What must hold at each step of a simulation, whatever the policy and the faults.
#include <infcore/sim/simulation.hpp>

#include <algorithm>
#include <string>

namespace infcore::sim {

void Simulation::violated(const char* what, const engine::Action& action) {
  if (n_violations_++ > 0) return;
  first_violation_ = std::string(what) + " at " + std::to_string(base::seconds(now_ns_)) + " s";
  if (action.kind != engine::ActionKind{} || action.cookie != 0) {
    first_violation_ += ", request " + std::to_string(opens_[static_cast<std::uint32_t>(action.cookie)].number);
  }
  if (action.node != base::no_node) first_violation_ += ", node " + config_.nodes[action.node.value].spec.name;
}

/// Nothing more will happen and requests are open: right only where a fault that lasts keeps their nodes away.
void Simulation::check_nobody_waits_for_ever() {
  const auto answers = [](const ModelledNode& node) { return node.answers(); };
  if (!std::all_of(nodes_.begin(), nodes_.end(), answers)) return;
  if (config_.run_limit_s <= 0.0 && !faults_.empty()) return;  // a lost answer is then waited for, for ever
  for (const Open& open : opens_) {
    if (!open.open) continue;
    const std::uint32_t workload = open.arrival.workload;
    const ModelId model = model_ids_[config_.workloads[workload].model.value];
    for (std::uint32_t n = 0; n < nodes_.size(); ++n) {
      const bool could = config_.residency.empty()
                             ? fleet_.resident(NodeId{n}, model)
                             : config_.nodes[n].residency[config_.workloads[workload].model.value] != Residency::never;
      if (!could || !fleet_.columns().carries(n, require_bits_[workload])) continue;
      return violated("requests wait for ever though a node could serve them", {.node = NodeId{n}});
    }
  }
}

void Simulation::check(const engine::Action& action) {
  const Open& open = opens_[static_cast<std::uint32_t>(action.cookie)];
  if (!open.open || open.generation != action.cookie >> 32)
    return violated("an action for a request that has ended", action);
  if (action.kind != engine::ActionKind::dispatch && action.kind != engine::ActionKind::hedge) return;
  // After one copy its first run may be over, and the copy goes on alone: nobody says so.
  if (action.kind == engine::ActionKind::hedge && action.node.value == open.node && !open.hedged)
    violated("a second copy goes where the first one is", action);
  if (fleet_.state(action.node) != route::NodeState::up) violated("a node was chosen that is not up", action);
  const std::uint32_t asked = config_.workloads[open.arrival.workload].model.value;
  const ModelId fallback = config_.models[asked].engine.fallback;  // an index of ours
  const ModelId model = model_ids_[action.reason == engine::Reason::cheaper ? fallback.value : asked];
  if (!fleet_.resident(action.node, model)) violated("a node was chosen that does not hold the model", action);
  if (!fleet_.columns().carries(action.node.value, require_bits_[open.arrival.workload]))
    violated("a node lacks a label that is required", action);
}

/// Before an unload or load is carried out.
void Simulation::check_memory(const engine::Action& action) {
  const std::uint32_t m = model_index_[action.member].value;
  const ModelledNode& node = nodes_[action.node.value];
  const bool loads = action.kind == engine::ActionKind::load;
  if ((node.in_memory[m] != 0) == loads) violated("a model is loaded where it is, or dropped where it is not", action);
  if (!loads) {
    for (std::uint32_t run = node.first_run; run < node.first_run + node.n_runs; ++run) {
      if (runs_[run].active && runs_[run].model.value == m) violated("a model is dropped while it runs", action);
    }
    return;
  }
  if (node.loading >= 0) violated("two loads at a time on a node", action);
  const std::uint64_t capacity = config_.nodes[action.node.value].spec.memory_bytes;
  if (capacity != 0 && node.memory_in_use + config_.models[m].engine.weights_bytes > capacity)
    violated("a node's memory is overfull", action);
}

engine::Outcomes Simulation::second_runs() const noexcept {
  engine::Outcomes sum;
  for (const ModelId model : model_ids_) {
    const engine::Outcomes& its = *machine_.model_stats(model);
    sum.hedged += its.hedged;
    sum.hedge_won += its.hedge_won;
    sum.hedge_wasted_s += its.hedge_wasted_s;
    sum.retried += its.retried;
    sum.unretried += its.unretried;
  }
  return sum;
}

}  // namespace infcore::sim
