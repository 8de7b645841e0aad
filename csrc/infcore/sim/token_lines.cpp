// Nodes that make tokens: a request is a run of its own there, from the call until its last token's answer is in; steps
// are the device's affair (token_node.hpp). Half a round trip lies before a request's first step and after its tokens.
#include <infcore/sim/simulation.hpp>

#include <algorithm>
#include <limits>

namespace infcore::sim {
namespace {

constexpr std::uint64_t step_seed = std::uint64_t{3} << 32;  // consumer of the run's seed, beside the nodes' own

/// Seconds of prefilling so many tokens alone, in chunks as large as the budget lets them be.
double prefill_s(const TokenService& service, std::uint32_t n_tokens) noexcept {
  const std::uint32_t n_full = n_tokens / service.token_budget, rest = n_tokens % service.token_budget;
  const double full_s = n_full > 0 ? service.curve.step_s({service.token_budget, 0, 0}) : 0.0;
  return n_full * full_s + (rest > 0 ? service.curve.step_s({rest, 0, 0}) : 0.0);
}

struct Contexts {
  double n, sum, sum_of_squares;
};

/// Of the decoding steps of a sequence: with each, the context is a token longer.
Contexts contexts_of(const TokenWork& work) noexcept {
  const double n = work.output - 1.0, first = work.prompt + 1.0;
  return {n, n * first + n * (n - 1.0) / 2.0,
          n * first * first + first * n * (n - 1.0) + (n - 1.0) * n * (2.0 * n - 1.0) / 6.0};
}

/// Node-seconds that a request takes at the least: its part of steps as full as they can be.
double share_s(const TokenService& service, const TokenWork& work, std::uint32_t n_new) noexcept {
  const contracts::TokenCurve& curve = service.curve;
  const Contexts contexts = contexts_of(work);
  const double running = std::min(service.max_running, service.token_budget);
  const double most = running * service.context_tokens_max;
  const double per_context_s = curve.per_context_token_s + std::min(0.0, curve.per_context_token2_s) * most;
  return (n_new + contexts.n) * curve.base_s / service.token_budget +
         n_new * (curve.prefill_base_s / service.token_budget + curve.per_prefill_token_s) +
         contexts.n * (curve.decode_base_s / running + curve.per_decode_s) +
         contexts.sum * std::max(0.0, per_context_s);
}

}  // namespace

void Simulation::add_token_line(std::uint32_t index) {
  const NodeConfig& config = config_.nodes[index];
  const TokenService& service = config_.token_services[static_cast<std::size_t>(config.token_service)];
  token_lines_[index] = std::make_unique<TokenLine>(
      TokenLine{TokenNode(service, nodes_[index].n_runs, base::Draw(config_.seed, step_seed + index))});
  token_runs_.resize(runs_.size());
}

Simulation::Floor Simulation::token_floor_of(std::uint32_t workload, const TokenWork& work) const noexcept {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  Floor least{infinity, infinity, base::no_node.value, infinity};
  const std::uint32_t n_new = work.prompt - std::min(work.known, work.prompt - 1);
  const Contexts contexts = contexts_of(work);
  for (const FloorCurve& floor : floors_[workload]) {
    const TokenService& service = config_.token_services[floor.service];
    const contracts::TokenCurve& curve = service.curve;
    const double decode_s = contexts.n * (curve.base_s + curve.decode_base_s + curve.per_decode_s) +
                            curve.per_context_token_s * contexts.sum +
                            curve.per_context_token2_s * contexts.sum_of_squares;
    const double ttft_s = prefill_s(service, n_new) + floor.rtt_s;
    const double latency_s = ttft_s + std::max(0.0, decode_s);
    least.ttft_s = std::min(least.ttft_s, ttft_s);
    if (latency_s < least.latency_s) least.latency_s = latency_s, least.node = floor.node;
    const double slots = config_.nodes[floor.node].spec.slots;
    const double cost_usd = share_s(service, work, n_new) * floor.slot_price_per_hour * slots / 3600.0;
    least.cost_usd = std::min(least.cost_usd, cost_usd);
  }
  return least;
}

/// What a live engine finds out at submit: the names of the prompt's blocks, as the first kind of node pages it.
void Simulation::tell_prompt(Open& open, contracts::Request& request) {
  const TokenWork& work = open.arrival.tokens;
  const std::vector<FloorCurve>& served_by = floors_[open.arrival.workload];
  if (served_by.empty()) return;
  request.block_size = config_.token_services[served_by.front().service].block_size;
  request.prompt_tokens = work.prompt;
  TokenContent(work, open.recorded).prompt(request.block_size, prompt_scratch_, open.blocks);
  request.blocks = open.blocks.data();
  request.n_blocks = static_cast<std::uint32_t>(open.blocks.size());
}

void Simulation::start_sequence(std::uint32_t index, std::uint32_t run_index, const engine::Batch& batch) {
  ModelledNode& node = nodes_[index];
  const std::uint32_t model = model_index_[batch.model.value].value;
  Run& run = runs_[run_index];
  run.batch_id = batch.id;
  run.start_ns = base::add_ns(now_ns_, node.half_rtt_ns);
  run.end_ns = base::never_ns;
  run.model = ModelId{model};
  run.n_requests = 1;
  run.active = true;
  run.held = false;
  draw_failure(node, run);
  TokenLine& line = *token_lines_[index];
  if (node.cold[model] != 0) line.warmup_s = config_.models[model].warmup_s;
  node.cold[model] = 0;
  const Open& open = opens_[static_cast<std::uint32_t>(machine_.cookie(batch.members.front()))];
  const Arrival& arrival = open.arrival;
  token_runs_[run_index] = {.handle = open.handle, .arrival_ns = arrival.at_ns};
  line.device.expect(
      run_index - node.first_run, arrival.tokens, open.recorded,
      arrival.deadline_ns == base::never_ns ? base::never_ns : base::add_ns(arrival.at_ns, arrival.deadline_ns),
      arrival.tier);
  line.incoming.push({run.start_ns, run_index});
  machine_.started(now_ns_, NodeId{index}, batch.id);
  set_token_timer(index);
}

void Simulation::set_token_timer(std::uint32_t index) {
  const TokenLine& line = *token_lines_[index];
  TimeNs at_ns = line.device.next_ns();
  if (!line.incoming.empty()) at_ns = std::min(at_ns, line.incoming.front().at_ns);
  agenda_.move(first_token_owner_ + index,
               nodes_[index].is(FaultKind::hang) ? base::never_ns : std::max(at_ns, now_ns_));
}

/// A step ends, a request comes in, or both; whatever is there then goes into the next step.
void Simulation::token_event(std::uint32_t index) {
  TokenLine& line = *token_lines_[index];
  const ModelledNode& node = nodes_[index];
  if (line.device.step_is_out() && line.device.next_ns() <= now_ns_) end_token_step(index);
  while (!line.incoming.empty() && line.incoming.front().at_ns <= now_ns_) {
    const std::uint32_t run = line.incoming.front().run;
    line.incoming.pop();
    line.device.add(run - node.first_run, now_ns_);
  }
  if (!line.device.step_is_out() && line.device.n_sequences() > 0) {
    line.device.begin_step(now_ns_, node.slow_factor * node.antagonist_factor, std::exchange(line.warmup_s, 0.0));
  }
  if (const char* broken = line.device.broken(); *broken != 0) violated(broken, {.node = NodeId{index}});
  set_token_timer(index);
}

void Simulation::end_token_step(std::uint32_t index) {
  const ModelledNode& node = nodes_[index];
  TokenNode& device = token_lines_[index]->device;
  const TimeNs begin_ns = device.step_begin_ns();
  const TimeNs answer_ns = base::add_ns(now_ns_, node.half_rtt_ns + answer_ns_);
  const bool heard = !node.is(FaultKind::partition);
  if (heard) machine_.progress(now_ns_, NodeId{index});  // as the live worker does: who makes steps does not hang
  for (const TokenNode::Event& event : device.end_step(now_ns_)) {
    const std::uint32_t index_of_run = node.first_run + event.run;
    Run& run = runs_[index_of_run];
    TokenRun& tokens = token_runs_[index_of_run];
    if (event.n_tokens == 1) {
      tokens.first_ns = heard ? answer_ns : base::never_ns;
      tokens.n_cached = event.n_cached;
      if (heard) machine_.first_token(now_ns_, NodeId{index}, run.batch_id);
    } else if (!event.expired) {
      ledger_.token_after(run.model, tokens.arrival_ns, now_ns_ - event.before_ns);
    }
    if (!event.ends) continue;
    tokens.expired = event.expired;
    run.end_ns = now_ns_;
    set_run(index_of_run, answer_ns);
  }
  ledger_.ran(index, begin_ns, now_ns_, 1, node.n_runs);
}

/// Its answer is in: what the machine is told before it is told of the batch.
void Simulation::end_sequence(std::uint32_t run) {
  ending_tokens_ = token_runs_[run];
  if (ending_tokens_.expired) machine_.cancel(now_ns_, ending_tokens_.handle, engine::Reason::deadline);
}

void Simulation::crash_tokens(std::uint32_t index) {
  TokenLine& line = *token_lines_[index];
  if (line.device.step_is_out()) ledger_.ran(index, line.device.step_begin_ns(), now_ns_, 1, nodes_[index].n_runs);
  line.device.crash();
  line.incoming = {};
  set_token_timer(index);
}

/// After a hang: the step that was under way goes on where it stood.
void Simulation::resume_tokens(std::uint32_t index) {
  token_lines_[index]->device.delay(now_ns_ - nodes_[index].hung_since_ns);
  set_token_timer(index);
}

/// After a partition: tokens that could not get through do so now.
void Simulation::tokens_reachable_again(std::uint32_t index) {
  const ModelledNode& node = nodes_[index];
  for (std::uint32_t run = node.first_run; run < node.first_run + node.n_runs; ++run) {
    if (runs_[run].active && token_runs_[run].first_ns == base::never_ns) token_runs_[run].first_ns = now_ns_;
  }
}

TokenNode::Totals Simulation::token_totals() const noexcept {
  TokenNode::Totals sum;
  for (const auto& line : token_lines_) {
    if (!line) continue;
    const TokenNode::Totals& own = line->device.totals();
    sum.steps += own.steps;
    sum.prefill_tokens += own.prefill_tokens;
    sum.output_tokens += own.output_tokens;
    sum.preempted += own.preempted;
  }
  return sum;
}

}  // namespace infcore::sim
