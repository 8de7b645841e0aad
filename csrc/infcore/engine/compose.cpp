// What goes into a batch: who joins an open one, when a new one is opened, and who is in it. The lane's order of service
// decides as long as everybody is in time; where deadlines are in danger, the batching rule selects among the first that
// wait, and says who is given up so that others are in time.
#include <infcore/engine/state_machine.hpp>

#include <algorithm>
#include <bit>

namespace infcore::engine {
namespace {

/// How long a lane's capacity is believed: as long as its rate of arrivals looks back. 10,000 nodes are not summed up
/// for every batch.
constexpr TimeNs capacity_ns = 10'000'000;

}  // namespace

/// Gives one device its share: joins its open batch, or opens one unless the batching rule would rather wait.
StateMachine::Served StateMachine::serve(TimeNs now_ns, std::uint32_t index, NodeId id, std::uint32_t n_share) {
  Lane& lane = *lanes_[index];
  Node& node = nodes_[id.value];
  const contracts::LatencyModel& latency = latency_.at(lane.model, id);
  const std::uint32_t n_before = lane.queue.size();
  if (Batch* open = lane.open_nodes.empty() ? nullptr : open_batch(node, index)) {
    fill(now_ns, index, id, *open, n_share);
    open->expected_end_ns = base::add_ns(now_ns, base::to_ns(latency.service_s(open->shape)));
    occupancy_changed(id);
    return lane.queue.size() < n_before ? Served::sent : Served::refused;
  }
  batch::Close close = ask_rule(now_ns, lane, id, n_share);
  // The rule may wait for more to come; not where more is there already, and others do it sooner.
  const bool more_is_there = n_share < n_before && lane.bound == base::no_node;
  if (close.n_requests == 0 && more_is_there) close.n_requests = n_share;
  if (close.n_requests == 0) {
    set_lane_timer(index, close.wait_until_ns);
    return Served::held;
  }
  Batch b = new_batch(now_ns, index);
  if (in_danger(now_ns, lane, id, close.n_requests)) {
    choose(now_ns, index, id, b, close.n_requests);
  } else {
    fill(now_ns, index, id, b, close.n_requests);
  }
  if (b.members.empty()) {  // who was given up is gone, and the lane another one; or all of them wait for a faster one
    keep_members(b);
    return lane.queue.size() < n_before ? Served::sent : Served::held;
  }
  b.expected_end_ns = base::add_ns(now_ns, base::to_ns(latency.service_s(b.shape)));
  node.in_flight.push_back(std::move(b));
  lane.open_nodes.push_back(id);
  occupancy_changed(id);
  return Served::sent;
}

Batch StateMachine::new_batch(TimeNs now_ns, std::uint32_t index) {
  Batch b;
  b.id = next_batch_id_++;
  b.lane = index;
  b.model = lanes_[index]->model;
  b.open = true;
  b.opened_ns = now_ns;
  if (!spare_members_.empty()) {
    b.members.swap(spare_members_.back());
    spare_members_.pop_back();
  }
  return b;
}

/// Whether to send so many now, fewer, or to wait for more.
batch::Close StateMachine::ask_rule(TimeNs now_ns, Lane& lane, NodeId id, std::uint32_t n_share) noexcept {
  const double work_mean = lane.work_mean();
  const ModelConfig& config = models_[lane.model.value].config;
  return batching_->close(now_ns,
                          {
                              .shape = {n_share, work_mean * n_share, work_mean},
                              .earliest_deadline_ns = lane.queue.next_deadline_ns(),
                              .held_since_ns = std::max(nodes_[id.value].free_since_ns, lane.queue.oldest_arrival_ns()),
                              .arrivals_per_s = lane.rate.per_s(now_ns),
                              .max_batch_size = config.max_batch_size,
                              .delay_ns_max = config.batch_delay_ns_max,
                          },
                          latency_.at(lane.model, id));
}

/// Whether somebody might be late in a batch of so many sent now: by the lane's mean work and its earliest deadline,
/// since that costs next to nothing where all is well.
bool StateMachine::in_danger(TimeNs now_ns, const Lane& lane, NodeId id, std::uint32_t n) const noexcept {
  const TimeNs earliest_ns = lane.queue.next_deadline_ns();
  if (earliest_ns == base::never_ns) return false;
  const double mean = lane.work_mean();
  const contracts::BatchShape shape{n, mean * n, mean};
  return base::add_ns(now_ns, base::to_ns(latency_.at(lane.model, id).upper_s(shape))) > earliest_ns;
}

/// Whether the node alone, were it free now, would finish the request after its deadline.
bool StateMachine::late_on(TimeNs now_ns, ModelId model, const contracts::Request& r, NodeId node) const noexcept {
  if (r.deadline_ns == base::never_ns) return false;
  const NodeFinish finish =
      NodeFinish::of(0.0f, latency_.batch(model), node.value, static_cast<float>(r.work));
  return base::add_ns(now_ns, base::to_ns(finish.batch_s(1.0f))) > r.deadline_ns;
}

/// Whether no device could finish the request in time even if it were free now. `first`: one that most likely can, and
/// then one that does; a lane that is bound to one has no other.
bool StateMachine::too_late(TimeNs now_ns, const Lane& lane, const contracts::Request& r,
                            NodeId& first) const noexcept {
  if (!late_on(now_ns, lane.model, r, first)) return false;
  if (lane.bound != base::no_node) return true;
  const LeastAlone least = least_alone(latency_.batch(lane.model), candidates_.data(), fleet_.n_nodes(),
                                       static_cast<float>(r.work));
  if (base::add_ns(now_ns, base::to_ns(least.seconds)) > r.deadline_ns) return true;
  first = NodeId{least.node};
  return false;
}

/// Moves up to `n_more` requests from the lane into the batch, most urgent first. One that no device can finish in time
/// any more is shed; one that must run alone (its batch failed before) does. It stops where one more would make
/// somebody late who would be in time without, itself included.
void StateMachine::fill(TimeNs now_ns, std::uint32_t index, NodeId id, Batch& b, std::uint32_t n_more) {
  Lane& lane = *lanes_[index];
  const contracts::LatencyModel& latency = latency_.at(lane.model, id);
  const auto ends_ns = [&](const contracts::BatchShape& shape) {
    return base::add_ns(now_ns, base::to_ns(latency.upper_s(shape)));
  };
  TimeNs earliest_ns = base::never_ns;  // of those in time
  for (const TimeNs as_it_is_ns = ends_ns(b.shape); const std::uint32_t m : b.members) {
    const TimeNs deadline_ns = slots_[m].request.deadline_ns;
    if (deadline_ns >= as_it_is_ns) earliest_ns = std::min(earliest_ns, deadline_ns);
  }
  const std::uint32_t n_wanted = b.shape.n_requests + n_more;
  Filling filling = filling_of(lane, id);
  while (b.shape.n_requests < n_wanted && lane.queue.size() > 0) {
    const std::uint32_t slot = lane.queue.front(now_ns);
    const Slot& s = slots_[slot];
    NodeId first = id;
    if (too_late(now_ns, lane, s.request, first)) {
      leave_lane(slot);
      end(now_ns, slot, ActionKind::shed, Reason::deadline);
      continue;
    }
    if (!b.members.empty() && (s.solo || slots_[b.members.front()].solo || queue_slots_[slot].seq < b.joins_from_seq))
      break;
    const TimeNs deadline_ns = s.request.deadline_ns;
    if (std::min(earliest_ns, deadline_ns) != base::never_ns) {
      contracts::BatchShape larger = b.shape, alone;
      larger.add(s.request.work);
      alone.add(s.request.work);
      const TimeNs with_it_ns = ends_ns(larger);
      if (with_it_ns > earliest_ns) break;
      if (with_it_ns <= deadline_ns) {
        earliest_ns = std::min(earliest_ns, deadline_ns);
      } else if (!b.members.empty() && ends_ns(alone) <= deadline_ns) {
        break;
      }
    }
    take(slot, id, b, filling);
    if (const std::uint32_t next = lane.queue.front(now_ns); next != queue::no_slot) __builtin_prefetch(&slots_[next]);
  }
  fleet_.change_credit(id, filling.credit);
}

StateMachine::Filling StateMachine::filling_of(const Lane& lane, NodeId id) const noexcept {
  const contracts::Curve& curve = latency_.at(lane.model, id).curve();
  return {curve.base_s, curve.per_request_s + (curve.per_work_s + curve.per_padded_work_s) * lane.work_mean(), {}};
}

/// From its lane into the batch.
void StateMachine::take(std::uint32_t slot, NodeId id, Batch& b, Filling& filling) {
  Slot& s = slots_[slot];
  leave_lane(slot);
  unreserve_into(filling.credit, s);  // of a bound lane: on the same device
  s.where = Where::in_batch;
  s.node = id;
  s.batch_id = b.id;
  ++s.attempts;
  reserve_into(filling.credit, s, filling.slope_s + (b.members.empty() ? filling.base_s : 0.0));
  b.shape.add(s.request.work);
  b.members.push_back(slot);
  act(slot, ActionKind::dispatch, Reason::none, id, b.id, b.shape.n_requests - 1);
}

/// Opens a batch of at most `n_max` where some might be late. If those who come first are in time after all, they are
/// it; else the rule selects. Nobody joins it then who waits now: the rule saw him, and left him out.
void StateMachine::choose(TimeNs now_ns, std::uint32_t index, NodeId id, Batch& b, std::uint32_t n_max) {
  Lane& lane = *lanes_[index];
  show(now_ns, lane, id);
  if (shown_.empty()) return;
  const auto n_shown = static_cast<std::uint32_t>(shown_.size());
  const contracts::LatencyModel& latency = latency_.at(lane.model, id);
  n_max = std::min(n_max, n_shown);
  contracts::BatchShape shape;
  TimeNs earliest_ns = base::never_ns;
  for (std::uint32_t i = 0; i < n_max; ++i) {
    shape.add(waiting_[i].work);
    earliest_ns = std::min(earliest_ns, waiting_[i].deadline_ns);
  }
  verdicts_.assign(n_shown, batch::Verdict::leave);
  if (base::add_ns(now_ns, base::to_ns(latency.upper_s(shape))) <= earliest_ns) {
    std::fill_n(verdicts_.begin(), n_max, batch::Verdict::take);
  } else {
    const batch::Traffic traffic{.n_waiting = lane.queue.size(),
                                 .max_batch_size = models_[lane.model.value].config.max_batch_size,
                                 .arrivals_per_s = lane.rate.per_s(now_ns),
                                 .capacity_per_s = capacity_per_s(now_ns, lane)};
    batching_->select(now_ns, waiting_, n_max, traffic, latency, verdicts_);
    b.joins_from_seq = next_seq_;
  }
  Filling filling = filling_of(lane, id);
  for (std::uint32_t i = 0; i < n_shown; ++i) {
    if (verdicts_[i] == batch::Verdict::take && b.shape.n_requests < n_max) {
      take(shown_[i], id, b, filling);
    } else if (verdicts_[i] == batch::Verdict::drop) {
      leave_lane(shown_[i]);
      end(now_ns, shown_[i], ActionKind::shed, Reason::early_drop);
    }
  }
  fleet_.change_credit(id, filling.credit);
}

/// Of the first that wait, in the order of service, those that the device could still finish in time. Those that no
/// device can are shed; those that only another one can wait for it. One that must run alone is shown alone, once it
/// comes first.
void StateMachine::show(TimeNs now_ns, Lane& lane, NodeId id) {
  shown_.clear();
  waiting_.clear();
  late_here_.clear();
  std::uint32_t n_seen = 0;
  lane.queue.in_order(now_ns, frontier_, [&](std::uint32_t slot) {
    const Slot& s = slots_[slot];
    const contracts::Request& r = s.request;
    if (late_on(now_ns, lane.model, r, id)) {
      late_here_.push_back(slot);
    } else if (!s.solo || shown_.empty()) {
      shown_.push_back(slot);
      waiting_.push_back({r.deadline_ns, r.work, r.tier, now_ns - r.arrival_ns >= config_.ageing_ns});
      if (s.solo) return false;
    }
    return ++n_seen < batch::BatchingPolicy::n_waiting_shown_max;
  });
  NodeId first = id;
  for (const std::uint32_t slot : late_here_) {
    if (!too_late(now_ns, lane, slots_[slot].request, first)) continue;
    leave_lane(slot);
    end(now_ns, slot, ActionKind::shed, Reason::deadline);
  }
}

/// Requests that the lane's devices could serve, each in full batches and for it alone.
double StateMachine::capacity_per_s(TimeNs now_ns, Lane& lane) noexcept {
  if (now_ns < lane.capacity_until_ns) return lane.capacity_per_s;
  const contracts::BatchColumns curves = latency_.batch(lane.model);
  const auto work = static_cast<float>(lane.work_mean());
  const auto n = static_cast<float>(models_[lane.model.value].config.max_batch_size);
  double per_s = 0.0;
  const auto add = [&](std::size_t node) {
    per_s += static_cast<double>(static_cast<float>(nodes_[node].slots) * n /
                                 NodeFinish::of(0.0f, curves, node, work).batch_s(n));
  };
  if (lane.bound != base::no_node) {
    add(lane.bound.value);
  } else {
    for (std::size_t word = 0; word < (fleet_.n_nodes() + 63) / 64; ++word) {
      for (std::uint64_t left = candidates_[word]; left != 0; left &= left - 1) {
        add(word * 64 + static_cast<std::size_t>(std::countr_zero(left)));
      }
    }
  }
  lane.capacity_until_ns = base::add_ns(now_ns, capacity_ns);
  return lane.capacity_per_s = per_s;
}

/// The batch that requests of the lane may still join; nullptr where there is none with room.
Batch* StateMachine::open_batch(Node& node, std::uint32_t lane) noexcept {
  const std::uint32_t max_batch_size = models_[lanes_[lane]->model.value].config.max_batch_size;
  for (Batch& b : node.in_flight) {
    if (!b.open || b.lane != lane || b.shape.n_requests >= max_batch_size) continue;
    if (b.members.empty() || !slots_[b.members.front()].solo) return &b;
  }
  return nullptr;
}

}  // namespace infcore::engine
