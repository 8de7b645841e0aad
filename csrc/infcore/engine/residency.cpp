#include <infcore/base/errors.hpp>
#include <infcore/cache/eviction_policy.hpp>
#include <infcore/engine/residency.hpp>

#include <algorithm>
#include <utility>

namespace infcore::engine {
namespace {

/// What a new figure counts in a mean of the last ones: loads are rare, and what they take moves in steps.
constexpr double newest_load_share = 0.25;
/// Beyond that a forecast is not believed: a model that was not asked for in the last minute may be in the next.
constexpr double reuse_most = 16.0;
/// How often a figure is believed less by half, at most.
constexpr TimeNs doubt_every_ns = 10'000'000'000;

}  // namespace

Residency::Residency(std::string policy, std::uint32_t max_nodes, std::uint32_t max_models)
    : policy_(std::move(policy)),
      n_words_((max_nodes + 63) / 64),
      allowed_(std::size_t{max_models} * n_words_),
      hosts_(allowed_.size()),
      nodes_(max_nodes),
      models_(max_models) {
  plan_.backlog_s.resize(max_nodes);
  if (cache::make_eviction_policy(policy_)->asks_future()) {
    throw InvalidArgument("residency", policy_, "a policy that does not ask for the future");
  }
}

void Residency::add_model(ModelId model, std::uint64_t weights_bytes, double load_s) {
  ModelFacts& facts = models_[model.value];
  if (model.value >= n_models_) {
    n_models_ = std::min(static_cast<std::uint32_t>(models_.size()), std::max(2 * n_models_, model.value + 1));
    for (const auto& node : nodes_)
      if (node) node->memory.grow(n_models_);
  }
  if (!std::exchange(facts.is_known, true)) ++n_known_;
  if (facts.weights_bytes != weights_bytes) facts.is_measured = false;  // else it is the same again, as after a change
  facts.weights_bytes = weights_bytes;
  weights_bytes_least_ = std::min(weights_bytes_least_, weights_bytes);
  if (!facts.is_measured) facts.load_s = load_s, facts.doubt = 1.0;
  for (NodeId node{0}; node.value < nodes_.size(); ++node.value) follow_hosts(node, model);
}

void Residency::add_node(NodeId node, std::uint64_t memory_bytes, bool beside_runs) {
  remove_node(node);
  ++n_nodes_;
  nodes_[node.value].reset(
      new NodeLoads{.memory = ModelMemory(policy_, n_models_, memory_bytes), .beside_runs = beside_runs});
}

void Residency::remove_node(NodeId node) {
  if (nodes_[node.value] == nullptr) return;
  end_load(node);
  nodes_[node.value].reset();
  --n_nodes_;
  for (ModelId model{0}; model.value < n_models_; ++model.value) may_hold(node, model, false);
}

void Residency::may_hold(NodeId node, ModelId model, bool may) noexcept {
  put(allowed_, model, node, may);
  follow_hosts(node, model);
}

void Residency::put(Bits& bits, ModelId model, NodeId node, bool on) noexcept {
  std::uint64_t& word = bits[std::size_t{model.value} * n_words_ + node.value / 64];
  const std::uint64_t bit = std::uint64_t{1} << (node.value % 64);
  word = on ? word | bit : word & ~bit;
}

void Residency::follow_hosts(NodeId node, ModelId model) noexcept {
  const NodeLoads* const loads = nodes_[node.value].get();
  const auto is_it = [&](const Failed& failed) { return failed.model == model; };
  put(hosts_, model, node,
      loads != nullptr && may_hold(node, model) &&
          models_[model.value].weights_bytes <= loads->memory.capacity_bytes() &&
          std::none_of(loads->failed.begin(), loads->failed.end(), is_it));
}

void Residency::fail(NodeId node, ModelId model, TimeNs until_ns) {
  nodes_[node.value]->failed.push_back({model, until_ns});
  follow_hosts(node, model);
}

void Residency::forgive(NodeId node, ModelId model) noexcept {
  std::erase_if(nodes_[node.value]->failed, [&](const Failed& failed) { return failed.model == model; });
  follow_hosts(node, model);
}

TimeNs Residency::forgive(NodeId node, TimeNs now_ns) noexcept {
  NodeLoads* const loads = nodes_[node.value].get();
  TimeNs next_ns = base::never_ns;
  if (loads == nullptr) return next_ns;
  for (std::size_t i = loads->failed.size(); i-- > 0;) {
    const Failed failed = loads->failed[i];
    next_ns = failed.until_ns > now_ns ? std::min(next_ns, failed.until_ns) : next_ns;
    if (failed.until_ns > now_ns) continue;
    loads->failed.erase(loads->failed.begin() + static_cast<std::ptrdiff_t>(i));
    loads->may_fill = true;
    follow_hosts(node, failed.model);
  }
  return next_ns;
}

void Residency::waits(std::uint32_t lane, const contracts::Request& r) noexcept {
  plan_.waiting[lane / 64] |= std::uint64_t{1} << (lane % 64);
  plan_.deadline_ns_most = std::max(plan_.deadline_ns_most, r.deadline_ns);
  plan_.tier_most = std::max(plan_.tier_most, r.tier);
}

double Residency::reuse(ModelId model, TimeNs now_ns) noexcept {
  const double all_per_s = demand_.per_s(now_ns);
  if (all_per_s <= 0.0 || n_known_ == 0) return 1.0;
  const double share = models_[model.value].demand.per_s(now_ns) / all_per_s;
  return std::clamp(share * n_known_, 1.0 / reuse_most, reuse_most);
}

double Residency::told_load_s(ModelId model) const noexcept {
  const ModelFacts& facts = models_[model.value];
  if (facts.is_measured || facts.load_s > 0.0) return facts.load_s;
  return seconds_per_byte_ * static_cast<double>(facts.weights_bytes);
}

void Residency::doubt(ModelId model, TimeNs now_ns) noexcept {
  ModelFacts& facts = models_[model.value];
  const TimeNs since_ns = std::exchange(facts.doubted_ns, facts.doubted_ns == 0 ? now_ns : facts.doubted_ns);
  if (since_ns == 0 || now_ns - since_ns < doubt_every_ns) return;
  facts.doubt *= 0.5;
  facts.doubted_ns = now_ns;
}

void Residency::measured(ModelId model, double load_s, TimeNs now_ns) noexcept {
  ModelFacts& facts = models_[model.value];
  const auto mean = [](double before, double now) { return before + (now - before) * newest_load_share; };
  const bool is_believed = (facts.is_measured || facts.load_s > 0.0) && facts.doubt == 1.0;
  facts.load_s = is_believed ? mean(facts.load_s, load_s) : load_s;
  facts.is_measured = true;
  facts.doubt = 1.0;
  facts.doubted_ns = now_ns;
  if (facts.weights_bytes == 0) return;
  const double per_byte = load_s / static_cast<double>(facts.weights_bytes);
  seconds_per_byte_ = seconds_per_byte_ > 0.0 ? mean(seconds_per_byte_, per_byte) : per_byte;
}

void Residency::begin_load(NodeId node, ModelId model, TimeNs now_ns, TimeNs expected_end_ns) {
  NodeLoads& loads = *nodes_[node.value];
  loads.memory.insert(model, models_[model.value].weights_bytes, cost_us(model), reuse(model, now_ns), true);
  loads.loading = model;
  loads.is_unwanted = false;
  loads.begun_ns = now_ns;
  loads.expected_end_ns = expected_end_ns;
  ++n_loading_;
  ++models_[model.value].n_loading;
}

void Residency::end_load(NodeId node) noexcept {
  NodeLoads& loads = *nodes_[node.value];
  if (!loads.is_loading()) return;
  --n_loading_;
  --models_[std::exchange(loads.loading, base::no_model).value].n_loading;
}

}  // namespace infcore::engine
