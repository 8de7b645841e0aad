#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/contracts/request.hpp>
#include <infcore/engine/arrival_rate.hpp>
#include <infcore/engine/model_memory.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace infcore::engine {

using base::ModelId;
using base::NodeId;
using base::TimeNs;

/// What is known of where models are and could be, where the engine itself decides that: which nodes may hold which
/// models, each node's memory and the load that is under way there, what loads take, how much each model is asked for.
/// It decides nothing: load_plan.cpp does. The fleet's bits say what is resident; a node's memory has besides what is
/// on its way. One load at a time on a node: what is asked for next is decided when it is over, by what waits then.
class Residency {
 public:
  /// Asks within about the last minute.
  using Demand = ArrivalRateOver<30'000'000'000>;

  struct Failed {
    ModelId model{};
    TimeNs until_ns{};  ///< it is not tried again before
  };
  struct NodeLoads {
    ModelMemory memory;
    bool beside_runs{};  ///< a load and a run do not wait for each other
    ModelId loading{base::no_model};
    bool is_unwanted{};   ///< it goes as soon as it is there
    bool may_fill{true};  ///< there may be room for something nobody waits for
    bool is_reserved{};   ///< nothing new begins there, so that what has to go for a load gets out of use
    bool reserves{};      ///< likewise, as of the plan at hand
    TimeNs begun_ns{}, expected_end_ns{};
    TimeNs over_ns{base::never_ns};  ///< when the last load was; never_ns: there was none
    std::vector<ModelId> in_use{};   ///< models of the batches that are there
    std::vector<ModelId> awaited{};  ///< loaded for somebody, and not yet used
    std::vector<Failed> failed{};    ///< what could not be loaded

    [[nodiscard]] bool is_loading() const noexcept { return loading != base::no_model; }
    /// When it may be asked for again what it failed to load; 0: now.
    [[nodiscard]] TimeNs failed_until_ns(ModelId model) const noexcept {
      for (const Failed& each : failed)
        if (each.model == model) return each.until_ns;
      return 0;
    }
    void forget_awaited(ModelId model) noexcept {
      if (std::erase(awaited, model) > 0) memory.hold(model, Hold::awaited, false);
    }
  };
  struct ModelFacts {
    std::uint64_t weights_bytes{};
    double load_s{};    ///< as declared, then as measured
    double doubt{1.0};  ///< what load_s is believed of that figure, see doubt()
    TimeNs doubted_ns{};
    bool is_known{}, is_measured{};
    std::uint32_t n_loading{};  ///< nodes that load it
    Demand demand{};
  };

  Residency(std::string policy, std::uint32_t max_nodes, std::uint32_t max_models);

  void add_model(ModelId, std::uint64_t weights_bytes, double load_s);
  /// Its memory is empty, and it may hold nothing yet.
  void add_node(NodeId, std::uint64_t memory_bytes, bool beside_runs);
  void remove_node(NodeId);
  void may_hold(NodeId, ModelId, bool may) noexcept;

  [[nodiscard]] bool may_hold(NodeId node, ModelId model) const noexcept { return is_in(allowed_, model, node); }
  /// The nodes that may hold it, 64 a word.
  [[nodiscard]] std::uint64_t allowed(ModelId model, std::uint32_t word) const noexcept {
    return allowed_[std::size_t{model.value} * n_words_ + word];
  }
  /// What is sent where: who may hold it, is large enough, and has not failed to load it just now.
  [[nodiscard]] bool hosts(NodeId node, ModelId model) const noexcept { return is_in(hosts_, model, node); }
  /// Such nodes, 64 a word.
  [[nodiscard]] std::uint64_t hosts(ModelId model, std::uint32_t word) const noexcept {
    return hosts_[std::size_t{model.value} * n_words_ + word];
  }
  /// All of them, row by row.
  [[nodiscard]] const std::uint64_t* all_hosts() const noexcept { return hosts_.data(); }

  /// nullptr: the node is not there.
  [[nodiscard]] NodeLoads* node(NodeId node) noexcept { return nodes_[node.value].get(); }
  [[nodiscard]] const NodeLoads* node(NodeId node) const noexcept { return nodes_[node.value].get(); }
  [[nodiscard]] ModelFacts& model(ModelId model) noexcept { return models_[model.value]; }
  [[nodiscard]] const ModelFacts& model(ModelId model) const noexcept { return models_[model.value]; }

  /// A request has come.
  void asked(ModelId model, TimeNs now_ns) noexcept {
    models_[model.value].demand.add(now_ns);
    demand_.add(now_ns);
  }
  [[nodiscard]] bool is_reserved(NodeId node) const noexcept {
    return nodes_[node.value] != nullptr && nodes_[node.value]->is_reserved;
  }
  /// Requests are served with it there.
  void used(NodeId node, ModelId model) noexcept {
    NodeLoads* const loads = nodes_[node.value].get();
    if (loads != nullptr && loads->memory.holds(model)) loads->memory.used(model);
  }
  /// It waits in a lane.
  void waits(std::uint32_t lane, const contracts::Request&) noexcept;
  /// It could not be loaded there, and is not tried again before.
  void fail(NodeId, ModelId, TimeNs until_ns);
  /// It may be another model of that name by now.
  void forgive(NodeId, ModelId) noexcept;
  /// What the node failed to load before may be tried again; returns when the next may, never_ns: none.
  TimeNs forgive(NodeId, TimeNs now_ns) noexcept;
  /// How much likelier it is asked for than the models that were ever told of, on average; within bounds.
  [[nodiscard]] double reuse(ModelId, TimeNs now_ns) noexcept;
  /// Seconds that its load is expected to take: as measured, else as declared, else by what other bytes took.
  [[nodiscard]] double told_load_s(ModelId) const noexcept;
  /// As far as that is believed.
  [[nodiscard]] double load_s(ModelId model) const noexcept { return models_[model.value].doubt * told_load_s(model); }
  void measured(ModelId, double load_s, TimeNs now_ns) noexcept;
  /// A request was refused for what a load is expected to take, and so nothing will be loaded that tells otherwise:
  /// half of it is believed, then, if this goes on, a quarter.
  void doubt(ModelId, TimeNs now_ns) noexcept;
  /// Of any model that was ever told of.
  [[nodiscard]] std::uint64_t weights_bytes_least() const noexcept { return weights_bytes_least_; }
  /// The cost of loading it once more, as policies are told it.
  [[nodiscard]] double cost_us(ModelId model) const noexcept { return load_s(model) * 1e6; }

  /// Of nodes that would have to load a model first: the least seconds until an answer, and how many they are.
  struct Cold {
    double least_s{};
    std::uint32_t n_able{};
  };
  /// What a plan of loads reads and writes.
  struct Plan {
    std::vector<std::uint64_t> waiting{};  ///< lanes where something may wait, 64 a word
    std::vector<std::uint32_t> lanes{};    ///< where something does; the most urgent first, where any node could load
    /// Of all that ever waited: whoever is no more urgent comes after all that wait.
    TimeNs deadline_ns_most{};
    std::uint16_t tier_most{};
    std::vector<ModelId> expected{};  ///< to be loaded though nobody waits for it
    std::vector<double> backlog_s{};  ///< by node: of what waits for models that it holds
  };
  [[nodiscard]] Plan& plan() noexcept { return plan_; }

  /// Whether any node is there that loads nothing.
  [[nodiscard]] bool any_idle() const noexcept { return n_loading_ < n_nodes_; }
  void begin_load(NodeId, ModelId, TimeNs now_ns, TimeNs expected_end_ns);
  /// Its place stays taken; remove it where it did not arrive.
  void end_load(NodeId) noexcept;

 private:
  using Bits = std::vector<std::uint64_t>;  // by model, a row of 64 nodes a word
  [[nodiscard]] bool is_in(const Bits& bits, ModelId model, NodeId node) const noexcept {
    return (bits[std::size_t{model.value} * n_words_ + node.value / 64] >> (node.value % 64) & 1u) != 0;
  }
  void put(Bits& bits, ModelId model, NodeId node, bool on) noexcept;
  void follow_hosts(NodeId, ModelId) noexcept;

  std::string policy_;
  std::uint32_t n_words_, n_models_{}, n_known_{}, n_nodes_{},
      n_loading_{};  ///< n_models_: that memories have room for
  Bits allowed_, hosts_;
  std::vector<std::unique_ptr<NodeLoads>> nodes_;
  std::vector<ModelFacts> models_;
  Demand demand_{};
  Plan plan_{};
  std::uint64_t weights_bytes_least_{~std::uint64_t{0}};
  double seconds_per_byte_{};  ///< of the loads that were measured; 0: none
};

}  // namespace infcore::engine
