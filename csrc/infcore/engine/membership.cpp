// What the engine's controlling threads change while it runs; each call is one step of the owner.
#include <infcore/base/errors.hpp>
#include <infcore/engine/driver.hpp>

#include <utility>

namespace infcore::engine {

std::uint32_t Driver::add_model(ModelId model, const ModelConfig& config) {
  std::uint32_t epoch = 0;
  with_machine([&](LoggedMachine& machine, TimeNs) {
    machine.add_model(model, config);
    epoch = ++model_epochs_[model.value];
  });
  return epoch;
}

void Driver::remove_model(ModelId model) {
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) {
    machine.remove_model(now_ns, model);
    ++model_epochs_[model.value];
  });
}

void Driver::add_node(NodeId node, const NodeConfig& config) {
  mailboxes_[node.value]->generation.fetch_add(1, std::memory_order_acq_rel);
  with_machine([&](LoggedMachine& machine, TimeNs) {
    mailboxes_[node.value]->in_run = mailboxes_[node.value]->kept_lost = false;
    machine.add_node(node, config);
  });
}

void Driver::set_prior(ModelId model, NodeId node, const contracts::Curve& curve) {
  with_machine([&](LoggedMachine& machine, TimeNs) { machine.set_prior(model, node, curve); });
}

void Driver::set_resident(ModelId model, NodeId node, bool resident) {
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) {
    if (resident) {
      fleet_.load_model(node, model);
    } else {
      fleet_.unload_model(node, model);
    }
    machine.residency_changed(now_ns, node);
  });
}

void Driver::may_hold(ModelId model, NodeId node, bool may) {
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) { machine.may_hold(now_ns, node, model, may); });
}

void Driver::preload(ModelId model) {
  if (run_.engine.residency.empty()) {
    throw InvalidArgument("residency", "None", "a policy, where models are to be loaded before they are asked for");
  }
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) { machine.preload(now_ns, model); });
}

std::vector<LoadOrder> Driver::wait_orders() {
  std::vector<LoadOrder> taken;
  while (taken.empty() && !stopping_.load(std::memory_order_acquire)) {
    static_cast<void>(order_taker_.wait(
        [&] {
          const std::scoped_lock lock(owner_);
          return !orders_.empty() || stopping_.load(std::memory_order_acquire);
        },
        base::never_ns));
    const std::scoped_lock lock(owner_);
    taken.swap(orders_);
  }
  return taken;
}

void Driver::loaded(const LoadOrder& order, bool ok, double load_s) {
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) {
    if (generation(order.node) != order.generation) return;
    machine.loaded(now_ns, order.node, order.model, ok, load_s);
    const Mailbox& mailbox = *mailboxes_[order.node.value];
    if (!mailbox.kept_lost && !mailbox.in_run) machine.node_back(now_ns, order.node);  // it was late, and answers
  });
}

void Driver::drain_node(NodeId node) {
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) { machine.drain_node(now_ns, node); });
}

bool Driver::node_empty(NodeId node) {
  bool empty = false;
  with_machine([&](LoggedMachine& machine, TimeNs) { empty = machine.node_empty(node); });
  return empty;
}

void Driver::remove_node(NodeId node) {
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) {
    // From here on: the id is given again by the fleet, which is before add_node() says so.
    mailboxes_[node.value]->generation.fetch_add(1, std::memory_order_acq_rel);
    machine.remove_node(now_ns, node);
  });
}

void Driver::give_up_node(NodeId node) {
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) { machine.node_lost(now_ns, node); });
}

bool Driver::lose_node(NodeId node, std::uint32_t generation) {
  bool was_there = false;
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) {
    if (this->generation(node) != generation) return;
    was_there = fleet_.state(node) != route::NodeState::lost;
    mailboxes_[node.value]->kept_lost = true;
    if (was_there) machine.node_lost(now_ns, node);
  });
  return was_there;
}

bool Driver::restore_node(NodeId node, std::uint32_t generation) {
  bool was_kept = false;
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) {
    Mailbox& mailbox = *mailboxes_[node.value];
    if (this->generation(node) != generation) return;
    was_kept = std::exchange(mailbox.kept_lost, false);
    // A worker that still sits in a run would leave what it is sent unclaimed: finish() brings the node back.
    if (was_kept && !mailbox.in_run) machine.node_back(now_ns, node);
  });
  return was_kept;
}

void Driver::cancel_all() {
  with_machine([](LoggedMachine&, TimeNs) {});  // what is still in the ring counts as open, too
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) {
    closing_ = true;
    machine.cancel_all(now_ns, Reason::closing);
  });
}

std::unique_ptr<Stats> Driver::model_stats(ModelId model) {
  std::unique_ptr<Stats> copy;
  with_machine([&](LoggedMachine& machine, TimeNs) {
    if (const Stats* stats = machine.model_stats(model)) copy = std::make_unique<Stats>(*stats);
    if (copy) flights_.add_to(*copy, model);
  });
  if (copy) copy->rejected += n_refused_[model.value].load(std::memory_order_relaxed);
  return copy;
}

AdmissionFigures Driver::admission_figures(ModelId model) {
  AdmissionFigures figures;
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) { figures = machine.admission_figures(now_ns, model); });
  return figures;
}

void Driver::set_fallback(ModelId model, const ModelConfig& config) {
  with_machine([&](LoggedMachine& machine, TimeNs) { machine.add_model(model, config); });
}

std::unique_ptr<Stats> Driver::node_stats(NodeId node) {
  std::unique_ptr<Stats> copy;
  with_machine([&](LoggedMachine& machine, TimeNs) {
    if (const Stats* stats = machine.node_stats(node)) copy = std::make_unique<Stats>(*stats);
  });
  return copy;
}

contracts::LatencyModel Driver::latency(ModelId model, NodeId node) {
  contracts::LatencyModel copy;
  with_machine([&](LoggedMachine& machine, TimeNs) { copy = machine.latency(model, node); });
  return copy;
}

// ---- the log

void Driver::start_log(const std::string& path, std::size_t buffer_bytes) {
  const std::scoped_lock lock(owner_);
  machine_.start_log(path, buffer_bytes, run_);
}

void Driver::log_loop() noexcept {
  constexpr double seal_after_s = 1.0;  // what a crash may cost
  LogFile& file = *machine_.log_file();
  for (;;) {
    const LogFile::Wrote wrote = file.write_next(seal_after_s);
    if (wrote == LogFile::Wrote::last) return;
    if (wrote == LogFile::Wrote::block) continue;
    // Never waits for the owner, who may be waiting for room that only this thread makes.
    const std::unique_lock lock(owner_, std::try_to_lock);
    if (lock.owns_lock() && file.has_room()) machine_.seal_log();
  }
}

void Driver::end_log() {
  const std::scoped_lock lock(owner_);
  machine_.end_log();
}

bool Driver::signal(NodeId node, const contracts::Signal& signal) {
  bool taken = false;
  with_machine([&](LoggedMachine& machine, TimeNs) { taken = machine.signal(node, signal); });
  return taken;
}

}  // namespace infcore::engine
