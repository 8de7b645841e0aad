#pragma once
#include <infcore/engine/event_log.hpp>
#include <infcore/engine/log_file.hpp>
#include <infcore/engine/state_machine.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace infcore::engine {

/// A state machine whose events and actions go to a log, if there is one; without one each call costs one branch that
/// always goes the same way. Calls that change nothing (a tick before the next timer, a batch that was given up) are
/// not written. Replaying the log through another state machine gives the same decisions: sim/replay.hpp.
///
/// Everything that the machine's decisions read must come through here once a log was started, the fleet's signals
/// included; nodes enter the log at add_node(), what they hold at residency_changed(). One owner at a time.
class LoggedMachine {
 public:
  LoggedMachine(const EngineConfig& config, route::Fleet& fleet, contracts::LatencyTable& latency,
                std::unique_ptr<route::RoutingPolicy> routing, std::unique_ptr<batch::BatchingPolicy> batching)
      : fleet_(fleet), latency_(latency), machine_(config, fleet, latency, std::move(routing), std::move(batching)) {}

  /// Before the first event. `buffer_bytes` is what may wait for the disk. Throws InvalidArgument.
  void start_log(const std::string& path, std::size_t buffer_bytes, const RunConfig&);
  /// The log is complete; nothing that comes later is written.
  void end_log();
  void seal_log() {
    if (log_) log_->seal();
  }
  /// nullptr: no log was started. Stays after end_log().
  [[nodiscard]] LogFile* log_file() noexcept { return file_.get(); }

  // As StateMachine's.
  void add_model(ModelId, const ModelConfig&);
  void remove_model(TimeNs now_ns, ModelId);
  void add_node(NodeId, const NodeConfig&);
  void residency_changed(TimeNs now_ns, NodeId);
  void drain_node(TimeNs now_ns, NodeId);
  void remove_node(TimeNs now_ns, NodeId);
  void first_token(TimeNs now_ns, NodeId, std::uint64_t batch_id);
  void progress(TimeNs now_ns, NodeId);
  void node_lost(TimeNs now_ns, NodeId);
  void node_failed(TimeNs now_ns, NodeId);
  void node_back(TimeNs now_ns, NodeId);
  void checked(TimeNs now_ns, NodeId, bool ok);
  void may_hold(TimeNs now_ns, NodeId, ModelId, bool may);
  bool loaded(TimeNs now_ns, NodeId, ModelId, bool ok, double load_s);
  void cancel_all(TimeNs now_ns, Reason);
  RequestHandle arrive(TimeNs now_ns, const contracts::Request& request) {
    const RequestHandle handle = machine_.arrive(now_ns, request);
    if (log_) [[unlikely]]
      log_->arrive(now_ns, request, handle), log_actions();
    return handle;
  }
  bool cancel(TimeNs now_ns, RequestHandle handle, Reason reason) {
    const bool cancelled = machine_.cancel(now_ns, handle, reason);
    if (log_ && cancelled) [[unlikely]]
      log_->cancel(now_ns, handle, reason), log_actions();
    return cancelled;
  }
  [[nodiscard]] const Batch* claim(TimeNs now_ns, NodeId);
  void started(TimeNs now_ns, NodeId node, std::uint64_t batch_id) {
    machine_.started(now_ns, node, batch_id);
    if (log_) [[unlikely]]
      log_->started(now_ns, node, batch_id), log_actions();
  }
  bool complete(TimeNs now_ns, NodeId node, std::uint64_t batch_id, bool ok) {
    const bool was_there = machine_.complete(now_ns, node, batch_id, ok);
    if (log_ && was_there) [[unlikely]]
      log_->complete(now_ns, node, batch_id, ok), log_actions();
    return was_there;
  }
  void tick(TimeNs now_ns) {
    const bool due = machine_.next_timer_ns() <= now_ns;
    machine_.tick(now_ns);
    if (log_ && due) [[unlikely]]
      log_->tick(now_ns), log_actions();
  }
  void schedule(TimeNs now_ns) {
    const bool has_work = machine_.has_work();
    machine_.schedule(now_ns);
    if (log_ && has_work) [[unlikely]]
      log_->schedule(now_ns), log_actions();
  }

  /// What decisions read besides: LatencyTable::set_prior and Fleet::signal.
  void set_prior(ModelId, NodeId, const contracts::Curve&);
  bool signal(NodeId, const contracts::Signal&);

  [[nodiscard]] const std::vector<Action>& actions() noexcept { return machine_.actions(); }
  /// Of the dispatches and hedges among them; empty unless EngineConfig::log_terms.
  [[nodiscard]] const std::vector<route::CostTerms>& terms() noexcept { return machine_.terms(); }
  void clear_actions() noexcept {
    machine_.actions().clear();
    machine_.terms().clear();
    n_logged_ = n_terms_logged_ = 0;
  }
  [[nodiscard]] TimeNs next_timer_ns() const noexcept { return machine_.next_timer_ns(); }
  [[nodiscard]] bool node_empty(NodeId node) const noexcept { return machine_.node_empty(node); }
  [[nodiscard]] bool has_open_batch(NodeId node) const noexcept { return machine_.has_open_batch(node); }
  [[nodiscard]] std::uint32_t n_pending() const noexcept { return machine_.n_pending(); }
  [[nodiscard]] const Stats* model_stats(ModelId model) const noexcept { return machine_.model_stats(model); }
  [[nodiscard]] const Stats* node_stats(NodeId node) const noexcept { return machine_.node_stats(node); }
  [[nodiscard]] route::RoutingPolicy& routing() noexcept { return machine_.routing(); }
  [[nodiscard]] const contracts::LatencyModel& latency(ModelId model, NodeId node) const noexcept {
    return latency_.at(model, node);
  }
  [[nodiscard]] std::uint32_t rung(ModelId model) const noexcept { return machine_.rung(model); }
  [[nodiscard]] bool wants_check(TimeNs now_ns, NodeId node) { return machine_.wants_check(now_ns, node); }
  [[nodiscard]] AdmissionFigures admission_figures(TimeNs now_ns, ModelId model) {
    return machine_.admission_figures(now_ns, model);
  }
  [[nodiscard]] bool reads_blocks() const noexcept { return machine_.reads_blocks(); }
  [[nodiscard]] std::uint32_t n_timers() const noexcept { return machine_.n_timers(); }
  [[nodiscard]] std::uint32_t n_lanes() const noexcept { return machine_.n_lanes(); }
  [[nodiscard]] std::uint64_t cookie(std::uint32_t slot) const noexcept { return machine_.cookie(slot); }

 private:
  void log_actions();

  route::Fleet& fleet_;
  contracts::LatencyTable& latency_;
  StateMachine machine_;
  std::unique_ptr<LogFile> file_;
  std::unique_ptr<EventLog> log_;
  std::size_t n_logged_{}, n_terms_logged_{};  ///< of the machine's actions, and of their terms
};

}  // namespace infcore::engine
