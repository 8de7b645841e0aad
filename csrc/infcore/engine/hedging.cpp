// Hedging: a run that takes longer than almost all do is not waited for alone. Its requests are sent to a second node
// as well; the first answer counts, the other copy is taken back or, where it runs already, not looked at.
// Source: J. Dean, L. A. Barroso, "The Tail at Scale", CACM 56(2), 2013, "hedged requests". Where we differ: the delay
// is a quantile of how late the model's batches are against what was expected of each, so that it fits every batch and
// node; a copy is sent only where another node is expected to answer sooner than the first is still to take; the
// deadline moves the look forward to the last moment at which a copy is in time; and the bound is a share of requests.
//
// Only what is late is hedged, never all from the start. Not hedged: models that are not idempotent; token models,
// whose answer is streamed from a run that a second one could not go on from, and whose node says by each step whether
// it lives. Cost: a timer a batch; a look goes over the nodes once for each late request.
#include <infcore/engine/state_machine.hpp>

#include <algorithm>
#include <bit>
#include <utility>

namespace infcore::engine {
namespace {

/// A batch that is late and can't be helped now is looked at again when it has taken so much longer: nodes get free.
constexpr TimeNs look_again_part = 4;

TimeNs again_ns(TimeNs now_ns, const Batch& b) noexcept {
  return base::add_ns(now_ns, std::max<TimeNs>(1, (now_ns - b.start_ns) / look_again_part));
}

}  // namespace

bool StateMachine::has_copy(std::uint32_t slot) const noexcept {
  return !hedging_.copies.empty() && hedging_.copies[slot].batch_id != 0;
}

/// A batch begins to run: when it is late. Where a deadline would pass before a copy that is sent then is back, the
/// first look is when the answer is expected.
void StateMachine::watch(TimeNs now_ns, NodeId id, Batch& b) {
  const ModelState& model = models_[b.model.value];
  if (hedging_.copies.empty() || !model.config.idempotent || model.config.runs_share) return;
  if (!latency_.at(b.model, id).is_trusted()) return;
  const TimeNs expected_ns = b.expected_end_ns - now_ns;
  const double multiple = std::max(1.0, model.lateness.quantile(config_.hedge_quantile));
  b.late_ns = b.look_ns = base::add_ns(now_ns, base::to_ns(multiple * base::seconds(expected_ns)));
  const TimeNs answered_ns = base::add_ns(b.late_ns, expected_ns);
  for (const std::uint32_t slot : b.members) {
    if (slot != vacated && slots_[slot].request.deadline_ns < answered_ns) b.look_ns = b.expected_end_ns;
  }
  hedging_.looks.set(id.value, b.look_ns);
}

/// After its batches have changed: the timer comes up for those that are left.
void StateMachine::set_look(NodeId id) {
  if (hedging_.looks.at_ns(id.value) == base::never_ns) return;  // none of them is watched
  TimeNs at_ns = base::never_ns;
  for (const Batch& b : nodes_[id.value].in_flight) {
    at_ns = std::min(at_ns, b.look_ns);  // never_ns of one that does not run
  }
  hedging_.looks.move(id.value, at_ns);
}

void StateMachine::look_at_late(TimeNs now_ns) {
  while (hedging_.looks.next_ns() <= now_ns) {
    const NodeId id{hedging_.looks.pop()};
    // Copies go to other nodes: this one's batches stay where they are.
    for (Batch& b : nodes_[id.value].in_flight) {
      if (b.running && b.look_ns <= now_ns) b.look_ns = hedge(now_ns, id, b);
    }
    TimeNs next_ns = base::never_ns;
    for (const Batch& b : nodes_[id.value].in_flight) next_ns = std::min(next_ns, b.look_ns);
    hedging_.looks.set(id.value, next_ns);
  }
}

/// Sends copies of those members for whom it is time. Returns when to look again.
TimeNs StateMachine::hedge(TimeNs now_ns, NodeId id, const Batch& b) {
  const TimeNs expected_ns = std::max<TimeNs>(1, b.expected_end_ns - b.start_ns);
  const double multiple = static_cast<double>(now_ns - b.start_ns) / static_cast<double>(expected_ns);
  // What those took longer that were as late as it is; beyond all that was seen, as long again as it is late.
  const double left_s = std::max(base::seconds(expected_ns) * models_[b.model.value].lateness.mean_excess(multiple),
                                 base::seconds(now_ns - b.expected_end_ns));
  TimeNs next_ns = base::never_ns;
  Second to;
  for (const std::uint32_t slot : b.members) {
    if (slot == vacated || has_copy(slot) || slots_[slot].attempts >= config_.attempts_max) continue;
    next_ns = std::min(next_ns, hedge_one(now_ns, id, b, slot, left_s, to));
  }
  return next_ns;
}

/// Sends a copy of the request if now is the time. Returns when to look at it again; never_ns: it was sent.
TimeNs StateMachine::hedge_one(TimeNs now_ns, NodeId id, const Batch& b, std::uint32_t slot, double left_s,
                               Second& to) {
  const contracts::Request& r = slots_[slot].request;
  Second with_others = to, alone;
  const bool joins = to.node != base::no_node && may_go_with(now_ns, slot, with_others);
  if (!joins) alone = second_node(id, r, true);
  const Second& chosen = joins ? with_others : alone;
  const TimeNs later_ns = again_ns(now_ns, b);
  if (chosen.node == base::no_node) return later_ns;
  // The last moment at which a copy is still in time, for who can't wait until the batch is late.
  const TimeNs last_ns = r.deadline_ns == base::never_ns ? base::never_ns : r.deadline_ns - base::to_ns(chosen.takes_s);
  if (last_ns < now_ns) return later_ns;
  if (const TimeNs due_ns = std::min(b.late_ns, last_ns); now_ns < due_ns) return due_ns;
  if (chosen.takes_s >= left_s || !models_[r.model.value].hedges.spend(config_.hedge_budget)) return later_ns;
  send_copy(now_ns, slot, chosen);
  to = chosen;
  to.batch_id = hedging_.copies[slot].batch_id;
  return base::never_ns;
}

/// Of 64 nodes, those that are up and may run the request.
std::uint64_t StateMachine::able(std::uint32_t word, const contracts::Request& r) const noexcept {
  const auto& columns = fleet_.columns();
  // relaxed: as in gather()
  const std::uint64_t up = columns.up(word).load(std::memory_order_relaxed);
  return up & columns.resident(r.model.value, word).load(std::memory_order_relaxed) &
         columns.labelled_all(r.require, word);
}

/// Whether the node has as many requests as it may have. Those that are bound to it and wait there count, too, as they
/// do where policies choose.
bool StateMachine::is_full(NodeId id) const noexcept {
  const Node& node = nodes_[id.value];
  return node.pending_max != no_bound && (room_of(node) == 0 || fleet_.inflight(id) >= node.pending_max);
}

/// The node with a free slot that would be done with it first; `trusted`: of those whose curve is to be trusted.
StateMachine::Second StateMachine::second_node(NodeId first, const contracts::Request& r, bool trusted) const noexcept {
  contracts::BatchShape alone;
  alone.add(r.work);
  Second best;
  for (std::uint32_t word = 0; word < (fleet_.n_nodes() + 63) / 64; ++word) {
    for (std::uint64_t passing = has_free_slot_[word] & able(word, r); passing != 0; passing &= passing - 1) {
      const NodeId node{word * 64 + static_cast<std::uint32_t>(std::countr_zero(passing))};
      const contracts::LatencyModel& latency = latency_.at(r.model, node);
      if (node == first || (trusted && !latency.is_trusted()) || is_full(node)) continue;
      const double takes_s = latency.service_s(alone);
      if (best.node != base::no_node && takes_s >= best.takes_s) continue;
      best = {.node = node, .takes_s = takes_s};
    }
  }
  return best;
}

/// Whether the request goes in the batch that was opened for others of its own; and how long that takes then.
bool StateMachine::may_go_with(TimeNs now_ns, std::uint32_t slot, Second& to) noexcept {
  Node& node = nodes_[to.node.value];
  const auto it = find_batch(node, to.batch_id);
  const double work = slots_[slot].request.work;
  if (it->shape.n_requests >= models_[it->model.value].config.max_batch_size || is_full(to.node)) return false;
  if (!may_join(slot, *it) || !is_like(*it, work, to.node)) return false;
  if (!fleet_.columns().carries(to.node.value, slots_[slot].request.require)) return false;
  contracts::BatchShape larger = it->shape;
  larger.add(work);
  to.takes_s = latency_.at(it->model, to.node).service_s(larger);
  const TimeNs end_ns = base::add_ns(now_ns, base::to_ns(to.takes_s));
  return std::all_of(it->members.begin(), it->members.end(),
                     [&](std::uint32_t m) { return slots_[m].request.deadline_ns >= end_ns; });
}

/// Into the batch that is named there, or into one of its own that others may join.
void StateMachine::send_copy(TimeNs now_ns, std::uint32_t slot, const Second& to) {
  Slot& s = slots_[slot];
  Node& node = nodes_[to.node.value];
  double before_s = 0.0;
  auto it = to.batch_id == 0 ? node.in_flight.end() : find_batch(node, to.batch_id);
  if (it == node.in_flight.end()) {
    const bool binds = routing_->binds_on_arrival();
    const std::uint32_t lane = lane_for(s.request, binds ? to.node : base::no_node);
    node.in_flight.push_back(new_batch(now_ns, lane));
    it = node.in_flight.end() - 1;
    open_nodes_of(*lanes_[lane]).push_back(to.node);
  } else {
    before_s = latency_.at(it->model, to.node).service_s(it->shape);
  }
  it->members.push_back(slot);
  it->shape.add(s.request.work);
  it->expected_end_ns = base::add_ns(now_ns, base::to_ns(to.takes_s));
  HedgingState::Copy& copy = hedging_.copies[slot];
  copy = {.batch_id = it->id,
          .node = to.node,
          .holds_credit = true,
          .reserved_ns = route::Fleet::credit_ns(std::max(0.0, to.takes_s - before_s)),
          .bound_ns = routing_->binds_on_arrival() ? now_ns : base::never_ns};
  ++s.attempts;
  for (Stats* stats : {models_[s.request.model.value].stats.get(), node.stats.get()}) ++stats->hedged;
  act(slot, ActionKind::hedge, Reason::none, to.node, it->id, it->shape.n_requests - 1);
  note_terms(now_ns, s.request, to.node);
  fleet_.change_credit(to.node, {.inflight = 1, .reserved_ns = copy.reserved_ns});
  occupancy_changed(to.node);
}

/// What its slot says of where it runs and what its copy says change places.
void StateMachine::swap_copy(std::uint32_t slot) noexcept {
  Slot& s = slots_[slot];
  HedgingState::Copy& copy = hedging_.copies[slot];
  std::swap(s.batch_id, copy.batch_id);
  std::swap(s.node, copy.node);
  std::swap(s.holds_credit, copy.holds_credit);
  std::swap(s.reserved_ns, copy.reserved_ns);
  std::swap(s.bound_ns, copy.bound_ns);
}

void StateMachine::forget_copy(std::uint32_t slot) noexcept {
  const HedgingState::Copy copy = std::exchange(hedging_.copies[slot], {});
  if (copy.holds_credit) fleet_.change_credit(copy.node, {.inflight = -1, .reserved_ns = -copy.reserved_ns});
}

/// The copy is not needed any more. Where its run has begun it goes on, and its part of it is wasted. Whoever copies
/// its inputs just now is the driver's to wait for: see Driver::end().
void StateMachine::drop_copy(std::uint32_t slot) {
  const HedgingState::Copy copy = hedging_.copies[slot];
  forget_copy(slot);
  Node& node = nodes_[copy.node.value];
  const auto it = find_batch(node, copy.batch_id);
  if (it == node.in_flight.end()) return;
  const auto member = std::find(it->members.begin(), it->members.end(), slot);
  if (it->open) {
    leave_open(*it, member);
    occupancy_changed(copy.node);
  } else {
    *member = vacated;
    ++it->n_outrun;
  }
}

/// Of a batch that nobody has claimed: as if the member had never been in it.
void StateMachine::leave_open(Batch& b, std::vector<std::uint32_t>::iterator member) {
  b.members.erase(member);
  b.shape = {};
  for (const std::uint32_t m : b.members) b.shape.add(slots_[m].request.work);
}

/// The batch has answered a request that has a copy, before the other did.
void StateMachine::outran(std::uint32_t slot, const Batch& b) {
  const bool by_copy = hedging_.copies[slot].batch_id == b.id;
  if (by_copy) {
    swap_copy(slot);
    const Slot& s = slots_[slot];
    for (Stats* stats : {models_[b.model.value].stats.get(), nodes_[s.node.value].stats.get()}) ++stats->hedge_won;
  }
  drop_copy(slot);
}

/// A batch of a request is over without an answer to it. Whether it goes on elsewhere, and nothing need be done.
bool StateMachine::goes_on(TimeNs now_ns, std::uint32_t slot, const Batch& b, Reason reason) {
  if (!has_copy(slot)) return false;
  if (hedging_.copies[slot].batch_id != b.id) swap_copy(slot);
  const HedgingState::Copy& gone = hedging_.copies[slot];
  Slot& s = slots_[slot];
  if (!b.running) --s.attempts;
  if (gone.bound_ns != base::never_ns && (reason == Reason::device_failed || reason == Reason::device_lost)) {
    const double latency_s = base::seconds(std::max<TimeNs>(0, now_ns - gone.bound_ns));
    routing_->observe({gone.node, b.model, now_ns, latency_s, false});
  }
  forget_copy(slot);
  const auto left = find_batch(nodes_[s.node.value], s.batch_id);
  if (left->running && left->late_ns != base::never_ns) {  // it may be hedged once more
    left->look_ns = std::min(left->look_ns, again_ns(now_ns, *left));
    hedging_.looks.set(s.node.value, left->look_ns);
  }
  return true;
}

/// What a batch that ended tells: how late it was, and what of it nobody waited for any more.
void StateMachine::learn_lateness(const Batch& b, NodeId id, TimeNs now_ns) {
  if (b.late_ns != base::never_ns) {
    const double expected_s = base::seconds(std::max<TimeNs>(1, b.expected_end_ns - b.start_ns));
    models_[b.model.value].lateness.observe(base::seconds(now_ns - b.start_ns) / expected_s);
  }
  if (b.n_outrun != 0) {
    const double wasted_s = base::seconds(now_ns - b.start_ns) * b.n_outrun / b.shape.n_requests;
    for (Stats* stats : {models_[b.model.value].stats.get(), nodes_[id.value].stats.get()}) {
      stats->hedge_wasted_s += wasted_s;
    }
  }
  set_look(id);
}

// ---- retries

/// Whether one more retry of a run is within the model's budget. What was sent and never ran is not asked: it costs
/// its node nothing to run it, and a lost device's whole queue must not use the budget up. Nor is it used up by those
/// who were in a batch with a bad request and are answered alone: complete() gives back what they took. What is left of
/// it is for runs that are in vain.
bool StateMachine::may_retry(ModelId id) noexcept {
  ModelState& model = models_[id.value];
  if (model.retries.spend(config_.retry_budget)) return true;
  ++model.stats->unretried;
  return false;
}

/// A request was accepted.
void StateMachine::earn_budgets(ModelState& model) noexcept {
  model.retries.earn(config_.retry_budget, ModelState::retries_most);
  model.hedges.earn(config_.hedge_budget, std::max<double>(ModelState::hedges_at_start, model.config.max_batch_size));
}

// ---- terms

void StateMachine::note_terms(TimeNs now_ns, const contracts::Request& r, NodeId node) {
  if (!config_.log_terms) return;
  const route::RouteQuery query{.model = r.model,
                                .work = r.work,
                                .tier = r.tier,
                                .now_ns = now_ns,
                                .deadline_ns = r.deadline_ns,
                                .require = r.require,
                                .session = r.session,
                                .blocks = names_of(r)};
  view_.prepare(query, routing_->weights());
  terms_.push_back(view_.terms_of(node));
}

}  // namespace infcore::engine
