#include <infcore/sim/ledger.hpp>

#include <algorithm>

namespace infcore::sim {

Ledger::Ledger(const SimConfig& config)
    : warmup_ns_(base::to_ns(config.warmup_s)),
      part_s_(config.seconds / n_parts),
      all_(std::make_unique<Totals>()),
      nodes_(config.nodes.size()),
      parts_(n_parts) {
  for (std::size_t model = 0; model < config.models.size(); ++model) models_.push_back(std::make_unique<Totals>());
  for (NodeUse& use : nodes_) use.busy_part_s.resize(n_parts);
  for (const ModelConfig& model : config.models) slo_ns_.push_back(base::to_ns(model.slo_s));
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
}

void Ledger::ended(const Ended& e) noexcept {
  const TimeNs latency_ns = e.end_ns - e.arrival_ns;
  const bool ok = e.outcome == Outcome::ok;
  const TimeNs slo_ns = slo_ns_[e.model.value];
  const bool within = ok && (slo_ns > 0 ? latency_ns <= slo_ns : e.end_ns <= e.deadline_ns);
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
  add(*models_[e.model.value], e, within);
  if (!ok) return;
  if (e.node < nodes_.size()) ++nodes_[e.node].requests;
  last_ok_ns_ = std::max(last_ok_ns_, e.end_ns);
}

void Ledger::ran(std::uint32_t node, TimeNs start_ns, TimeNs end_ns, std::uint32_t n_requests) noexcept {
  NodeUse& use = nodes_[node];
  if (end_ns <= start_ns || n_requests == 0) return;
  if (end_ns > warmup_ns_) {
    ++use.batches;
    last_run_ns_ = std::max(last_run_ns_, end_ns);
  }
  const double end_s = base::seconds(end_ns);
  double from_s = base::seconds(start_ns);
  use.busy_s += end_s - std::min(end_s, std::max(from_s, base::seconds(warmup_ns_)));
  auto part = static_cast<std::size_t>(from_s / part_s_);
  for (; part < n_parts && from_s < end_s; ++part) {
    const double until_s = std::min(end_s, static_cast<double>(part + 1) * part_s_);
    use.busy_part_s[part] += static_cast<float>(std::max(0.0, until_s - from_s));
    from_s = until_s;
  }
}

}  // namespace infcore::sim
