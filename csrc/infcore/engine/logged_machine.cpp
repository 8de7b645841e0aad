#include <infcore/engine/logged_machine.hpp>

#include <algorithm>

namespace infcore::engine {
namespace {

/// One that fills, one that is written, and slack between the two.
constexpr std::size_t n_log_blocks = 8;

}  // namespace

void LoggedMachine::start_log(const std::string& path, std::size_t buffer_bytes, const RunConfig& config) {
  auto file = std::make_unique<LogFile>(path, buffer_bytes / n_log_blocks, n_log_blocks);
  log_ = std::make_unique<EventLog>(*file, fleet_, config);
  file_ = std::move(file);
}

void LoggedMachine::end_log() {
  if (!log_) return;
  log_->end();
  log_.reset();
  file_->finish();
}

void LoggedMachine::log_actions() {
  const std::vector<Action>& actions = machine_.actions();
  const std::vector<route::CostTerms>& terms = machine_.terms();
  for (; n_logged_ < actions.size(); ++n_logged_) {
    const Action& action = actions[n_logged_];
    const bool with_terms = !terms.empty() && has_terms(action.kind);
    log_->action(action, with_terms ? &terms[n_terms_logged_++] : nullptr);
  }
}

void LoggedMachine::add_model(ModelId model, const ModelConfig& config) {
  if (log_) log_->name_models();  // this one's name may be refused
  machine_.add_model(model, config);
  if (log_) log_->add_model(model, config);
}

void LoggedMachine::remove_model(TimeNs now_ns, ModelId model) {
  machine_.remove_model(now_ns, model);
  if (log_) log_->remove_model(now_ns, model), log_actions();
}

void LoggedMachine::add_node(NodeId node, const NodeConfig& config) {
  if (log_) log_->add_node(node, config);  // may refuse the node, and nothing comes of it
  machine_.add_node(node, config);
}

void LoggedMachine::residency_changed(TimeNs now_ns, NodeId node) {
  machine_.residency_changed(now_ns, node);
  if (log_) log_->residency(now_ns, node), log_actions();
}

void LoggedMachine::drain_node(TimeNs now_ns, NodeId node) {
  machine_.drain_node(now_ns, node);
  if (log_) log_->node_event(EventKind::drain_node, now_ns, node), log_actions();
}

void LoggedMachine::remove_node(TimeNs now_ns, NodeId node) {
  machine_.remove_node(now_ns, node);
  if (log_) log_->node_event(EventKind::remove_node, now_ns, node), log_actions();
}

void LoggedMachine::node_lost(TimeNs now_ns, NodeId node) {
  machine_.node_lost(now_ns, node);
  if (log_) log_->node_event(EventKind::node_lost, now_ns, node), log_actions();
}

void LoggedMachine::node_failed(TimeNs now_ns, NodeId node) {
  machine_.node_failed(now_ns, node);
  if (log_) log_->node_event(EventKind::node_failed, now_ns, node), log_actions();
}

void LoggedMachine::first_token(TimeNs now_ns, NodeId node, std::uint64_t batch_id) {
  machine_.first_token(now_ns, node, batch_id);
  if (log_) log_->first_token(now_ns, node, batch_id);
}

void LoggedMachine::progress(TimeNs now_ns, NodeId node) {
  machine_.progress(now_ns, node);
  if (log_) log_->node_event(EventKind::progress, now_ns, node);
}

void LoggedMachine::node_back(TimeNs now_ns, NodeId node) {
  const bool was_lost = fleet_.state(node) == route::NodeState::lost;
  machine_.node_back(now_ns, node);
  if (log_ && was_lost) log_->node_event(EventKind::node_back, now_ns, node), log_actions();
}

void LoggedMachine::checked(TimeNs now_ns, NodeId node, bool ok) {
  machine_.checked(now_ns, node, ok);
  if (log_) log_->checked(now_ns, node, ok), log_actions();
}

void LoggedMachine::may_hold(TimeNs now_ns, NodeId node, ModelId model, bool may) {
  machine_.may_hold(now_ns, node, model, may);
  if (log_) log_->may_hold(now_ns, node, model, may), log_actions();
}

bool LoggedMachine::loaded(TimeNs now_ns, NodeId node, ModelId model, bool ok, double load_s) {
  const bool was_wanted = machine_.loaded(now_ns, node, model, ok, load_s);
  if (log_ && was_wanted) log_->loaded(now_ns, node, model, ok, load_s), log_actions();
  return was_wanted;
}

void LoggedMachine::cancel_all(TimeNs now_ns, Reason reason) {
  machine_.cancel_all(now_ns, reason);
  if (log_) log_->cancel_all(now_ns, reason), log_actions();
}

const Batch* LoggedMachine::claim(TimeNs now_ns, NodeId node) {
  const bool had_one = log_ && machine_.has_open_batch(node);
  const Batch* batch = machine_.claim(now_ns, node);
  if (had_one) log_->claim(now_ns, node, batch == nullptr ? 0 : batch->id), log_actions();
  return batch;
}

void LoggedMachine::set_prior(ModelId model, NodeId node, const contracts::Curve& curve) {
  latency_.set_prior(model, node, curve);
  if (log_) log_->prior(model, node, curve);
}

bool LoggedMachine::signal(NodeId node, const contracts::Signal& signal) {
  const bool taken = fleet_.signal(node, signal);
  if (log_ && taken) log_->signal(node, signal);
  return taken;
}

}  // namespace infcore::engine
