// The small model first, and a larger one where the caller reports that it was not confident of the answer. What share
// goes on is learned of each model, and a request starts where its expected cost is least: the small model's, plus the
// share that goes on times what then follows. Which node, slo_cost says.
//
// Source: L. Chen, M. Zaharia, J. Zou, FrugalGPT (2023, section 3, "LLM cascade"; arXiv:2305.05176): models in order,
//   each answer scored, the next asked below a threshold.
// Differs: the score is the caller's; one threshold for all steps; costs are predicted microseconds (waiting, service,
//   network, and what else slo_cost weighs), so that the start moves with queues. The share is over about the last 256
//   reports; each request that steps over a model makes its share fade to a half, so that the model is tried again.
// Cost: slo_cost's; in Router.pick a pass over float32 columns more for each model from the one asked for on.
// Tunables: models = [smallest, ..., largest], min_confidence = .8, 0 to 1, and slo_cost's.
// In an engine: joint choice, as slo_cost, of the model that was asked for: nobody reports confidence there.
#include <infcore/base/errors.hpp>
#include <infcore/route/narrowing_policy.hpp>

#include <limits>

namespace infcore::route {
namespace {

constexpr double kept_of_memory = 1.0 - 1.0 / 256.0;
constexpr std::size_t models_max = 16;

struct Step {
  std::string name;
  ModelId model{base::no_model};  // until the fleet knows it
  double n_reports{}, n_low{};    // fading counts

  void fade() noexcept { n_reports *= kept_of_memory, n_low *= kept_of_memory; }
  /// As if one report of either kind had come before all others.
  [[nodiscard]] double share_low() const noexcept { return (n_low + 1.0) / (n_reports + 2.0); }
};

class Cascade final : public NarrowingPolicy {
 public:
  Cascade(std::uint64_t seed, RoutingOptions& options)
      : NarrowingPolicy(seed, options), min_confidence_(options.number("min_confidence", 0.8, 0.0, 1.0)) {
    for (std::string& name : options.texts("models")) {
      if (step_named(name) != steps_.size())
        throw InvalidArgument("models", "'" + name + "' twice", "each model once, the smallest first");
      steps_.push_back({.name = std::move(name)});
    }
    if (steps_.size() > models_max)
      throw InvalidArgument("models", std::to_string(steps_.size()) + " names", "at most 16");
  }
  const char* name() const noexcept override { return "cascade"; }
  bool binds_on_arrival() const noexcept override { return false; }

  void attach(const Fleet& fleet) override {
    NarrowingPolicy::attach(fleet);
    fleet_ = &fleet;
  }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    const Choice choice = of_all(query, view);
    if (choice.found() && start_ < steps_.size() && steps_[start_].model == query.model) {
      for (std::size_t i = asked_; i < start_; ++i) steps_[i].fade();
      asked_ = start_ = 0;
    }
    return take(choice);
  }

  ModelId start_at(const RouteQuery& query, RouteView& view) noexcept override {
    const std::size_t asked = step_of(query.model);
    asked_ = start_ = 0;
    std::size_t start = asked;
    double least_us = std::numeric_limits<double>::infinity(), after_us = least_us;
    for (std::size_t i = steps_.size(); i-- > asked;) {
      const double own_us = cost_us(steps_[i].model, query, view);
      if (own_us == std::numeric_limits<double>::infinity()) continue;
      // The last that can be asked ends it, whatever its confidence.
      const double goes_on_us =
          after_us < std::numeric_limits<double>::infinity() ? steps_[i].share_low() * after_us : 0;
      after_us = own_us + goes_on_us;
      if (after_us <= least_us) start = i, least_us = after_us;
    }
    if (start == asked) return query.model;
    asked_ = asked, start_ = start;
    return steps_[start].model;
  }

  ModelId next_model(ModelId model, double confidence) noexcept override {
    const std::size_t at = step_of(model);
    if (at + 1 >= steps_.size() || !(confidence < min_confidence_)) return base::no_model;
    return steps_[at + 1].model;
  }

  void observe(const RouteOutcome& outcome) noexcept override {
    NarrowingPolicy::observe(outcome);
    const std::size_t at = step_of(outcome.model);
    if (at == steps_.size() || outcome.confidence < 0.0) return;
    steps_[at].fade();
    steps_[at].n_reports += 1.0;
    if (outcome.confidence < min_confidence_) steps_[at].n_low += 1.0;
  }

 private:
  std::size_t step_named(const std::string& name) const noexcept {
    std::size_t i = 0;
    while (i < steps_.size() && steps_[i].name != name) ++i;
    return i;
  }

  /// steps_.size(): the model is in no step.
  std::size_t step_of(ModelId model) noexcept {
    const std::uint32_t n_known = fleet_->n_models();
    for (; n_seen_ < n_known; ++n_seen_) {  // models have come
      const std::size_t i = step_named(fleet_->model_name(ModelId{n_seen_}));
      if (i < steps_.size() && fleet_->model_version(ModelId{n_seen_}) == 0) steps_[i].model = ModelId{n_seen_};
    }
    std::size_t i = 0;
    while (i < steps_.size() && steps_[i].model != model) ++i;
    return i;
  }

  /// +inf where no node would take it.
  double cost_us(ModelId model, const RouteQuery& query, RouteView& view) const noexcept {
    if (model == base::no_model) return std::numeric_limits<double>::infinity();
    RouteQuery each = query;
    each.model = model;
    return view.prepare(each, weights()) ? view.least_cost().value : std::numeric_limits<double>::infinity();
  }

  double min_confidence_;
  const Fleet* fleet_{};
  std::uint32_t n_seen_{};  // of the fleet's model ids
  std::vector<Step> steps_;
  std::size_t asked_{}, start_{};  // of the last start_at(), until select() has found a node
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_cascade(std::uint64_t seed, RoutingOptions& options) {
  return std::make_unique<Cascade>(seed, options);
}

}  // namespace infcore::route
