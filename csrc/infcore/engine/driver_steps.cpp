// What a worker says that runs many requests at once, in steps: of token models.
#include <infcore/engine/driver.hpp>

namespace infcore::engine {

void Driver::first_token(NodeId node, std::span<const std::uint64_t> batch_ids) noexcept {
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) {
    for (const std::uint64_t id : batch_ids) machine.first_token(now_ns, node, id);
  });
}

void Driver::progress(NodeId node) noexcept {
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) { machine.progress(now_ns, node); });
}

void Driver::take_back(LiveRequest& request, Reason reason) noexcept {
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) {
    // Where it has ended meanwhile, its slot is of another generation than its handle.
    machine.cancel(now_ns, request.handle, reason);
  });
}

std::uint32_t Driver::fail(NodeId node, void* payload) noexcept {
  Outbox& outbox = outbox_of_thread();
  std::uint32_t n_used = 0;
  {
    const std::scoped_lock lock(owner_);
    const TimeNs t_ns = now_ns();
    settle(outbox, t_ns);
    outbox.batch_id = every_batch;
    outbox.payload = payload;
    machine_.node_failed(t_ns, node);
    settle(outbox, t_ns);
    n_used = outbox.n_payload_used;
  }
  deliver(outbox);
  return n_used;
}

bool Driver::is_out(NodeId node) noexcept {
  const std::scoped_lock lock(owner_);
  return fleet_.state(node) == route::NodeState::lost;
}

void Driver::resume(NodeId node) noexcept {
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) {
    Mailbox& mailbox = *mailboxes_[node.value];
    mailbox.in_run = false;
    if (!mailbox.kept_lost) machine.node_back(now_ns, node);
  });
}

bool Driver::wants_check(NodeId node) noexcept {
  const std::scoped_lock lock(owner_);
  return machine_.wants_check(now_ns(), node);
}

void Driver::checked(NodeId node, bool ok) noexcept {
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) { machine.checked(now_ns, node, ok); });
}

}  // namespace infcore::engine
