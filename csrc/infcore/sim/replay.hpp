#pragma once
#include <infcore/engine/digest.hpp>
#include <infcore/engine/event_reader.hpp>

#include <cstdint>
#include <istream>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace infcore::sim {

using base::ModelId;
using base::NodeId;
using base::TimeNs;

/// A device that the engine had at some time; several may have had one id after another.
struct RecordedNode {
  NodeId id{};
  TimeNs added_ns{};
  TimeNs removed_ns{base::never_ns};
  route::NodeSpec spec{};
  engine::NodeConfig config{};
};

struct RecordedModel {
  ModelId id{};
  std::string name{};
  std::uint32_t version{};
  engine::ModelConfig config{};
};

/// A batch that ran to its end.
struct RecordedBatch {
  std::uint32_t model{}, node{};  ///< places in models() and nodes()
  contracts::BatchShape shape{};
  TimeNs start_ns{}, end_ns{};
  bool ok{};
};

/// What was known at the end of how long a model takes on a node.
struct RecordedCurve {
  std::uint32_t model{}, node{};  ///< places in models() and nodes()
  contracts::Curve curve{};
  double spread{};
  std::uint64_t n_observed{};
};

/// The first decision that came out otherwise.
struct Difference {
  std::uint64_t byte{}, record{};
  TimeNs now_ns{};
  std::string recorded{}, replayed{};
};

/// Tells a state machine again what a log says that one was told, and compares what it decides with what was decided
/// then: actions, which batch a claim gave, whether a completion counted. Both go into a digest with their times.
/// After the first difference it goes on as far as what the log says can still be carried out.
/// Memory: the machine's, and what `collect` asks for: every arrival, batch and curve.
class Replay {
 public:
  Replay(std::istream& in, std::string name, bool partial, bool collect)
      : reader_(in, std::move(name), partial), collect_(collect) {}

  /// Carries out up to `n_records` more; false: it was the end. Throws BadLog, also where a record names
  /// something that was never there.
  bool run(std::uint64_t n_records);

  [[nodiscard]] std::uint64_t digest() const noexcept { return replayed_.value(); }
  [[nodiscard]] std::uint64_t recorded_digest() const noexcept { return recorded_.value(); }
  [[nodiscard]] const std::optional<Difference>& first_difference() const noexcept { return first_difference_; }
  [[nodiscard]] std::uint64_t n_events() const noexcept { return n_events_; }
  [[nodiscard]] std::uint64_t n_requests() const noexcept { return n_requests_; }
  [[nodiscard]] std::uint64_t n_actions() const noexcept { return n_actions_; }
  [[nodiscard]] bool complete() const noexcept { return reader_.complete(); }
  [[nodiscard]] const engine::RunConfig& config() const noexcept { return config_; }
  [[nodiscard]] const engine::StateMachine* machine() const noexcept { return machine_.get(); }

  [[nodiscard]] const std::vector<RecordedNode>& nodes() const noexcept { return nodes_; }
  [[nodiscard]] const std::vector<RecordedModel>& models() const noexcept { return models_; }
  [[nodiscard]] const route::Labels& labels() const noexcept { return labels_; }
  // With `collect` only.
  /// `cookie` is the request's number, `model` the place in models().
  [[nodiscard]] const std::vector<contracts::Request>& arrivals() const noexcept { return arrivals_; }
  [[nodiscard]] const std::vector<RecordedBatch>& batches() const noexcept { return batches_; }
  [[nodiscard]] const std::vector<RecordedCurve>& curves() const noexcept { return curves_; }

 private:
  static constexpr std::uint32_t none = 0xFFFF'FFFFu;
  struct Running {
    std::uint64_t id{};
    ModelId model{};
    contracts::BatchShape shape{};
    TimeNs start_ns{};
  };

  void step();
  void pass_over();
  void event();
  void membership();
  void node_event();
  void build();
  void residency();
  void arrive();
  void claim();
  void complete_batch();
  void match_action();
  void match_terms();
  void nothing_left_over();
  void differ(std::string recorded, std::string replayed);
  void keep_curves(NodeId);
  void check_node(NodeId) const;
  void check_model(ModelId) const;
  void compare(std::uint64_t recorded, std::uint64_t replayed, const char* what);

  engine::EventReader reader_;
  const bool collect_;
  engine::EventRecord record_{};
  engine::RunConfig config_{};
  std::unique_ptr<route::Fleet> fleet_;
  std::unique_ptr<contracts::LatencyTable> latency_;
  std::unique_ptr<engine::StateMachine> machine_;
  std::unordered_map<std::uint64_t, engine::RequestHandle> handles_;  ///< of what has not ended, by number
  /// Their prompts' blocks, and those of the next arrival.
  std::unordered_map<std::uint64_t, std::vector<std::uint64_t>> blocks_;
  std::vector<std::uint64_t> next_blocks_{};
  contracts::Request next_prompt_{};
  std::vector<engine::Action> due_;          ///< decided now, not yet found in the log
  std::vector<route::CostTerms> due_terms_;  ///< of the dispatches and hedges among them
  std::size_t n_matched_{}, n_terms_matched_{};
  TimeNs due_ns_{};
  bool derailed_{};                                ///< nothing is carried out any more
  std::vector<std::uint32_t> node_at_, model_at_;  ///< id -> place in nodes_, models_; none
  std::vector<std::vector<Running>> running_;      ///< by node id
  std::vector<RecordedNode> nodes_;
  std::vector<RecordedModel> models_;
  route::Labels labels_;
  std::vector<contracts::Request> arrivals_;
  std::vector<RecordedBatch> batches_;
  std::vector<RecordedCurve> curves_;
  engine::Digest replayed_{}, recorded_{};
  std::optional<Difference> first_difference_{};
  std::uint64_t n_events_{}, n_requests_{}, n_actions_{};
};

}  // namespace infcore::sim
