// What the engine's controlling threads change while it runs; each call is one step of the owner.
#include <infcore/engine/driver.hpp>

namespace infcore::engine {

std::uint32_t Driver::add_model(ModelId model, const ModelConfig& config) {
  std::uint32_t epoch = 0;
  with_machine([&](StateMachine& machine, TimeNs) {
    machine.add_model(model, config);
    epoch = ++model_epochs_[model.value];
  });
  return epoch;
}

void Driver::remove_model(ModelId model) {
  with_machine([&](StateMachine& machine, TimeNs now_ns) {
    machine.remove_model(now_ns, model);
    ++model_epochs_[model.value];
  });
}

void Driver::add_node(NodeId node, const NodeConfig& config) {
  mailboxes_[node.value]->generation.fetch_add(1, std::memory_order_acq_rel);
  with_machine([&](StateMachine& machine, TimeNs) { machine.add_node(node, config); });
}

void Driver::set_prior(ModelId model, NodeId node, const contracts::Curve& curve) {
  with_machine([&](StateMachine&, TimeNs) { latency_.set_prior(model, node, curve); });
}

void Driver::set_resident(ModelId model, NodeId node, bool resident) {
  with_machine([&](StateMachine& machine, TimeNs now_ns) {
    if (resident) {
      fleet_.load_model(node, model);
    } else {
      fleet_.unload_model(node, model);
    }
    machine.residency_changed(now_ns, node);
  });
}

void Driver::drain_node(NodeId node) {
  with_machine([&](StateMachine& machine, TimeNs now_ns) { machine.drain_node(now_ns, node); });
}

bool Driver::node_empty(NodeId node) {
  bool empty = false;
  with_machine([&](StateMachine& machine, TimeNs) { empty = machine.node_empty(node); });
  return empty;
}

void Driver::remove_node(NodeId node) {
  with_machine([&](StateMachine& machine, TimeNs now_ns) { machine.remove_node(now_ns, node); });
}

void Driver::give_up_node(NodeId node) {
  with_machine([&](StateMachine& machine, TimeNs now_ns) { machine.node_lost(now_ns, node); });
}

void Driver::cancel_all() {
  with_machine([](StateMachine&, TimeNs) {});  // what is still in the ring counts as open, too
  with_machine([&](StateMachine& machine, TimeNs now_ns) { machine.cancel_all(now_ns, Reason::closing); });
}

std::unique_ptr<Stats> Driver::model_stats(ModelId model) {
  std::unique_ptr<Stats> copy;
  with_machine([&](StateMachine& machine, TimeNs) {
    if (const Stats* stats = machine.model_stats(model)) copy = std::make_unique<Stats>(*stats);
  });
  if (copy) copy->rejected += n_refused_[model.value].load(std::memory_order_relaxed);
  return copy;
}

std::unique_ptr<Stats> Driver::node_stats(NodeId node) {
  std::unique_ptr<Stats> copy;
  with_machine([&](StateMachine& machine, TimeNs) {
    if (const Stats* stats = machine.node_stats(node)) copy = std::make_unique<Stats>(*stats);
  });
  return copy;
}

}  // namespace infcore::engine
