#include <infcore/base/errors.hpp>
#include <infcore/route/router.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <string>

namespace infcore::route {
namespace {

std::uint64_t next_serial() noexcept {
  static std::atomic<std::uint64_t> serial{0};
  return serial.fetch_add(1, std::memory_order_relaxed) + 1;
}

PrefixConfig sized_for(const Fleet& fleet, PrefixConfig prefix) noexcept {
  prefix.max_nodes = fleet.max_nodes();
  return prefix;
}

double service_s_of(const Decision& decision) noexcept { return decision.terms.service_us * 1e-6; }

}  // namespace

Router::Router(Fleet& fleet, std::string_view policy, std::uint64_t seed, PrefixConfig prefix)
    : fleet_(&fleet),
      latency_(fleet.max_nodes(), fleet.max_models()),
      prefix_(sized_for(fleet, prefix)),
      view_(fleet, latency_),
      policy_(make_routing_policy(policy, seed)),
      serial_(next_serial()),
      born_(fleet.max_nodes()) {
  policy_->attach(fleet);
}

void Router::pick(const RouteQuery& query, const PickOptions& options, Decision& decision) {
  const std::lock_guard hold(mutex_);
  end_leases(query.now_ns);
  pick_locked(query, options, decision);
}

void Router::pick_many(const RouteQuery& query, std::span<const double> work, const PickOptions& options,
                       std::vector<Decision>& decisions) {
  const std::lock_guard hold(mutex_);
  end_leases(query.now_ns);
  decisions.clear();
  decisions.reserve(work.size());
  RouteQuery each = query;
  try {
    for (const double w : work) {
      each.work = w;
      Decision decision;
      pick_locked(each, options, decision);
      decisions.push_back(decision);
    }
  } catch (...) {
    for (Decision& decision : decisions) close_locked(decision, query.now_ns);
    throw;
  }
}

void Router::pick_locked(const RouteQuery& query, const PickOptions& options, Decision& decision) {
  follow_membership();
  if (!query.blocks.empty()) {
    prefix_.follow(*fleet_);
    prefix_.advance(query.now_ns);
  }
  NodeId node = policy_->select(query, view_);
  const bool feasible = node != base::no_node;
  if (!feasible && options.allow_late && query.deadline_ns != base::never_ns) {
    RouteQuery late = query;
    late.deadline_ns = base::never_ns;
    node = policy_->select(late, view_);
  }
  if (node == base::no_node) refuse(query);

  decision.query = query;
  decision.terms = view_.terms(query, node);
  decision.price_usd = service_s_of(decision) * fleet_->price_per_hour(node) / 3600.0;
  decision.starts_idle = fleet_->inflight(node) < fleet_->slots(node);
  decision.lease = Leases<Lease>::none;
  if (options.lease_end_ns != base::never_ns)
    decision.lease = leases_.add({node, service_s_of(decision)}, options.lease_end_ns);
  decision.node = node;
  decision.router = serial_;
  decision.feasible = feasible;
  decision.open = true;
  fleet_->reserve(node, service_s_of(decision), query.now_ns);
  prefix_.picked(node, query.blocks, query.now_ns);
}

bool Router::close_locked(Decision& decision, base::TimeNs now_ns) {
  end_leases(now_ns);
  if (!decision.open) return false;
  decision.open = false;
  if (decision.lease != Leases<Lease>::none && !leases_.end(decision.lease)) return false;
  fleet_->release(decision.node, service_s_of(decision), now_ns);
  return true;
}

bool Router::done(Decision& decision, bool ok, double service_s, base::TimeNs now_ns) {
  const std::lock_guard hold(mutex_);
  check_ours(decision);
  return done_locked(decision, ok, service_s, now_ns);
}

bool Router::done_locked(Decision& decision, bool ok, double service_s, base::TimeNs now_ns) {
  if (!close_locked(decision, now_ns)) return false;
  const base::TimeNs latency_ns = std::max<base::TimeNs>(0, now_ns - decision.query.now_ns);
  policy_->observe({decision.node, decision.query.model, now_ns, base::seconds(latency_ns), ok});
  if (!ok) return true;
  follow_membership();  // before learning: the node may be another one by now
  double learned_s = service_s;
  if (!(learned_s > 0.0) && decision.starts_idle)
    learned_s = base::seconds(now_ns - decision.query.now_ns) - decision.terms.network_us * 1e-6;
  const double work = decision.query.work;
  if (learned_s > 0.0) latency_.observe(decision.query.model, decision.node, {1, work, work}, learned_s);
  return true;
}

bool Router::cancel(Decision& decision, base::TimeNs now_ns) {
  const std::lock_guard hold(mutex_);
  check_ours(decision);
  return close_locked(decision, now_ns);
}

std::size_t Router::done_many(std::span<Decision> decisions, bool ok, std::span<const double> service_s,
                              base::TimeNs now_ns) {
  const std::lock_guard hold(mutex_);
  for (const Decision& decision : decisions) check_ours(decision);
  std::size_t n = 0;
  for (std::size_t i = 0; i < decisions.size(); ++i)
    n += done_locked(decisions[i], ok, service_s.empty() ? 0.0 : service_s[i], now_ns) ? 1u : 0u;
  return n;
}

std::size_t Router::cancel_many(std::span<Decision> decisions, base::TimeNs now_ns) {
  const std::lock_guard hold(mutex_);
  for (const Decision& decision : decisions) check_ours(decision);
  std::size_t n = 0;
  for (Decision& decision : decisions) n += close_locked(decision, now_ns) ? 1u : 0u;
  return n;
}

void Router::explain(const RouteQuery& query, const PickOptions& options, std::vector<Explanation>& explanations) {
  const std::lock_guard hold(mutex_);
  end_leases(query.now_ns);
  follow_membership();
  explanations.clear();
  bool any = false;
  for (NodeId node{0}; node.value < fleet_->n_nodes(); ++node.value) {
    if (fleet_->state(node) == NodeState::absent) continue;
    explanations.push_back({node, view_.terms(query, node), view_.why_not(query, node)});
    any = any || explanations.back().filtered == Filtered::no;
  }
  if (any || !options.allow_late) return;
  for (Explanation& each : explanations)  // what pick falls back to
    if (each.filtered == Filtered::late) each.filtered = Filtered::no;
}

void Router::set_prior(ModelId model, NodeId node, const contracts::Curve& prior) {
  const std::lock_guard hold(mutex_);
  follow_membership();
  latency_.set_prior(model, node, prior);
}

void Router::check_ours(const Decision& decision) const {
  if (decision.router == serial_) return;
  throw InvalidArgument("decision", "of another router", "what this router's pick or pick_many returned");
}

void Router::end_leases(base::TimeNs now_ns) noexcept {
  leases_.end_due(now_ns, [this](const Lease& lease, base::TimeNs end_ns) {
    fleet_->release(lease.node, lease.service_s, end_ns);
  });
}

/// Curves of a node that is gone are not those of the one that has its id now.
void Router::follow_membership() {
  const std::uint64_t version = fleet_->version();
  if (version == version_) return;
  version_ = version;
  for (NodeId node{0}; node.value < fleet_->n_nodes(); ++node.value) {
    if (fleet_->born(node) == born_[node.value]) continue;
    born_[node.value] = fleet_->born(node);
    latency_.forget(node);
    latency_.set_class(node, fleet_->kind_id(node));
  }
}

/// Cold: says why no node passed.
void Router::refuse(const RouteQuery& query) {
  std::array<std::uint32_t, 6> counts{};
  CostTerms best;
  best.cost_us = std::numeric_limits<double>::infinity();
  std::uint32_t n = 0;
  for (NodeId node{0}; node.value < fleet_->n_nodes(); ++node.value) {
    if (fleet_->state(node) == NodeState::absent) continue;
    ++n;
    const Filtered why = view_.why_not(query, node);
    ++counts[static_cast<std::size_t>(why)];
    const CostTerms terms = view_.terms(query, node);
    if (why == Filtered::late && terms.cost_us < best.cost_us) best = terms;
  }
  const auto count = [&](Filtered why) { return std::to_string(counts[static_cast<std::size_t>(why)]); };
  const std::string model = "model '" + fleet_->model_name(query.model) + "'";
  if (counts[static_cast<std::size_t>(Filtered::late)] > 0) {
    throw DeadlineInfeasible("deadline_s is " + std::to_string(base::seconds(query.deadline_ns - query.now_ns)) +
                             " for " + model + "; the first of " + count(Filtered::late) +
                             " nodes is expected to answer after " + std::to_string(best.cost_us * 1e-6) + " s");
  }
  throw NoNodeAvailable("no node for " + model + ": of " + std::to_string(n) + " nodes, " + count(Filtered::not_up) +
                        " not up, " + count(Filtered::no_model) + " without the model, " + count(Filtered::no_label) +
                        " without the labels that are required");
}

}  // namespace infcore::route
