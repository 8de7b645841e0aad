#include <infcore/base/errors.hpp>
#include <infcore/route/router.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <new>
#include <string>
#include <utility>

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

/// What the node will have to do for it: the credit.
double busy_s_of(const Decision& decision) noexcept {
  return (decision.terms.service_us - decision.terms.saving_us) * 1e-6;
}

/// The work that the node did not hold already.
double work_done(const Decision& decision) noexcept { return decision.work - decision.terms.saved_work; }

}  // namespace

Router::Router(Fleet& fleet, std::string_view policy, std::uint64_t seed, RoutingOptions options, PrefixConfig prefix)
    : Router(fleet, make_routing_policy(policy, seed, std::move(options)), prefix) {}

Router::Router(Fleet& fleet, std::unique_ptr<RoutingPolicy> policy, PrefixConfig prefix)
    : fleet_(&fleet),
      latency_(fleet.max_nodes(), fleet.max_models()),
      prefix_(sized_for(fleet, prefix)),
      view_(fleet, latency_),
      policy_(std::move(policy)),
      serial_(next_serial()),
      born_(fleet.max_nodes()) {
  policy_->attach(fleet);
  view_.use_prefix(&prefix_);
}

void Router::pick(const RouteQuery& query, const PickOptions& options, Decision& decision) {
  fleet_->end_leases(query.now_ns);
  if (health_) health_->tick(query.now_ns);
  pick_one(query, options, decision);
}

void Router::pick_many(const RouteQuery& query, std::span<const double> work, const PickOptions& options,
                       std::vector<Decision>& decisions) {
  fleet_->end_leases(query.now_ns);
  if (health_) health_->tick(query.now_ns);
  decisions.clear();
  decisions.reserve(work.size());
  RouteQuery each = query;
  try {
    for (const double w : work) {
      each.work = w;
      Decision decision;
      pick_one(each, options, decision);
      decisions.push_back(decision);
    }
  } catch (...) {
    for (Decision& decision : decisions) take_back(decision, query.now_ns);
    throw;
  }
}

void Router::pick_one(const RouteQuery& query, const PickOptions& options, Decision& decision) {
  follow_membership(query.now_ns);
  if (!query.blocks.empty()) follow_prefixes(query.now_ns);
  const RouteQuery* asked = &query;
  if (const ModelId model = policy_->start_at(query, view_); model != query.model) {
    asked_ = query;
    asked_.model = model;
    asked = &asked_;
  }
  NodeId node = policy_->select(*asked, view_);
  decision.feasible = node != base::no_node;
  if (!decision.feasible) policy_->rethrow();
  if (!decision.feasible && options.allow_late && query.deadline_ns != base::never_ns) {
    asked_ = query;
    asked_.deadline_ns = base::never_ns;
    asked_.model = policy_->start_at(asked_, view_);
    asked = &asked_;
    node = policy_->select(*asked, view_);
  }
  if (node == base::no_node) {
    policy_->rethrow();
    refuse(query);
  }

  // Made where it stays: copied, its vectors would wait for the numbers that were just written.
  ::new (&decision.terms) CostTerms(policy_->terms(*asked, view_, node));
  decision.model = asked->model;
  decision.work = query.work;
  decision.now_ns = query.now_ns;
  const double busy_s = busy_s_of(decision);
  decision.price_usd = busy_s * fleet_->price_per_hour(node) / 3600.0;
  const std::uint32_t inflight = fleet_->inflight(node), slots = fleet_->slots(node);
  decision.starts_idle = inflight < slots;
  decision.crowd = decision.starts_idle ? 1.0f : static_cast<float>(inflight + 1) / static_cast<float>(slots);
  decision.lease = LeaseBook::none;
  if (options.lease_end_ns != base::never_ns) decision.lease = fleet_->add_lease(node, busy_s, options.lease_end_ns);
  decision.node = node;
  decision.router = serial_;
  decision.open = true;
  fleet_->reserve(node, busy_s, query.now_ns);
  decision.begins_load = false;
  if (fleet_->any_declared()) {
    fleet_->want(decision.model, query.now_ns);
    decision.begins_load = decision.terms.load_us > 0.0 && fleet_->begin_load(node, decision.model, query.now_ns);
  }
  if (!query.blocks.empty()) prefix_.picked(node, query.blocks, query.now_ns);
}

bool Router::close(Decision& decision, base::TimeNs now_ns) {
  fleet_->end_leases(now_ns);
  if (!decision.open) return false;
  decision.open = false;
  if (decision.lease != LeaseBook::none && !fleet_->end_lease(decision.lease)) return false;
  fleet_->release(decision.node, busy_s_of(decision), now_ns);
  return true;
}

bool Router::done(Decision& decision, bool ok, double service_s, base::TimeNs now_ns, double confidence) {
  check_ours(decision);
  return done_one(decision, ok, service_s, now_ns, confidence);
}

bool Router::done_one(Decision& decision, bool ok, double service_s, base::TimeNs now_ns, double confidence) {
  if (!close(decision, now_ns)) return false;
  const base::TimeNs latency_ns = std::max<base::TimeNs>(0, now_ns - decision.now_ns);
  policy_->observe({decision.node, decision.model, now_ns, base::seconds(latency_ns), ok, confidence});
  if (confidence >= 0.0) decision.next_model = policy_->next_model(decision.model, confidence);
  follow_membership(now_ns);  // before learning: the node may be another one by now
  double learned_s = service_s;
  if (!(learned_s > 0.0) && decision.starts_idle)
    learned_s = base::seconds(now_ns - decision.now_ns) - decision.terms.network_us * 1e-6;
  if (health_) tell_health(decision, ok, learned_s, now_ns);
  if (!ok) return true;
  const double work = work_done(decision);
  if (learned_s > 0.0) latency_.observe(decision.model, decision.node, {1, work, work}, learned_s);
  return true;
}

bool Router::cancel(Decision& decision, base::TimeNs now_ns) {
  check_ours(decision);
  return take_back(decision, now_ns);
}

/// Also the load that it began.
bool Router::take_back(Decision& decision, base::TimeNs now_ns) {
  if (decision.open && std::exchange(decision.begins_load, false)) fleet_->end_load(decision.node, decision.model);
  return close(decision, now_ns);
}

std::size_t Router::done_many(std::span<Decision> decisions, bool ok, std::span<const double> service_s,
                              base::TimeNs now_ns) {
  for (const Decision& decision : decisions) check_ours(decision);
  std::size_t n = 0;
  for (std::size_t i = 0; i < decisions.size(); ++i)
    n += done_one(decisions[i], ok, service_s.empty() ? 0.0 : service_s[i], now_ns, -1.0) ? 1u : 0u;
  return n;
}

std::size_t Router::cancel_many(std::span<Decision> decisions, base::TimeNs now_ns) {
  for (const Decision& decision : decisions) check_ours(decision);
  std::size_t n = 0;
  for (Decision& decision : decisions) n += take_back(decision, now_ns) ? 1u : 0u;
  return n;
}

void Router::explain(const RouteQuery& query, const PickOptions& options, std::vector<Explanation>& explanations) {
  fleet_->beat_if_due(query.now_ns);
  fleet_->end_leases(query.now_ns);
  if (health_) health_->tick(query.now_ns);
  follow_membership(query.now_ns);
  follow_prefixes(query.now_ns);
  const auto explain_all = [&](RouteQuery asked) {
    explanations.clear();
    asked.model = policy_->start_at(asked, view_);
    const Nudge nudge = policy_->nudge(asked, view_);
    policy_->consider(asked, view_);
    view_.prepare(asked, policy_->weights());
    for (NodeId node{0}; node.value < fleet_->n_nodes(); ++node.value) explain_one(node, nudge, explanations);
    return std::any_of(explanations.begin(), explanations.end(),
                       [](const Explanation& each) { return each.filtered == Filtered::no; });
  };
  if (explain_all(query) || !options.allow_late || query.deadline_ns == base::never_ns) return;
  RouteQuery late = query;  // what pick falls back to
  late.deadline_ns = base::never_ns;
  explain_all(late);
}

void Router::explain_one(NodeId node, const Nudge& nudge, std::vector<Explanation>& explanations) const {
  if (fleet_->state(node) == NodeState::absent) return;
  CostTerms terms = view_.terms_of(node);
  if (node == nudge.node) {
    terms.explore_us = nudge.explore_us;
    terms.cost_us += nudge.explore_us;
  }
  const Filtered filtered = view_.why_not(node);
  explanations.push_back({node, terms, filtered, filtered == Filtered::no ? policy_->left_out(node) : std::string()});
}

void Router::set_prior(ModelId model, NodeId node, const contracts::Curve& prior) {
  follow_membership(std::numeric_limits<base::TimeNs>::min());
  latency_.set_prior(model, node, prior);
}

void Router::check_ours(const Decision& decision) const {
  if (decision.router == serial_) return;
  throw InvalidArgument("decision", "of another router", "what this router's pick or pick_many returned");
}

/// What is known of nodes that are gone, and picks that are too old, count no more.
void Router::follow_prefixes(base::TimeNs now_ns) {
  prefix_.follow(*fleet_);
  prefix_.advance(now_ns);
}

/// Curves of a node that is gone are not those of the one that has its id now.
void Router::follow_members(base::TimeNs now_ns) {
  version_ = fleet_->version();
  if (health_) follow_health(now_ns);
  for (NodeId node{0}; node.value < fleet_->n_nodes(); ++node.value) {
    if (fleet_->born(node) == born_[node.value]) continue;
    born_[node.value] = fleet_->born(node);
    latency_.forget(node);
    latency_.set_class(node, fleet_->kind_id(node));
  }
}

void Router::use_health(std::shared_ptr<HealthGate> health) {
  health_ = std::move(health);
  n_restarts_.assign(fleet_->max_nodes(), 0);
  version_ = 0;
}

/// Where a request had to wait and nobody measured its service, the crowd at its pick says how much of its time that
/// was: rough, but as rough for the peers that it is held against.
void Router::tell_health(const Decision& decision, bool ok, double learned_s, base::TimeNs now_ns) {
  const double work = work_done(decision);
  const double whole_s = base::seconds(now_ns - decision.now_ns) - decision.terms.network_us * 1e-6;
  const double service_s = learned_s > 0.0 ? learned_s : whole_s / static_cast<double>(decision.crowd);
  health_->answered(now_ns, {decision.node, decision.model, {1, work, work}, service_s, ok}, latency_);
}

/// A node that was too slow is let in again with the curve that it had before, or it would not be asked.
void Router::follow_health(base::TimeNs now_ns) {
  health_->follow(now_ns);
  for (NodeId node{0}; node.value < fleet_->n_nodes(); ++node.value) {
    const std::uint32_t n_restarts = health_->n_restarts(node);
    if (std::exchange(n_restarts_[node.value], n_restarts) == n_restarts) continue;
    for (ModelId model{0}; model.value < latency_.max_models(); ++model.value) {
      contracts::Curve curve;
      if (health_->expected(model, node, curve)) latency_.restart(model, node, curve);
    }
  }
}

/// Cold: says why no node passed.
void Router::refuse(const RouteQuery& query) {
  view_.prepare(query, policy_->weights());
  std::array<std::uint32_t, n_filtered> counts{};
  std::array<std::uint32_t, n_states> states{};  // of those that are not up
  double first_us = std::numeric_limits<double>::infinity();
  std::uint32_t n = 0;
  for (NodeId node{0}; node.value < fleet_->n_nodes(); ++node.value) {
    const NodeState state = fleet_->state(node);
    if (state == NodeState::absent) continue;
    ++n;
    const Filtered why = view_.why_not(node);
    ++counts[static_cast<std::size_t>(why)];
    if (why == Filtered::not_up) ++states[static_cast<std::size_t>(state)];
    const CostTerms terms = view_.terms_of(node);
    if (why == Filtered::late) first_us = std::min(first_us, terms.cost_us - terms.price_us - terms.risk_us);
  }
  const std::string model = "model '" + fleet_->model_name(query.model) + "'";
  const std::uint32_t n_late = counts[static_cast<std::size_t>(Filtered::late)];
  if (n_late > 0) {
    throw DeadlineInfeasible("deadline_s is " + std::to_string(base::seconds(query.deadline_ns - query.now_ns)) +
                             " for " + model + "; the first of " + std::to_string(n_late) +
                             " nodes is expected to answer after " + std::to_string(first_us * 1e-6) + " s");
  }
  std::string why;
  const auto say = [&](std::uint32_t count, const char* what) {
    if (count > 0) why += ", " + std::to_string(count) + " " + what;
  };
  for (std::size_t state = 0; state < n_states; ++state) say(states[state], name_of(static_cast<NodeState>(state)));
  say(counts[static_cast<std::size_t>(Filtered::no_model)], "without the model");
  say(counts[static_cast<std::size_t>(Filtered::no_label)], "without the labels that are required");
  say(counts[static_cast<std::size_t>(Filtered::full)], "at their bound of requests in flight");
  say(counts[static_cast<std::size_t>(Filtered::no)], "that the policy does not use");
  const std::string who = health_ ? health_->why_out() : "";
  throw NoNodeAvailable("no node for " + model + ": of " + std::to_string(n) + " nodes" + why +
                        (who.empty() ? "" : "; " + who));
}

}  // namespace infcore::route
