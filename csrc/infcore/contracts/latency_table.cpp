#include <infcore/contracts/latency_table.hpp>

#include <algorithm>
#include <bit>

namespace infcore::contracts {
namespace {

/// A base or per-request term as BatchColumns has it.
constexpr float batch_term(double seconds) noexcept { return static_cast<float>(std::clamp(seconds, 1e-12, 1e9)); }

constexpr std::uint32_t padded_nodes(std::uint32_t n) noexcept { return (n + 63u) & ~63u; }

}  // namespace

LatencyTable::ModelRow::ModelRow(std::uint32_t n_nodes)
    : models(n_nodes),
      ears(n_nodes, Ear::open),
      given(n_nodes),
      fixed_us(padded_nodes(n_nodes)),
      per_work_us(padded_nodes(n_nodes)),
      tail(padded_nodes(n_nodes)),
      base_s(padded_nodes(n_nodes), batch_term(0.0)),
      per_request_s(padded_nodes(n_nodes), batch_term(0.0)),
      per_work_s(padded_nodes(n_nodes)) {
  for (std::uint32_t node = 0; node < n_nodes; ++node) publish(node);
}

void LatencyTable::ModelRow::publish(std::uint32_t node, const LatencyModel& model) noexcept {
  const Curve& curve = model.curve();
  const double fixed_s = std::max(curve.base_s + curve.per_request_s, LatencyModel::service_s_min);
  fixed_us[node] = static_cast<float>(std::min(fixed_s, 1e9) * 1e6);
  per_work_us[node] = static_cast<float>(std::min(curve.per_work_s + curve.per_padded_work_s, 1e9) * 1e6);
  base_s[node] = batch_term(curve.base_s);
  per_request_s[node] = batch_term(curve.per_request_s);
  per_work_s[node] = static_cast<float>(std::min(curve.per_work_s + curve.per_padded_work_s, 1e9));
  tail[node] = static_cast<float>(LatencyModel::upper_spreads * model.spread());
}

LatencyTable::LatencyTable(std::uint32_t max_nodes, std::uint32_t max_models)
    : max_nodes_(max_nodes), classes_(max_nodes, no_class), untouched_(max_nodes), rows_(max_models) {
  untouched_.models = std::vector<LatencyModel>(1);  // all are alike, and 200 bytes
}

LatencyTable::ModelRow& LatencyTable::touch(base::ModelId model) {
  auto& row = rows_[model.value];
  if (!row) {
    row = std::make_unique<ModelRow>(max_nodes_);
    touched_.push_back(row.get());
    for (std::uint32_t node = 0; node < max_nodes_; ++node) count(*row, node, 1);
  }
  return *row;
}

/// Takes the node into the row's counts, or with -1 out of them: around whatever changes its part in them.
void LatencyTable::count(ModelRow& row, std::uint32_t node, std::int32_t by) noexcept {
  const bool observed = row.models[node].n_observed() != 0;
  if (observed) row.n_leaders += by;
  if (!observed && row.given[node] == 0 && classes_[node] != no_class) row.n_followers += by;
}

void LatencyTable::set_class(base::NodeId node, std::uint32_t device_class) noexcept {
  for (ModelRow* const row : touched_) {
    count(*row, node.value, -1);
    own(*row, node.value);  // what its former class was told stays its own
  }
  classes_[node.value] = device_class;
  for (ModelRow* const row : touched_) {
    count(*row, node.value, 1);
    if (row->n_leaders > 0) seed_from_class(*row, node.value);
  }
}

void LatencyTable::set_prior(base::ModelId model, base::NodeId node, const Curve& prior) {
  ModelRow& row = touch(model);
  count(row, node.value, -1);
  row.models[node.value] = LatencyModel(prior);
  row.ears[node.value] = Ear::shut;
  row.given[node.value] = 1;
  row.publish(node.value);
}

void LatencyTable::observe(base::ModelId model, base::NodeId node, const BatchShape& shape, double service_s) {
  ModelRow& row = touch(model);
  own(row, node.value);
  LatencyModel& learner = row.models[node.value];
  const bool first = learner.n_observed() == 0;
  if (first) count(row, node.value, -1);
  learner.observe(shape, service_s);
  if (first) count(row, node.value, 1);
  if (learner.n_observed() != 0) row.ears[node.value] = Ear::shut;
  row.publish(node.value);
  // Peers hear of it at 1, 2, 4, ... observations: often while it matters, and next to never afterwards.
  if (row.n_followers == 0 || !std::has_single_bit(learner.n_observed())) return;
  if (classes_[node.value] != no_class) tell(row, node.value);
}

/// All of its class that know no better have its curve from here on.
void LatencyTable::tell(ModelRow& row, std::uint32_t leader) {
  const std::uint32_t device_class = classes_[leader];
  if (row.told.size() <= device_class) row.told.resize(device_class + 1);
  LatencyModel& told = row.told[device_class];
  told = LatencyModel(row.models[leader].curve(), row.models[leader].spread());
  std::uint32_t first = max_nodes_;  // whose figures are worked out; the others have the same
  for (std::uint32_t peer = 0; peer < max_nodes_; ++peer) {
    if (row.ears[peer] == Ear::shut || classes_[peer] != device_class) continue;
    row.ears[peer] = Ear::follows;
    if (first == max_nodes_) {
      row.publish(peer, told);
      first = peer;
      continue;
    }
    for (std::vector<float>* column :
         {&row.fixed_us, &row.per_work_us, &row.tail, &row.base_s, &row.per_request_s, &row.per_work_s}) {
      (*column)[peer] = (*column)[first];
    }
  }
}

/// Gives a follower a curve of its own, for now that of its class.
void LatencyTable::own(ModelRow& row, std::uint32_t node) noexcept {
  if (row.ears[node] != Ear::follows) return;
  row.models[node] = row.told[classes_[node]];
  row.ears[node] = Ear::open;
}

void LatencyTable::restart(base::ModelId model, base::NodeId node, const Curve& curve) noexcept {
  if (!rows_[model.value]) return;
  ModelRow& row = *rows_[model.value];
  count(row, node.value, -1);
  row.models[node.value] = LatencyModel(curve);
  row.ears[node.value] = row.given[node.value] != 0 ? Ear::shut : Ear::open;
  row.publish(node.value);
  count(row, node.value, 1);
}

void LatencyTable::forget(base::NodeId node) noexcept {
  for (ModelRow* const row : touched_) count(*row, node.value, -1);
  classes_[node.value] = no_class;
  for (ModelRow* const row : touched_) {
    row->models[node.value] = LatencyModel();
    row->ears[node.value] = Ear::open;
    row->given[node.value] = 0;
    row->publish(node.value);
  }
}

void LatencyTable::forget(base::ModelId model) noexcept {
  std::erase(touched_, rows_[model.value].get());
  rows_[model.value].reset();
}

void LatencyTable::seed(ModelRow& row, std::uint32_t node, const LatencyModel& like) noexcept {
  if (row.given[node] != 0 || row.models[node].n_observed() != 0) return;
  row.models[node] = LatencyModel(like.curve(), like.spread());
  row.ears[node] = Ear::open;
  row.publish(node);
}

void LatencyTable::seed_from_class(ModelRow& row, std::uint32_t node) noexcept {
  const LatencyModel* best = nullptr;
  for (std::uint32_t peer = 0; peer < max_nodes_; ++peer) {
    const LatencyModel& model = row.models[peer];
    if (!peers(peer, node) || model.n_observed() == 0) continue;
    if (best == nullptr || model.n_observed() > best->n_observed()) best = &model;
  }
  if (best != nullptr) seed(row, node, *best);
}

const LatencyModel& LatencyTable::at(base::ModelId model, base::NodeId node) const noexcept {
  if (!rows_[model.value]) return untouched_.models[0];
  const ModelRow& row = *rows_[model.value];
  return row.ears[node.value] == Ear::follows ? row.told[classes_[node.value]] : row.models[node.value];
}

bool LatencyTable::knows(base::ModelId model, base::NodeId node) const noexcept {
  if (!rows_[model.value]) return false;
  const ModelRow& row = *rows_[model.value];
  return row.given[node.value] != 0 || row.models[node.value].n_observed() >= LatencyModel::n_features;
}

BatchColumns LatencyTable::batch(base::ModelId model) const noexcept {
  const ModelRow& row = rows_[model.value] ? *rows_[model.value] : untouched_;
  return {row.base_s.data(), row.per_request_s.data(), row.per_work_s.data()};
}

}  // namespace infcore::contracts
