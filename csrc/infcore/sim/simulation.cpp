#include <infcore/sim/simulation.hpp>

#include <algorithm>
#include <bit>
#include <limits>

namespace infcore::sim {
namespace {

constexpr std::uint64_t engine_seed = 1, node_seed = std::uint64_t{2} << 32;  // consumers of the run's seed

// The bound: not a policy, since it serves each request as if it were alone.
constexpr std::string_view clairvoyant = "clairvoyant", any_policy = "round_robin";

std::uint32_t n_runs_of(const SimConfig& config) noexcept {
  std::uint32_t n = 0;
  for (const NodeConfig& node : config.nodes) n += node.spec.slots;
  return n;
}

engine::EngineConfig engine_config(const SimConfig& config) {
  return {.max_requests = config.max_requests,
          .max_nodes = static_cast<std::uint32_t>(config.nodes.size()),
          .max_models = static_cast<std::uint32_t>(2 * config.models.size()),  // each also as "any version"
          .n_tiers = config.n_tiers,
          .ageing_ns = config.ageing_s > 0.0 ? base::to_ns(config.ageing_s) : base::never_ns,
          .attempts_max = config.attempts_max,
          .stage_histograms = false,
          .admission = config.admission,
          .overload_wait_ns = config.overload_wait_s > 0.0 ? base::to_ns(config.overload_wait_s) : base::never_ns,
          .tier_capacity = config.tier_capacity,
          .shed_lowest = config.shed_lowest,
          .hedge_quantile = config.hedge_quantile,
          .hedge_budget = config.hedge_budget,
          .retry_budget = config.retry_budget,
          .residency = config.residency,
          .judges_health = config.judges_health};
}

/// Spread evenly over the requests by the golden ratio's low-discrepancy sequence, the same under every policy.
bool has_stale(std::uint64_t number, double share) noexcept {
  const double at = static_cast<double>(number * 0x9E37'79B9'7F4A'7C15u >> 11) * 0x1p-53;
  return at < share;
}

}  // namespace

Simulation::Simulation(const SimConfig& config, bool with_rows, bool with_log)
    : config_(config),
      fleet_(static_cast<std::uint32_t>(config.nodes.size()), static_cast<std::uint32_t>(2 * config.models.size())),
      latency_(fleet_.max_nodes(), fleet_.max_models()),
      machine_(engine_config(config), fleet_, latency_,
               route::make_routing_policy(config.policy == clairvoyant ? any_policy : config.policy,
                                          base::Draw(config.seed, engine_seed).bits(), config.policy_options),
               batch::make_batching_policy(config.batching)),
      ledger_(config),
      runs_(n_runs_of(config)),
      first_run_owner_(first_stream_owner + static_cast<std::uint32_t>(config.workloads.size())),
      first_wake_owner_(first_run_owner_ + n_runs_of(config)),
      first_token_owner_(first_wake_owner_ + static_cast<std::uint32_t>(config.nodes.size())),
      opens_(std::size_t{config.max_requests} + 1),
      handoff_ns_(base::to_ns(config.handoff_s)),
      answer_ns_(base::to_ns(config.answer_s)),
      random_faults_(config.seed, 2),
      signal_draw_(config.seed, 3),
      antagonist_draw_(config.seed, 4),
      arrivals_end_ns_(base::to_ns(config.seconds)),
      bound_only_(config.policy == clairvoyant) {
  agenda_.resize(first_token_owner_ + static_cast<std::uint32_t>(config.nodes.size()));
  if (with_log) log_.emplace(config, config.policy);
  if (with_rows) rows_.emplace();
  for (std::size_t i = opens_.size(); i-- > 0;) free_opens_.push_back(static_cast<std::uint32_t>(i));
  add_nodes();
  for (std::uint32_t w = 0; w < config.workloads.size(); ++w) {
    streams_.emplace_back(config.workloads[w], w, config.seconds, config.seed);
    agenda_.move(first_stream_owner + w, streams_.back().next_ns());
    require_bits_.push_back(config.workloads[w].require.empty() ? 0
                                                                : fleet_.label_bits(config.workloads[w].require, true));
  }
  find_floors();
  if (!bound_only_) plan_disturbances();
  // Runs under another name, rule or seed have other digests even where they decide the same.
  for (const char c : config.policy + '/' + config.batching) note(static_cast<unsigned char>(c));
  note(config.seed);
}

void Simulation::add_nodes() {
  for (std::uint32_t m = 0; m < config_.models.size(); ++m) {
    const ModelId id = fleet_.model_id(config_.models[m].name, 1);
    model_ids_.push_back(id);
    if (model_index_.size() <= id.value) model_index_.resize(id.value + 1);
    model_index_[id.value] = ModelId{m};
  }
  for (std::uint32_t m = 0; m < config_.models.size(); ++m) {
    engine::ModelConfig model = config_.models[m].engine;
    model.load_s = config_.models[m].load_s;
    if (model.fallback != engine::no_model) model.fallback = model_ids_[model.fallback.value];
    machine_.add_model(model_ids_[m], model);
  }
  nodes_.resize(config_.nodes.size());
  token_lines_.resize(config_.nodes.size());
  for (std::uint32_t node = 0; node < nodes_.size(); ++node) add_node(node);
}

void Simulation::add_node(std::uint32_t index) {
  const NodeConfig& config = config_.nodes[index];
  ModelledNode& node = nodes_[index];
  node.draw = base::Draw(config_.seed, node_seed + index);
  node.half_rtt_ns = base::to_ns(0.5 * config.spec.rtt_s);
  node.first_run = index == 0 ? 0 : nodes_[index - 1].first_run + nodes_[index - 1].n_runs;
  node.n_runs = config.spec.slots;
  node_of_run_.resize(node.first_run + node.n_runs, index);
  node.cold.resize(config_.models.size(), 1);
  node.in_memory.resize(config_.models.size());
  const NodeId id = fleet_.add(config.spec);
  const auto token_service = static_cast<std::size_t>(config.token_service);
  machine_.add_node(id, {.run_limit_ns = config_.run_limit_s > 0.0 ? base::to_ns(config_.run_limit_s) : base::never_ns,
                         .kv_blocks = config.token_service >= 0 ? config_.token_services[token_service].n_blocks : 0,
                         .loads_beside_runs = config.loads_beside_runs});
  for (std::uint32_t m = 0; m < config_.models.size(); ++m) {
    const std::int32_t service = config.service[m];
    if (service >= 0 && config_.curves_known) {
      contracts::Curve told = config_.services[static_cast<std::size_t>(service)].curve;
      told.base_s += config.spec.rtt_s;  // what the engine measures includes the way there and back
      latency_.set_prior(model_ids_[m], id, told);
    }
    node.spread.emplace_back(service < 0 ? 0.0 : config_.services[static_cast<std::size_t>(service)].cv);
    if (config.residency[m] != Residency::holds) continue;
    fleet_.load_model(id, model_ids_[m]);
    node.cold[m] = 0;
    node.in_memory[m] = 1;
    node.memory_in_use += config_.models[m].engine.weights_bytes;
  }
  machine_.residency_changed(0, id);
  for (std::uint32_t m = 0; !config_.residency.empty() && m < config_.models.size(); ++m) {
    if (config.residency[m] != Residency::never) machine_.may_hold(0, id, model_ids_[m], true);
  }
  load_models(index);
  if (config.token_service >= 0) add_token_line(index);
}

/// For each workload the kinds of nodes that can serve it, each once.
void Simulation::find_floors() {
  for (std::uint32_t w = 0; w < config_.workloads.size(); ++w) {
    const std::uint32_t model = config_.workloads[w].model.value;
    std::vector<FloorCurve>& floors = floors_.emplace_back();
    for (std::uint32_t n = 0; n < nodes_.size(); ++n) {
      const NodeConfig& node = config_.nodes[n];
      if (node.residency[model] == Residency::never || !fleet_.columns().carries(n, require_bits_[w])) continue;
      const std::int32_t service = node.token_service >= 0 ? node.token_service : node.service[model];
      const FloorCurve floor{.service = static_cast<std::uint32_t>(service),
                             .node = n,
                             .rtt_s = node.spec.rtt_s,
                             .slot_price_per_hour = node.spec.price_per_hour / node.spec.slots};
      const auto alike = [&](const FloorCurve& f) {
        return f.service == floor.service && f.rtt_s == floor.rtt_s &&
               f.slot_price_per_hour == floor.slot_price_per_hour;
      };
      if (std::none_of(floors.begin(), floors.end(), alike)) floors.push_back(floor);
    }
  }
}

Simulation::Floor Simulation::floor_of(const Arrival& arrival) const noexcept {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const std::uint32_t workload = arrival.workload;
  const double work = arrival.work;
  const ModelConfig& model = config_.models[config_.workloads[workload].model.value];
  if (model.tokens) return token_floor_of(workload, arrival.tokens);
  Floor least{infinity, infinity, base::no_node.value};
  for (const FloorCurve& floor : floors_[workload]) {
    const contracts::Curve& curve = config_.services[floor.service].curve;
    const double latency_s = curve.service_s({1, work, work}) + floor.rtt_s;
    if (latency_s < least.latency_s) least.latency_s = latency_s, least.node = floor.node;
    const double share_s = curve.base_s / model.engine.max_batch_size + curve.per_request_s +
                           (curve.per_work_s + curve.per_padded_work_s) * work;
    least.cost_usd = std::min(least.cost_usd, share_s * floor.slot_price_per_hour / 3600.0);
  }
  return least;
}

// ---- the loop

Pause Simulation::run(std::uint64_t steps_max) {
  for (std::uint64_t step_left = steps_max; step_left > 0; --step_left) {
    if (n_violations_ > 0) return Pause::end;  // from here on nothing means anything
    if (machine_.routing().failed()) machine_.routing().rethrow();
    if (rows_) {
      if (rows_->starved()) return Pause::rows;
      agenda_.move(rows_owner, rows_->next_ns());
    }
    const TimeNs next_ns = std::min(agenda_.next_ns(), machine_.next_timer_ns());
    if (next_ns == base::never_ns) {
      if (machine_.n_pending() == 0) return Pause::end;
      check_nobody_waits_for_ever();
      machine_.cancel_all(now_ns_, engine::Reason::closing);  // nothing will ever come for them
      settle();
      continue;
    }
    if (next_ns < now_ns_) violated("time went back", {});
    now_ns_ = next_ns;
    if (agenda_.next_ns() == now_ns_) {
      step(agenda_.next_owner());
    } else {
      settle();
    }
    ++n_steps_;
    if (log_ && log_->full()) return Pause::log;
  }
  return Pause::steps;
}

void Simulation::step(std::uint32_t owner) {
  if (owner >= first_token_owner_) {
    token_event(owner - first_token_owner_);
  } else if (owner >= first_wake_owner_) {
    agenda_.move(owner, base::never_ns);
    claim(NodeId{owner - first_wake_owner_});
  } else if (owner >= first_run_owner_) {
    run_done(owner - first_run_owner_);
  } else if (owner >= first_stream_owner) {
    ArrivalStream& stream = streams_[owner - first_stream_owner];
    const Arrival arrival = stream.pop();
    agenda_.move(owner, stream.next_ns());
    arrive(arrival);
  } else if (owner == rows_owner) {
    const Arrival arrival = rows_->pop();
    recorded_ = rows_->pop_names(arrival.n_names);
    arrive(arrival);
    recorded_ = {};
  } else {
    const Plan due = plans_.top();
    plans_.pop();
    agenda_.move(plans_owner, plans_.empty() ? base::never_ns : plans_.top().at_ns);
    carry_out(due);
  }
  settle();
  ending_.reset();
  awake_ = base::no_node;
}

void Simulation::arrive(const Arrival& arrival) {
  if (bound_only_) return arrive_at_floor(arrival);
  const std::uint32_t index = free_opens_.back();
  free_opens_.pop_back();
  Open& open = opens_[index];
  open.arrival = arrival;
  open.recorded.assign(recorded_.begin(), recorded_.end());
  open.number = n_arrived_++;
  open.node = base::no_node.value;
  open.attempts = 0;
  open.form = engine::Reason::none;
  open.open = true;
  ++n_open_;
  contracts::Request request;
  request.cookie = std::uint64_t{open.generation} << 32 | index;
  request.arrival_ns = now_ns_;
  request.deadline_ns =
      arrival.deadline_ns == base::never_ns ? base::never_ns : base::add_ns(now_ns_, arrival.deadline_ns);
  request.work = arrival.work;
  request.require = require_bits_[arrival.workload];
  request.model = model_ids_[config_.workloads[arrival.workload].model.value];
  request.tier = arrival.tier;
  // A row's own, else its workload's.
  request.tenant = arrival.tenant != 0 ? arrival.tenant : config_.workloads[arrival.workload].tenant;
  request.defer_ns = base::to_ns(config_.workloads[arrival.workload].defer_s);
  request.has_stale = has_stale(open.number, config_.workloads[arrival.workload].stale_share);
  request.session = arrival.session;
  if (arrival.tokens.output > 0 && machine_.reads_blocks()) tell_prompt(open, request);
  open.handle = machine_.arrive(now_ns_, request);
}

/// What a clairvoyant cannot do better: each request at once, alone, on the node that is fastest for it; and, apart
/// from that, at the least price of its share of a full batch. What no node ever holds the model of ends as under a
/// policy: late, or cancelled at the end.
void Simulation::arrive_at_floor(const Arrival& arrival) {
  const Floor floor = floor_of(arrival);
  const TimeNs deadline_ns = base::add_ns(now_ns_, arrival.deadline_ns);
  const TimeNs end_ns = base::add_ns(now_ns_, base::to_ns(floor.latency_s));
  Ended e{.number = n_arrived_++,
          .arrival_ns = now_ns_,
          .deadline_ns = arrival.deadline_ns == base::never_ns ? base::never_ns : deadline_ns,
          .start_ns = now_ns_,
          .end_ns = now_ns_,
          .work = arrival.work,
          .floor_s = floor.latency_s,
          .workload = arrival.workload,
          .attempts = 1,
          .model = config_.workloads[arrival.workload].model,
          .tier = arrival.tier,
          .session = arrival.session,
          .tokens = arrival.tokens,
          .outcome = arrival.deadline_ns == base::never_ns ? Outcome::cancelled : Outcome::expired};
  if (floor.node != base::no_node.value && end_ns <= deadline_ns) {
    e.outcome = Outcome::ok;
    e.end_ns = end_ns;
    e.node = floor.node;
    e.batch_size = 1;
    e.first_token_ns = base::add_ns(now_ns_, base::to_ns(floor.ttft_s));
    if (now_ns_ >= base::to_ns(config_.warmup_s)) bound_cost_usd_ += floor.cost_usd;
  }
  note(static_cast<std::uint64_t>(end_ns));
  ledger_.ended(e);
  if (log_) log_->add(e);
}

/// The owner's step of the live driver: decide, carry out, let the called nodes claim, until nothing follows.
void Simulation::settle() {
  do {
    machine_.tick(now_ns_);
    machine_.schedule(now_ns_);
    std::vector<engine::Action>& actions = machine_.actions();
    for (const engine::Action& action : actions) carry_out(action);
    actions.clear();
    call_nodes();
  } while ((!machine_.actions().empty() || !called_.empty()) && n_violations_ == 0);
  if (machine_.n_pending() != n_open_) violated("open requests are not the machine's", {});
}

void Simulation::carry_out(const engine::Action& action) {
  if (engine::is_of_model(action.kind)) return begin_load(action);
  check(action);
  Open& open = opens_[static_cast<std::uint32_t>(action.cookie)];
  note(open.number * 0x9E37'79B9'7F4A'7C15u + static_cast<std::uint64_t>(now_ns_));
  note(std::uint64_t{action.node.value} << 16 | static_cast<std::uint64_t>(action.kind) << 8 |
       static_cast<std::uint64_t>(action.reason));
  switch (action.kind) {
    case engine::ActionKind::dispatch:
      open.node = action.node.value;
      if (action.reason != engine::Reason::none) open.form = action.reason;
      open.hedged = false;
      ++open.attempts;
      if (called_.empty() || called_.back() != action.node) called_.push_back(action.node);
      return;
    case engine::ActionKind::hedge:
      open.hedged = true;
      ++open.attempts;
      if (called_.empty() || called_.back() != action.node) called_.push_back(action.node);
      return;
    case engine::ActionKind::retry:
      open.node = base::no_node.value;
      return;
    case engine::ActionKind::defer:
      open.form = action.reason;
      return;
    case engine::ActionKind::reject:
      return end(action, Outcome::rejected);
    case engine::ActionKind::shed:
      return end(action, action.reason == engine::Reason::deadline ? Outcome::expired : Outcome::shed);
    case engine::ActionKind::cancel:
      return end(action, Outcome::cancelled);
    case engine::ActionKind::complete:
      return end(action, action.reason == engine::Reason::ok || action.reason == engine::Reason::stale ||
                                 action.reason == engine::Reason::cached
                             ? Outcome::ok
                             : Outcome::failed);
    default:
      return violated("an action that the simulator does not know", action);
  }
}

void Simulation::end(const engine::Action& action, Outcome outcome) {
  const auto index = static_cast<std::uint32_t>(action.cookie);
  Open& open = opens_[index];
  if (!open.open || open.generation != action.cookie >> 32) {
    ++n_duplicated_;
    return;
  }
  if (action.node != base::no_node) open.node = action.node.value;  // of two that had it, the one that ended it
  Ended e{.number = open.number,
          .arrival_ns = open.arrival.at_ns,
          .deadline_ns = open.arrival.deadline_ns == base::never_ns
                             ? base::never_ns
                             : base::add_ns(open.arrival.at_ns, open.arrival.deadline_ns),
          .end_ns = now_ns_,
          .work = open.arrival.work,
          .workload = open.arrival.workload,
          .node = open.node,
          .attempts = open.attempts,
          .model = config_.workloads[open.arrival.workload].model,
          .tier = open.arrival.tier,
          .session = open.arrival.session,
          .tokens = open.arrival.tokens,
          .outcome = outcome,
          .reason = action.reason,
          .form = action.reason == engine::Reason::stale ? action.reason : open.form,
          .hint_s = action.hint_s};
  const bool ran = ending_ && action.batch_id == ending_->batch_id && open.node != base::no_node.value;
  if (ran && outcome != Outcome::expired) {
    e.start_ns = ending_->start_ns;
    e.batch_size = ending_->n_requests;
    e.first_token_ns = ending_tokens_.first_ns;
    e.n_cached = ending_tokens_.n_cached;
  }
  const bool stale = e.form == engine::Reason::stale;
  if (outcome == Outcome::ok && stale) e.start_ns = now_ns_;
  if (outcome == Outcome::ok && !stale && e.form != engine::Reason::cheaper) {
    e.floor_s = floor_of(open.arrival).latency_s;
  }
  open.open = false;
  ++open.generation;
  free_opens_.push_back(index);
  --n_open_;
  ledger_.ended(e);
  if (log_) log_->add(e);
}

// ---- devices

void Simulation::call_nodes() {
  for (std::size_t i = 0; i < called_.size(); ++i) {
    const std::uint32_t wake = first_wake_owner_ + called_[i].value;
    if (handoff_ns_ == 0 || called_[i] == awake_) {
      claim(called_[i]);
    } else if (agenda_.at_ns(wake) == base::never_ns) {
      agenda_.move(wake, base::add_ns(now_ns_, handoff_ns_));
    }
  }
  called_.clear();
}

void Simulation::claim(NodeId node) {
  if (nodes_[node.value].loading >= 0 && !config_.nodes[node.value].loads_beside_runs) return;  // its worker loads
  while (const engine::Batch* batch = machine_.claim(now_ns_, node)) start_run(node, *batch);
}

void Simulation::start_run(NodeId id, const engine::Batch& batch) {
  ModelledNode& node = nodes_[id.value];
  std::uint32_t index = node.first_run;
  while (index < node.first_run + node.n_runs && runs_[index].active) ++index;
  const std::uint32_t model = model_index_[batch.model.value].value;
  if (index == node.first_run + node.n_runs) return violated("a node was given more batches than it has slots", {});
  if (batch.shape.n_requests > config_.models[model].engine.max_batch_size) violated("a batch is too large", {});
  if (token_lines_[id.value]) return start_sequence(id.value, index, batch);
  const Service& service = config_.services[static_cast<std::size_t>(config_.nodes[id.value].service[model])];
  double service_s = service.curve.service_s(batch.shape) * node.spread[model].draw(node.draw);
  service_s *= node.slow_factor * node.antagonist_factor;
  if (node.cold[model] != 0) service_s += config_.models[model].warmup_s;
  node.cold[model] = 0;
  Run& run = runs_[index];
  run.batch_id = batch.id;
  run.start_ns = base::add_ns(now_ns_, node.half_rtt_ns);
  run.end_ns = base::add_ns(run.start_ns, base::to_ns(service_s));
  run.model = ModelId{model};
  run.n_requests = batch.shape.n_requests;
  run.active = true;
  run.held = false;
  draw_failure(node, run);
  set_run(index, base::add_ns(run.end_ns, node.half_rtt_ns + answer_ns_));
  machine_.started(now_ns_, id, batch.id);
}

void Simulation::draw_failure(ModelledNode& node, Run& run) noexcept {
  run.fails = node.error_rate > 0.0 && node.draw.uniform() < node.error_rate;
  run.silent = node.lost_rate > 0.0 && node.draw.uniform() < node.lost_rate;
}

void Simulation::run_done(std::uint32_t index) {
  Run& run = runs_[index];
  const NodeId id{node_of_run_[index]};
  set_run(index, base::never_ns);
  if (nodes_[id.value].stalled()) {
    run.held = true;  // reachable_again() brings it
    return;
  }
  close_run(index, run.end_ns);
  if (run.silent) return;
  ending_ = run;
  awake_ = id;
  if (token_lines_[id.value]) end_sequence(index);
  if (!machine_.complete(now_ns_, id, run.batch_id, !run.fails) && idle(id.value)) machine_.node_back(now_ns_, id);
}

void Simulation::close_run(std::uint32_t index, TimeNs end_ns) noexcept {
  Run& run = runs_[index];
  run.active = run.held = false;
  if (token_lines_[node_of_run_[index]]) return;  // whose use is counted step by step
  ledger_.ran(node_of_run_[index], run.start_ns, end_ns, run.n_requests);
}

}  // namespace infcore::sim
