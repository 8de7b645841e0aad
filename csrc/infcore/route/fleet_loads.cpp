// Loads that are under way, so that nobody has the same model loaded twice where one load would do.
#include <infcore/route/fleet.hpp>

#include <algorithm>

namespace infcore::route {
namespace {

/// How long a load may be late before it counts as given up: as long again as it should have taken, and this.
constexpr base::TimeNs late_at_least_ns = 1'000'000'000;

}  // namespace

/// Forgets those that `which` says; whether there was one.
template <class Which>
bool Fleet::forget_loads(Which which) noexcept {
  bool any = false;
  for (auto& each : columns_.header().loadings) {
    if (each.in_use == 0 || !which(each)) continue;
    each.in_use = 0;
    any = true;
  }
  return any;
}

/// The version that a request for any of them has loaded, where it is known which.
ModelId Fleet::version_to_load(ModelId model) const noexcept {
  if (models_[model.value].version != 0) return model;
  ModelId only = model;
  for (std::uint32_t i = 0; i < models_.size(); ++i) {
    if (models_[i].any != model || models_[i].version == 0 || !is_declared(ModelId{i})) continue;
    if (only != model) return model;
    only = ModelId{i};
  }
  return only;
}

bool Fleet::begin_load(NodeId node, ModelId asked, base::TimeNs now_ns) {
  const Hold hold(*this);
  check_model(asked);
  const ModelId model = version_to_load(asked);
  if (node.value >= n_nodes() || state(node) == NodeState::absent || resident(node, model)) return false;
  auto& loadings = columns_.header().loadings;
  const auto is_same = [&](const contracts::FleetColumns::Loading& l) {
    return l.in_use != 0 && l.model == model.value && l.node == node.value;
  };
  const auto known = std::find_if(loadings.begin(), loadings.end(), is_same);
  if (known != loadings.end() && now_ns < known->until_ns) return false;
  const auto is_free = [&](const contracts::FleetColumns::Loading& l) { return l.in_use == 0 || is_same(l); };
  auto place = std::find_if(loadings.begin(), loadings.end(), is_free);
  if (place == loadings.end()) {  // the one that should be there first is forgotten
    place = std::min_element(loadings.begin(), loadings.end(),
                             [](const auto& a, const auto& b) { return a.ready_ns < b.ready_ns; });
  }
  double load_us = columns_.facts(model.value).load_us.load(std::memory_order_relaxed);
  for (std::uint32_t i = 0; i < models_.size(); ++i) {  // of several versions, whichever is quickest
    if (models_[i].any != model || !is_declared(ModelId{i})) continue;
    const double its_us = columns_.facts(i).load_us.load(std::memory_order_relaxed);
    load_us = load_us > 0.0 ? std::min(load_us, its_us) : its_us;
  }
  const base::TimeNs load_ns = base::to_ns(load_us * 1e-6);
  const base::TimeNs ready_ns = base::add_ns(now_ns, load_ns);
  *place = {1, model.value, node.value, ready_ns, base::add_ns(ready_ns, std::max(load_ns, late_at_least_ns))};
  columns_.header().residency.fetch_add(1, std::memory_order_release);
  return true;
}

void Fleet::end_load(NodeId node, ModelId asked) {
  const Hold hold(*this);
  check_model(asked);
  const std::uint32_t model = version_to_load(asked).value;
  if (forget_loads([&](const auto& l) { return l.node == node.value && l.model == model; }))
    columns_.header().residency.fetch_add(1, std::memory_order_release);
}

/// The node holds it, or is gone and holds nothing.
void Fleet::end_loads_of(NodeId node, const ModelId* model) noexcept {
  forget_loads([&](const auto& l) { return l.node == node.value && (model == nullptr || l.model == model->value); });
}

std::vector<Fleet::Loading> Fleet::loading(ModelId model) const {
  const Hold hold(*this);
  check_model(model);
  std::vector<Loading> loads;
  for (const auto& l : columns_.header().loadings) {
    if (l.in_use != 0 && (l.model == model.value || models_[l.model].any == model))
      loads.push_back({NodeId{l.node}, l.ready_ns, l.until_ns});
  }
  return loads;
}

}  // namespace infcore::route
