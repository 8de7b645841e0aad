#include <infcore/sim/ledger.hpp>

#include <algorithm>

namespace infcore::sim {

Ledger::Ledger(const SimConfig& config)
    : warmup_ns_(base::to_ns(config.warmup_s)),
      part_s_(config.seconds / n_parts),
      all_(std::make_unique<Totals>()),
      nodes_(config.nodes.size()),
      parts_(n_parts) {
  for (const ModelConfig& model : config.models) {
    figures_.push_back(model.figures);
    if (model.figures >= models_.size()) models_.push_back(std::make_unique<Totals>());
    goals_.push_back({base::to_ns(model.slo_s), base::to_ns(model.slo_ttft_s), base::to_ns(model.slo_itl_s)});
    if (!model.tokens) continue;
    if (!models_[model.figures]->tokens) models_[model.figures]->tokens = std::make_unique<TokenFigures>();
    if (!all_->tokens) all_->tokens = std::make_unique<TokenFigures>();
  }
  for (NodeUse& use : nodes_) use.busy_part_s.resize(n_parts);
}

void Ledger::add(Totals& to, const Ended& e, bool within) noexcept {
  ++to.arrivals;
  ++to.outcomes[static_cast<std::size_t>(e.outcome)];
  to.work += e.work;
  ++to.reasons[static_cast<std::size_t>(e.reason)];
  if (e.outcome == Outcome::ok) ++to.forms[static_cast<std::size_t>(e.form)];
  if (e.outcome != Outcome::ok) return;
  to.within_slo += within ? 1u : 0u;
  const TimeNs latency_ns = e.end_ns - e.arrival_ns;
  to.latency_sum_s += base::seconds(latency_ns);
  to.latency_s.record_ns(latency_ns);
  to.wait_s.record_ns(e.start_ns - e.arrival_ns);
  to.regret_s.record(base::seconds(latency_ns) - e.floor_s);
  if (e.tokens.output > 0) add_tokens(*to.tokens, e);
}

void Ledger::add_tokens(TokenFigures& to, const Ended& e) noexcept {
  const TimeNs ttft_ns = e.first_token_ns - e.arrival_ns;
  to.ttft_s.record_ns(ttft_ns);
  to.ttft_sum_s += base::seconds(ttft_ns);
  to.prompt_tokens += e.tokens.prompt;
  to.cached_tokens += e.n_cached;
  to.output_tokens += e.tokens.output;
}

void Ledger::token_after(ModelId model, TimeNs arrival_ns, TimeNs gap_ns) noexcept {
  if (arrival_ns < warmup_ns_) return;
  for (Totals* to : {all_.get(), models_[figures_[model.value]].get()}) {
    to->tokens->itl_s.record_ns(gap_ns);
    to->tokens->itl_sum_s += base::seconds(gap_ns);
  }
}

/// Within each of the model's goals; with none for the answer as a whole, in time for its deadline.
bool Ledger::in_time(const Ended& e) const noexcept {
  const Goals& goals = goals_[e.model.value];
  if (goals.latency_ns > 0 ? e.end_ns - e.arrival_ns > goals.latency_ns : e.end_ns > e.deadline_ns) return false;
  if (goals.ttft_ns > 0 && e.first_token_ns - e.arrival_ns > goals.ttft_ns) return false;
  return goals.itl_ns == 0 || e.tokens.output < 2 ||
         (e.end_ns - e.first_token_ns) / (e.tokens.output - 1) <= goals.itl_ns;
}

void Ledger::ended(const Ended& e) noexcept {
  const TimeNs latency_ns = e.end_ns - e.arrival_ns;
  const bool ok = e.outcome == Outcome::ok;
  const bool within = ok && in_time(e);
  Part& part =
      parts_[std::min<std::size_t>(n_parts - 1, static_cast<std::size_t>(base::seconds(e.arrival_ns) / part_s_))];
  ++part.arrivals;
  part.within_slo += within ? 1u : 0u;
  if (ok) {
    const double latency_s = base::seconds(latency_ns);
    ++part.ok;
    part.latency_sum_s += latency_s;
    part.latency_max_s = std::max(part.latency_max_s, latency_s);
  }
  if (e.arrival_ns < warmup_ns_) return;
  add(*all_, e, within);
  add(*models_[figures_[e.model.value]], e, within);
  if (!ok) return;
  if (e.node < nodes_.size()) ++nodes_[e.node].requests;
  last_ok_ns_ = std::max(last_ok_ns_, e.end_ns);
}

void Ledger::ran(std::uint32_t node, TimeNs start_ns, TimeNs end_ns, std::uint32_t n_requests,
                 std::uint32_t n_slots) noexcept {
  NodeUse& use = nodes_[node];
  if (end_ns <= start_ns || n_requests == 0) return;
  if (end_ns > warmup_ns_) {
    ++use.batches;
    last_run_ns_ = std::max(last_run_ns_, end_ns);
  }
  const double end_s = base::seconds(end_ns);
  double from_s = base::seconds(start_ns);
  use.busy_s += n_slots * (end_s - std::min(end_s, std::max(from_s, base::seconds(warmup_ns_))));
  auto part = static_cast<std::size_t>(from_s / part_s_);
  for (; part < n_parts && from_s < end_s; ++part) {
    const double until_s = std::min(end_s, static_cast<double>(part + 1) * part_s_);
    use.busy_part_s[part] += static_cast<float>(n_slots * std::max(0.0, until_s - from_s));
    from_s = until_s;
  }
}

}  // namespace infcore::sim
