#pragma once
#include <infcore/contracts/latency_table.hpp>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace infcore::health {

/// How long an answer took, against what the node's peers would have taken.
struct Pace {
  bool judged{};  ///< there was something to hold it against
  bool slow{};    ///< beyond the factor of what the node's class takes and of what the node itself did before
  bool apart{};   ///< beyond the factor of what its class takes
};

/// What a class of nodes takes for a model, and how each node stands to that.
///
/// The class's pace is the curve of its median node: of the nodes whose curve is known, the one in the middle at the
/// class's mean batch. It is chosen anew after 8, 16, 32 answers of the class, and then after as many as it has nodes,
/// at least 64: a slow node drags the median by next to nothing, a class that is slow as a whole drags it along.
/// A node's own level is its first answers' mean ratio to that. Later it follows downwards by a 64th of each answer,
/// upwards by a 1024th: an improvement is believed, a deterioration is what we are after. So a slower machine that was
/// put into the class is measured by its own level, and a node that has become slower is not.
/// No answer is slow that took no longer than the class's mean batch: what a curve says of small batches that its node
/// never saw is not to be trusted.
///
/// Memory: 16 bytes for each node and model that was answered for. One thread at a time.
class ClassPace {
 public:
  ClassPace(std::uint32_t max_nodes, std::uint32_t max_models, double slow_factor)
      : models_(max_models), classes_(max_nodes, no_class), in_use_(max_nodes), slow_factor_(slow_factor) {}

  static constexpr std::uint32_t no_class = 0xFFFF'FFFFu;

  /// What was known of the node is forgotten.
  void joined(std::uint32_t node, std::uint32_t device_class);
  void left(std::uint32_t node) { joined(node, no_class); }
  /// The class is another one from now on; no node is in it.
  void forget_class(std::uint32_t device_class) noexcept;
  /// Whether the node's curve may speak for its class.
  void count_in(std::uint32_t node, bool in_use) noexcept { in_use_[node] = in_use ? 1 : 0; }

  [[nodiscard]] Pace judge(std::uint32_t node, std::uint32_t model, const contracts::BatchShape&, double service_s,
                           const contracts::LatencyTable&);
  /// The class's curve, times the node's level where `own_level`.
  [[nodiscard]] bool expected(std::uint32_t node, std::uint32_t model, bool own_level,
                              contracts::Curve&) const noexcept;

  [[nodiscard]] std::uint32_t class_of(std::uint32_t node) const noexcept { return classes_[node]; }

 private:
  struct Level {
    double ratio{1.0};
    std::uint32_t n{};
  };
  struct Reference {
    contracts::Curve curve{};
    double typical_s{};
    bool known{};
    std::uint32_t n_answers{}, n_wanted{8};
    contracts::Curve features{};  ///< sums of 1, n, sum(work), n*max(work) since it was chosen
  };
  struct Model {
    std::vector<Level> levels;
    std::vector<Reference> references;  // by class
  };
  void choose(Model&, std::uint32_t model, std::uint32_t device_class, const contracts::LatencyTable&);

  std::vector<std::unique_ptr<Model>> models_;
  std::vector<std::uint32_t> classes_;
  std::vector<std::uint8_t> in_use_;
  std::uint32_t n_classes_{};
  double slow_factor_;
  std::vector<std::pair<double, std::uint32_t>> scratch_;
};

}  // namespace infcore::health
