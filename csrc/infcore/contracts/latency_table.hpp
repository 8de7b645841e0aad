#pragma once
#include <infcore/base/ids.hpp>
#include <infcore/contracts/latency.hpp>

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

namespace infcore::contracts {

/// What a scorer reads of a model's curves, one figure per node: a single request of work w takes
/// fixed_us + per_work_us * w microseconds, and that times (1 + tail) at the upper quantile. Terms are at most 1e9
/// seconds: no work, times infinity, would be no number. Padded to 64 nodes.
struct SingleRequestColumns {
  const float* fixed_us;
  const float* per_work_us;
  const float* tail;
};

/// The terms of a model's curves, one figure per node: a batch of n requests of the same work w takes
/// base_s + (per_request_s + per_work_s * w) * n seconds. Kept within 1e-12 and 1e9, so that whoever divides by them or
/// multiplies them stays in float32. Padded to 64 nodes.
struct BatchColumns {
  const float* base_s;
  const float* per_request_s;
  const float* per_work_s;
};

/// The latency models of all (model, node) pairs, with the columns that routing reads.
///
/// A pair that was neither observed nor given a prior starts from the best-observed node of its device class. Models
/// are changed through the table only, so that columns and class peers follow.
///
/// One thread at a time. A model's row (about 200 bytes a node) is allocated when the model is first touched by
/// set_prior or observe; nothing else allocates.
class LatencyTable {
 public:
  LatencyTable(std::uint32_t max_nodes, std::uint32_t max_models);

  /// Nodes of one class are expected to be alike. A node that was given none has no peers.
  void set_class(base::NodeId node, std::uint32_t device_class) noexcept;
  /// A known curve (profile, configuration): stronger than what class peers say. Forgets what was observed.
  void set_prior(base::ModelId model, base::NodeId node, const Curve& prior);
  void observe(base::ModelId model, base::NodeId node, const BatchShape& shape, double service_s);
  /// What was learned of the pair is no longer true: it starts again from this curve.
  void restart(base::ModelId model, base::NodeId node, const Curve& curve) noexcept;
  /// Before an id is used for another node or model; the node's class goes too.
  void forget(base::NodeId node) noexcept;
  void forget(base::ModelId model) noexcept;

  [[nodiscard]] const LatencyModel& at(base::ModelId model, base::NodeId node) const noexcept;
  /// Whether the pair's curve is its own: it was given one, or seen as often as the curve has terms.
  [[nodiscard]] bool knows(base::ModelId model, base::NodeId node) const noexcept;
  /// Whether the pair was given a curve by set_prior: who has its class's was only told what peers were like.
  [[nodiscard]] bool is_given(base::ModelId model, base::NodeId node) const noexcept {
    return rows_[model.value] && rows_[model.value]->given[node.value] != 0;
  }
  [[nodiscard]] SingleRequestColumns single(base::ModelId model) const noexcept {
    const ModelRow& row = rows_[model.value] ? *rows_[model.value] : untouched_;
    return {row.fixed_us.data(), row.per_work_us.data(), row.tail.data()};
  }
  [[nodiscard]] BatchColumns batch(base::ModelId model) const noexcept;
  [[nodiscard]] std::uint32_t max_nodes() const noexcept { return max_nodes_; }
  [[nodiscard]] std::uint32_t max_models() const noexcept { return static_cast<std::uint32_t>(rows_.size()); }

 private:
  static constexpr std::uint32_t no_class = 0xFFFF'FFFFu;
  /// What a node makes of what its class's leaders tell: it knows better, it has a curve of its own until it hears
  /// anything, or its curve is its class's in `told`. A byte, so that 10,000 are told in some microseconds.
  enum class Ear : std::uint8_t { shut, open, follows };
  struct ModelRow {
    explicit ModelRow(std::uint32_t n_nodes);
    void publish(std::uint32_t node) noexcept { publish(node, models[node]); }
    void publish(std::uint32_t node, const LatencyModel& model) noexcept;
    std::vector<LatencyModel> models;
    std::vector<Ear> ears;
    std::deque<LatencyModel> told;    // by class: what a leader told last, one for all who follow it
    std::vector<std::uint8_t> given;  // by set_prior: class peers do not overwrite it
    std::vector<float> fixed_us, per_work_us, tail;
    std::vector<float> base_s, per_request_s, per_work_s;
    /// Nodes of a class that take their peers' curve: neither given one nor observed. 0: nobody need be told.
    std::uint32_t n_followers{};
    std::uint32_t n_leaders{};  ///< nodes that were observed. 0: there is nobody to learn from
  };
  ModelRow& touch(base::ModelId model);
  void count(ModelRow& row, std::uint32_t node, std::int32_t by) noexcept;
  void tell(ModelRow& row, std::uint32_t leader);
  void own(ModelRow& row, std::uint32_t node) noexcept;
  void seed(ModelRow& row, std::uint32_t node, const LatencyModel& like) noexcept;
  void seed_from_class(ModelRow& row, std::uint32_t node) noexcept;
  [[nodiscard]] bool peers(std::uint32_t a, std::uint32_t b) const noexcept {
    return a != b && classes_[a] != no_class && classes_[a] == classes_[b];
  }

  std::uint32_t max_nodes_;
  std::vector<std::uint32_t> classes_;
  ModelRow untouched_;
  std::vector<std::unique_ptr<ModelRow>> rows_;
  std::vector<ModelRow*> touched_;  // of rows_, those that are there: most models are nothing to a node that joins
};

}  // namespace infcore::contracts
