// What befalls the modelled fleet: faults, other users of its machines, models that load, signals and their loss. The
// times are drawn from streams of their own in an order that no decision changes: every policy meets the same world.
#include <infcore/sim/simulation.hpp>

#include <algorithm>
#include <utility>

namespace infcore::sim {
namespace {

constexpr std::size_t fault_events_max = 10'000;  // the report's timeline; more are counted only

}  // namespace

void Simulation::plan(TimeNs at_ns, Do what, std::uint32_t index, std::uint32_t node) {
  plans_.push({at_ns, n_plans_++, index, node, nodes_.empty() ? 0 : nodes_[node].crashes, what});
  agenda_.move(plans_owner, plans_.top().at_ns);
}

void Simulation::plan_disturbances() {
  faults_ = config_.faults;
  for (std::uint32_t f = 0; f < config_.faults.size(); ++f) {
    for (const std::uint32_t node : config_.faults[f].nodes) {
      plan(base::to_ns(config_.faults[f].at_s), Do::fault_begins, f, node);
    }
  }
  for (const RandomFaultConfig& random : config_.random_faults) {
    faults_.push_back({.kind = random.kind, .for_s = random.for_s, .factor = random.factor, .rate = random.rate});
    for (const std::uint32_t node : random.nodes) {
      plan_random(static_cast<std::uint32_t>(faults_.size() - 1), node, 0);
    }
  }
  if (!faults_.empty()) plan(base::to_ns(config_.probe_s), Do::probe);
  if (config_.signal_period_s > 0.0) plan(base::to_ns(config_.signal_period_s), Do::signals);
  antagonist_on_.resize(config_.antagonists.size());
  for (std::uint32_t a = 0; a < config_.antagonists.size(); ++a) {
    // It is on at the start with the probability that it is on at any time.
    const AntagonistConfig& antagonist = config_.antagonists[a];
    const bool on = antagonist_draw_.uniform() * (antagonist.on_s + antagonist.off_s) < antagonist.on_s;
    antagonist_on_[a] = on ? 0 : 1;
    nodes_[antagonist.node].antagonists.push_back(a);
    plan(0, Do::antagonist, a, antagonist.node);
  }
}

/// The next time that this random fault comes over the node; while arrivals last.
void Simulation::plan_random(std::uint32_t fault, std::uint32_t node, TimeNs from_ns) {
  const RandomFaultConfig& random = config_.random_faults[fault - config_.faults.size()];
  const double gap_s = random_faults_.exponential() * 3600.0 / random.rate_per_node_hour;
  const TimeNs at_ns = base::add_ns(from_ns, base::to_ns(gap_s));
  if (at_ns < arrivals_end_ns_) plan(at_ns, Do::fault_begins, fault, node);
}

void Simulation::carry_out(const Plan& due) {
  switch (due.what) {
    case Do::fault_begins:
      return begin_fault(due.index, due.node);
    case Do::fault_ends:
      return end_fault(due.index, due.node);
    case Do::model_loaded:
      if (nodes_[due.node].crashes != due.crashes || nodes_[due.node].is(FaultKind::crash)) return;
      fleet_.load_model(NodeId{due.node}, model_ids_[due.index]);
      return machine_.residency_changed(now_ns_, NodeId{due.node});
    case Do::load_ends:
      if (nodes_[due.node].crashes == due.crashes) end_load(due.node);  // else crash() said that it is off
      return;
    case Do::take_for_lost:
      if (nodes_[due.node].is(FaultKind::partition)) machine_.node_lost(now_ns_, NodeId{due.node});
      return;
    case Do::probe:
      return probe();
    case Do::signals:
      return send_signals();
    case Do::signals_arrive:
      return take_signals();
    case Do::antagonist:
      return switch_antagonist(due.index);
  }
}

// ---- faults

void Simulation::begin_fault(std::uint32_t index, std::uint32_t node) {
  const FaultConfig& fault = faults_[index];
  const bool random = index >= config_.faults.size();
  const double for_s = random ? fault.for_s * random_faults_.exponential() : fault.for_s;
  if (for_s > 0.0) plan(base::add_ns(now_ns_, base::to_ns(for_s)), Do::fault_ends, index, node);
  ++n_faults_;
  ++ledger_.node(node).faults;
  if (fault_events_.size() < fault_events_max) fault_events_.push_back({now_ns_, node, fault.kind, true});
  active_faults_.emplace_back(index, node);
  const bool first = nodes_[node].under[static_cast<std::size_t>(fault.kind)]++ == 0;
  combine_faults(node);
  if (fault.kind == FaultKind::crash && first) crash(node);
  if (fault.kind == FaultKind::hang && first) nodes_[node].hung_since_ns = now_ns_;
  if (fault.kind == FaultKind::partition)
    plan(base::add_ns(now_ns_, base::to_ns(config_.detect_s)), Do::take_for_lost, 0, node);
}

void Simulation::end_fault(std::uint32_t index, std::uint32_t node) {
  const FaultKind kind = faults_[index].kind;
  if (fault_events_.size() < fault_events_max) fault_events_.push_back({now_ns_, node, kind, false});
  active_faults_.erase(std::find(active_faults_.begin(), active_faults_.end(), std::pair{index, node}));
  const bool last = --nodes_[node].under[static_cast<std::size_t>(kind)] == 0;
  combine_faults(node);
  if (index >= config_.faults.size()) plan_random(index, node, now_ns_);
  if (!last) return;
  if (kind == FaultKind::crash) load_models(node);
  if (kind == FaultKind::hang) resume_runs(node);
  if (kind == FaultKind::crash || kind == FaultKind::hang || kind == FaultKind::partition) reachable_again(node);
}

/// Slow-downs multiply, and count for the runs that begin meanwhile; of error and loss rates the highest counts.
void Simulation::combine_faults(std::uint32_t index) {
  ModelledNode& node = nodes_[index];
  node.slow_factor = 1.0;
  node.error_rate = node.lost_rate = 0.0;
  for (const auto& [f, n] : active_faults_) {
    if (n != index) continue;
    const FaultConfig& fault = faults_[f];
    if (fault.kind == FaultKind::slow) node.slow_factor *= fault.factor;
    if (fault.kind == FaultKind::errors) node.error_rate = std::max(node.error_rate, fault.rate);
    if (fault.kind == FaultKind::lost_completions) node.lost_rate = std::max(node.lost_rate, fault.rate);
  }
}

/// Its connections break, so the engine knows at once; what it held in memory is gone.
void Simulation::crash(std::uint32_t index) {
  ModelledNode& node = nodes_[index];
  ++node.crashes;
  for (std::uint32_t run = node.first_run; run < node.first_run + node.n_runs; ++run) {
    if (!runs_[run].active) continue;
    set_run(run, base::never_ns);
    close_run(run, std::min(now_ns_, runs_[run].end_ns));
  }
  if (token_lines_[index]) crash_tokens(index);
  machine_.node_lost(now_ns_, NodeId{index});
  if (node.loading >= 0) {
    const ModelId model = model_ids_[static_cast<std::size_t>(std::exchange(node.loading, -1))];
    node.load_held = false;
    machine_.loaded(now_ns_, NodeId{index}, model, false, 0.0);
  }
  node.memory_in_use = 0;
  std::fill(node.in_memory.begin(), node.in_memory.end(), std::uint8_t{0});
  for (std::uint32_t m = 0; m < config_.models.size(); ++m) {
    node.cold[m] = 1;
    if (fleet_.resident(NodeId{index}, model_ids_[m])) fleet_.unload_model(NodeId{index}, model_ids_[m]);
  }
  machine_.residency_changed(now_ns_, NodeId{index});
}

/// One after another, in the order of the scenario. Where the engine decides, it asks for them.
void Simulation::load_models(std::uint32_t index) {
  if (!config_.residency.empty()) return;
  double after_s = 0.0;
  for (std::uint32_t m = 0; m < config_.models.size(); ++m) {
    if (config_.nodes[index].residency[m] == Residency::never || fleet_.resident(NodeId{index}, model_ids_[m]))
      continue;
    after_s += config_.models[m].load_s;
    plan(base::add_ns(now_ns_, base::to_ns(after_s)), Do::model_loaded, m, index);
  }
}

/// What the engine asks of a node's memory: an unload takes no time, a load the model's.
void Simulation::begin_load(const engine::Action& action) {
  check_memory(action);
  const std::uint32_t m = model_index_[action.member].value;
  ModelledNode& node = nodes_[action.node.value];
  note(std::uint64_t{action.node.value} << 32 | action.member);
  note(static_cast<std::uint64_t>(now_ns_) << 8 | static_cast<std::uint64_t>(action.kind));
  const bool loads = action.kind == engine::ActionKind::load;
  node.in_memory[m] = loads;
  const std::uint64_t bytes = config_.models[m].engine.weights_bytes;
  node.memory_in_use = loads ? node.memory_in_use + bytes : node.memory_in_use - bytes;
  if (!loads) return;
  node.cold[m] = 1;
  node.loading = static_cast<std::int32_t>(m);
  TimeNs from_ns = now_ns_;
  for (std::uint32_t run = node.first_run; run < node.first_run + node.n_runs; ++run) {
    const bool waits = !config_.nodes[action.node.value].loads_beside_runs && runs_[run].active;
    if (waits) from_ns = std::max(from_ns, runs_[run].end_ns);
  }
  node.load_begun_ns = from_ns;
  const TimeNs takes_ns = base::to_ns(config_.models[m].load_s * node.slow_factor);
  plan(base::add_ns(from_ns, takes_ns + 2 * node.half_rtt_ns), Do::load_ends, m, action.node.value);
  ledger_.loaded(action.node.value, now_ns_);
}

void Simulation::end_load(std::uint32_t index) {
  ModelledNode& node = nodes_[index];
  node.load_held = !node.answers();  // then reachable_again() brings it
  if (node.load_held) return;
  const ModelId model = model_ids_[static_cast<std::size_t>(std::exchange(node.loading, -1))];
  machine_.loaded(now_ns_, NodeId{index}, model, true, base::seconds(now_ns_ - node.load_begun_ns));
  called_.push_back(NodeId{index});  // what it was given meanwhile, where it loads in turn with its runs
}

bool Simulation::idle(std::uint32_t index) const noexcept {
  const ModelledNode& node = nodes_[index];
  return std::none_of(runs_.begin() + node.first_run, runs_.begin() + node.first_run + node.n_runs,
                      [](const Run& run) { return run.active; });
}

/// After a hang, what was running goes on where it stood.
void Simulation::resume_runs(std::uint32_t index) {
  const ModelledNode& node = nodes_[index];
  if (token_lines_[index]) return resume_tokens(index);
  for (std::uint32_t i = node.first_run; i < node.first_run + node.n_runs; ++i) {
    Run& run = runs_[i];
    if (!run.active || run.end_ns <= node.hung_since_ns) continue;  // its answer is under way, or held
    const TimeNs left_ns = run.end_ns - std::max(run.start_ns, node.hung_since_ns);
    run.end_ns = base::add_ns(std::max(now_ns_, run.start_ns), left_ns);
    run.held = false;
    set_run(i, base::add_ns(run.end_ns, node.half_rtt_ns));
  }
}

void Simulation::reachable_again(std::uint32_t index) {
  const ModelledNode& node = nodes_[index];
  if (!node.answers()) return;
  if (node.load_held) end_load(index);
  if (token_lines_[index]) tokens_reachable_again(index);
  for (std::uint32_t run = node.first_run; run < node.first_run + node.n_runs; ++run) {
    if (runs_[run].active && runs_[run].held) set_run(run, now_ns_);
  }
  if (idle(index)) machine_.node_back(now_ns_, NodeId{index});
}

/// Lost nodes that answer and have nothing running any more are taken back.
void Simulation::probe() {
  for (std::uint32_t node = 0; node < nodes_.size(); ++node) {
    if (fleet_.state(NodeId{node}) != route::NodeState::lost) continue;
    if (!nodes_[node].answers() || !idle(node)) continue;
    machine_.node_back(now_ns_, NodeId{node});
    if (fleet_.state(NodeId{node}) == route::NodeState::lost)
      violated("a node that is back is still lost", {.node = NodeId{node}});
  }
  if (may_change()) plan(base::add_ns(now_ns_, base::to_ns(config_.probe_s)), Do::probe);
}

/// Whether anything is still to come that a probe might be needed for.
bool Simulation::may_change() const noexcept {
  if (now_ns_ < arrivals_end_ns_ || !plans_.empty()) return true;
  if (machine_.n_pending() == 0) return false;
  // A run that nobody will hear of has only the engine's patience left: its node is lost then, and has to come back.
  return machine_.next_timer_ns() != base::never_ns ||
         std::any_of(runs_.begin(), runs_.end(), [](const Run& r) { return r.active && !r.held; });
}

// ---- signals and other users

void Simulation::send_signals() {
  for (std::uint32_t n = 0; n < nodes_.size(); ++n) {
    const ModelledNode& node = nodes_[n];
    if (!node.answers() || node.is(FaultKind::freeze_signals)) continue;
    if (config_.signal_loss > 0.0 && signal_draw_.uniform() < config_.signal_loss) continue;
    std::uint32_t n_active = 0;
    for (std::uint32_t run = node.first_run; run < node.first_run + node.n_runs; ++run) n_active += runs_[run].active;
    // What others use of the machine is what makes its runs so many times as long.
    const double others = 1.0 - 1.0 / std::max(1.0, node.antagonist_factor);
    const double busy = std::min(1.0, others + static_cast<double>(n_active) / node.n_runs);
    contracts::Signal signal;
    signal.as_of_ns = now_ns_;
    (config_.nodes[n].spec.kind == "gpu" ? signal.gpu : signal.cpu) = busy;
    late_signals_.push({base::add_ns(now_ns_, base::to_ns(config_.signal_delay_s)), n, signal});
  }
  if (!late_signals_.empty()) plan(late_signals_.back().at_ns, Do::signals_arrive);
  const TimeNs next_ns = base::add_ns(now_ns_, base::to_ns(config_.signal_period_s));
  if (next_ns < arrivals_end_ns_) plan(next_ns, Do::signals);
}

void Simulation::take_signals() {
  for (; !late_signals_.empty() && late_signals_.front().at_ns <= now_ns_; late_signals_.pop()) {
    fleet_.signal(NodeId{late_signals_.front().node}, late_signals_.front().signal);
  }
}

void Simulation::switch_antagonist(std::uint32_t index) {
  const AntagonistConfig& antagonist = config_.antagonists[index];
  antagonist_on_[index] ^= 1;
  ModelledNode& node = nodes_[antagonist.node];
  node.antagonist_factor = 1.0;
  for (const std::uint32_t a : node.antagonists) {
    if (antagonist_on_[a] != 0) node.antagonist_factor *= config_.antagonists[a].factor;
  }
  const double mean_s = antagonist_on_[index] != 0 ? antagonist.on_s : antagonist.off_s;
  const TimeNs next_ns = base::add_ns(now_ns_, base::to_ns(mean_s * antagonist_draw_.exponential()));
  if (next_ns < arrivals_end_ns_) plan(next_ns, Do::antagonist, index, antagonist.node);
}

}  // namespace infcore::sim
