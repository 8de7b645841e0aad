#include <infcore/health/class_pace.hpp>

#include <algorithm>

namespace infcore::health {
namespace {

using contracts::BatchShape;
using contracts::Curve;

/// Answers before a node's level is believed, and the most that one of them counts for: the first ones load models and
/// compile kernels.
constexpr std::uint32_t settled_after = 8;
constexpr double first_ratio_max = 64.0;
constexpr double gain_down = 1.0 / 64, gain_up = 1.0 / 1024;
constexpr std::uint32_t answers_most = 64;
constexpr double seconds_min = contracts::LatencyModel::service_s_min;

double at(const Curve& curve, const Curve& features) noexcept {
  return curve.base_s * features.base_s + curve.per_request_s * features.per_request_s +
         curve.per_work_s * features.per_work_s + curve.per_padded_work_s * features.per_padded_work_s;
}

}  // namespace

void ClassPace::joined(std::uint32_t node, std::uint32_t device_class) {
  classes_[node] = device_class;
  in_use_[node] = device_class == no_class ? 0 : 1;
  if (device_class != no_class) n_classes_ = std::max(n_classes_, device_class + 1);
  for (auto& model : models_)
    if (model) model->levels[node] = {};
}

void ClassPace::forget_class(std::uint32_t device_class) noexcept {
  for (auto& model : models_)
    if (model && device_class < model->references.size()) model->references[device_class] = {};
}

/// The lower median, so that of two the faster speaks for both. What nodes' levels come to in seconds stays.
void ClassPace::choose(Model& row, std::uint32_t model, std::uint32_t device_class,
                       const contracts::LatencyTable& table) {
  Reference& reference = row.references[device_class];
  scratch_.clear();
  std::uint32_t n_class = 0;
  for (std::uint32_t node = 0; node < classes_.size(); ++node) {
    if (classes_[node] != device_class) continue;
    ++n_class;
    if (in_use_[node] == 0 || !table.knows(base::ModelId{model}, base::NodeId{node})) continue;
    const Curve& curve = table.at(base::ModelId{model}, base::NodeId{node}).curve();
    scratch_.emplace_back(at(curve, reference.features), node);
  }
  reference.n_wanted = std::max(std::min(2 * reference.n_wanted, answers_most), n_class);
  if (!scratch_.empty()) {
    const auto middle = scratch_.begin() + (std::ssize(scratch_) - 1) / 2;
    std::nth_element(scratch_.begin(), middle, scratch_.end());
    const double was = reference.known ? at(reference.curve, reference.features) : 0.0;
    const double scale = was > 0.0 && middle->first > 0.0 ? was / middle->first : 1.0;
    for (std::uint32_t node = 0; node < classes_.size(); ++node) {
      if (classes_[node] == device_class) row.levels[node].ratio *= scale;
    }
    reference.curve = table.at(base::ModelId{model}, base::NodeId{middle->second}).curve();
    reference.typical_s = middle->first / reference.features.base_s;
    reference.known = true;
  }
  reference.features = {};
  reference.n_answers = 0;
}

Pace ClassPace::judge(std::uint32_t node, std::uint32_t model, const BatchShape& shape, double service_s,
                      const contracts::LatencyTable& table) {
  const std::uint32_t device_class = classes_[node];
  if (device_class == no_class) return {};
  auto& row = models_[model];
  if (!row) row = std::make_unique<Model>(Model{std::vector<Level>(classes_.size()), {}});
  if (row->references.size() <= device_class) row->references.resize(n_classes_);
  Reference& reference = row->references[device_class];
  const double n = shape.n_requests;
  reference.features.base_s += 1.0;
  reference.features.per_request_s += n;
  reference.features.per_work_s += shape.work_sum;
  reference.features.per_padded_work_s += n * shape.work_max;
  if (++reference.n_answers >= reference.n_wanted) choose(*row, model, device_class, table);
  if (!reference.known) return {};

  const double expected_s =
      std::max(std::max(reference.curve.service_s(shape), reference.typical_s / slow_factor_), seconds_min);
  const double ratio = service_s / expected_s;
  Level& level = row->levels[node];
  const bool settled = level.n >= settled_after;
  const double slow_from = slow_factor_ * std::max(1.0, level.ratio);
  const Pace pace{true, settled && ratio > slow_from, ratio > slow_factor_};
  if (!settled) {
    ++level.n;
    const double counted = std::min(ratio, first_ratio_max);
    level.ratio = level.n == 1 ? counted : level.ratio + (counted - level.ratio) / level.n;
  } else if (ratio < level.ratio) {
    level.ratio += (ratio - level.ratio) * gain_down;
  } else if (!pace.slow) {
    level.ratio += (std::min(ratio, 2.0 * level.ratio) - level.ratio) * gain_up;
  }
  return pace;
}

bool ClassPace::expected(std::uint32_t node, std::uint32_t model, bool own_level, Curve& curve) const noexcept {
  const std::uint32_t device_class = classes_[node];
  if (device_class == no_class || !models_[model]) return false;
  const Model& row = *models_[model];
  if (row.references.size() <= device_class || !row.references[device_class].known) return false;
  const Level& level = row.levels[node];
  const double scale = own_level && level.n >= settled_after ? level.ratio : 1.0;
  const Curve& like = row.references[device_class].curve;
  curve = {like.base_s * scale, like.per_request_s * scale, like.per_work_s * scale, like.per_padded_work_s * scale};
  return true;
}

}  // namespace infcore::health
