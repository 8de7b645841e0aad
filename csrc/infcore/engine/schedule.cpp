// The joint choice of device and batch. A lane's requests wait together; when a device that can run them is free, we
// ask by when all of them could be done if every device, free or busy, took its part (a water level over the devices'
// service lines), and give each free device what it can finish by then. So a slow free device gets nothing that a fast
// busy one would finish sooner, and helps exactly as far as it shortens the whole. A lane bound to one device is the
// same with one candidate. What else a lane waits for is the batching rule's.
// Source: earliest finish time first on unrelated machines (Graham et al. 1979, list scheduling; HEFT, Topcuoglu 2002),
// in the fluid form because a batch's marginal cost is a line.
#include <infcore/engine/state_machine.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace infcore::engine {

void StateMachine::schedule(TimeNs now_ns) {
  // Ending or retrying requests while we dispatch can mark further lanes: go on until none is left.
  while (!dirty_.empty()) {
    std::vector<std::uint32_t> lanes;
    lanes.swap(dirty_);
    std::sort(lanes.begin(), lanes.end(), [&](std::uint32_t a, std::uint32_t b) { return before(a, b, now_ns); });
    for (const std::uint32_t lane : lanes) {
      lanes_[lane]->dirty = false;
      while (lanes_[lane]->queue.size() > 0 && dispatch_from(now_ns, lane)) {
      }
    }
  }
}

/// Order in which lanes that compete for devices are served: as their heads would stand in one lane.
bool StateMachine::before(std::uint32_t lane_a, std::uint32_t lane_b, TimeNs now_ns) noexcept {
  const std::uint32_t a = lanes_[lane_a]->queue.front(now_ns), b = lanes_[lane_b]->queue.front(now_ns);
  if (a == queue::no_slot || b == queue::no_slot)
    return a != queue::no_slot || (b == queue::no_slot && lane_a < lane_b);
  const contracts::Request &ra = slots_[a].request, &rb = slots_[b].request;
  const bool aged_a = now_ns - ra.arrival_ns >= config_.ageing_ns, aged_b = now_ns - rb.arrival_ns >= config_.ageing_ns;
  if (aged_a != aged_b) return aged_a;
  if (aged_a) return ra.arrival_ns != rb.arrival_ns ? ra.arrival_ns < rb.arrival_ns : lane_a < lane_b;
  if (ra.tier != rb.tier) return ra.tier < rb.tier;
  if (ra.deadline_ns != rb.deadline_ns) return ra.deadline_ns < rb.deadline_ns;
  if (ra.arrival_ns != rb.arrival_ns) return ra.arrival_ns < rb.arrival_ns;
  return lane_a < lane_b;
}

/// Sends or joins at most one device's share. Returns whether it did, so that it is asked again.
bool StateMachine::dispatch_from(TimeNs now_ns, std::uint32_t index) {
  Lane& lane = *lanes_[index];
  gather(now_ns, index);
  if (std::none_of(candidates_.begin(), candidates_.end(), [](const Candidate& c) { return c.takes; })) return false;
  const std::uint32_t max_batch_size = models_[lane.model.value].config.max_batch_size;
  const double level_s = finish_of_all_s(lane.queue.size(), max_batch_size);
  std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
    const double fa = a.finish_s(a.joined + 1), fb = b.finish_s(b.joined + 1);
    return fa != fb ? fa < fb : a.node < b.node;
  });
  TimeNs recheck_ns = base::never_ns;
  for (const Candidate& c : candidates_) {
    if (!c.takes) {
      recheck_ns = std::min(recheck_ns, base::add_ns(base::add_ns(now_ns, base::to_ns(c.free_in_s)), 1));
      continue;
    }
    const double room_s = level_s - c.free_in_s - c.base_s;
    const double fits = c.slope_s > 0.0 ? room_s / c.slope_s + 1e-6 : (room_s >= -1e-12 ? max_batch_size : 0.0);
    auto share = static_cast<std::uint32_t>(std::clamp(fits, 0.0, static_cast<double>(max_batch_size)));
    // Whoever is first to finish one more takes it: rounding may not leave it with nobody.
    if (&c == &candidates_.front()) share = std::max(share, c.joined + 1);
    if (share <= c.joined) continue;
    if (serve(now_ns, index, c, std::min(share - c.joined, lane.queue.size()))) return true;
  }
  // Free devices were passed over for busy ones: look again when the first of those should be done.
  if (lane.bound == base::no_node) set_lane_timer(index, recheck_ns);
  return false;
}

void StateMachine::gather(TimeNs now_ns, std::uint32_t index) {
  const Lane& lane = *lanes_[index];
  candidates_.clear();
  const double work_mean = lane.work_mean();
  if (lane.bound != base::no_node) {
    consider(now_ns, index, lane.bound, work_mean);
  } else {
    for (const NodeId node : models_[lane.model.value].nodes) consider(now_ns, index, node, work_mean);
  }
}

bool StateMachine::carries(NodeId id, std::uint64_t require) const noexcept {
  for (std::uint64_t left = require; left != 0; left &= left - 1) {
    const auto bit = static_cast<std::uint32_t>(std::countr_zero(left));
    // relaxed: labels change under the fleet's mutex before a node is ever considered
    const std::uint64_t word = fleet_.columns().labelled(bit, id.value / 64).load(std::memory_order_relaxed);
    if ((word >> (id.value % 64) & 1) == 0) return false;
  }
  return true;
}

void StateMachine::consider(TimeNs now_ns, std::uint32_t index, NodeId id, double work_mean) {
  const Lane& lane = *lanes_[index];
  if (fleet_.state(id) != route::NodeState::up || !carries(id, lane.require)) return;
  Node& node = nodes_[id.value];
  const contracts::Curve& curve = latency_.at(lane.model, id).curve();
  Candidate c{.node = id,
              .free_in_s = 0.0,
              .base_s = curve.base_s,
              .slope_s = curve.per_request_s + (curve.per_work_s + curve.per_padded_work_s) * work_mean,
              .alone_s = curve.base_s + curve.per_request_s,
              .per_work_s = curve.per_work_s + curve.per_padded_work_s,
              .joined = 0,
              .takes = true};
  if (const Batch* open = open_batch(node, index)) {
    c.joined = open->shape.n_requests;
  } else if (node.in_flight.size() >= fleet_.spec(id).slots) {
    c.takes = false;
    TimeNs free_ns = base::never_ns;
    for (const Batch& b : node.in_flight) {
      // One that is overdue is expected to take as long again as it is late.
      free_ns = std::min(free_ns, std::max(b.expected_end_ns, now_ns + (now_ns - b.expected_end_ns)));
    }
    c.free_in_s += base::seconds(free_ns - now_ns);
  }
  candidates_.push_back(c);
}

/// Seconds from now by which `n_requests` could all be done, each device running batch after batch: the least T with
/// sum over devices of what each finishes by T >= n_requests, by bisection (24 halvings: 1e-7 of the range).
double StateMachine::finish_of_all_s(std::uint32_t n_requests, std::uint32_t max_batch_size) const noexcept {
  double low_s = std::numeric_limits<double>::infinity(), high_s = low_s;
  for (const Candidate& c : candidates_) {
    low_s = std::min(low_s, c.finish_s(c.joined + 1));
    const double batches = std::ceil(static_cast<double>(n_requests + c.joined) / max_batch_size);
    high_s = std::min(high_s, c.free_in_s + batches * c.base_s + c.slope_s * (n_requests + c.joined));
  }
  if (n_requests == 1) return low_s;
  const auto finished_by = [&](double t_s) {
    double n = 0.0;
    for (const Candidate& c : candidates_) {
      const double room_s = t_s - c.free_in_s, full_s = c.base_s + c.slope_s * max_batch_size;
      if (room_s <= 0.0) continue;
      const double cycles = full_s > 0.0 ? std::floor(room_s / full_s) : n_requests;
      const double rest_s = room_s - cycles * full_s - c.base_s;
      const double rest = rest_s < 0.0 ? 0.0 : c.slope_s > 0.0 ? std::floor(rest_s / c.slope_s + 1e-6) : max_batch_size;
      n += std::max(0.0, cycles * max_batch_size + std::min(rest, static_cast<double>(max_batch_size)) - c.joined);
    }
    return n;
  };
  for (int i = 0; i < 24 && high_s - low_s > 1e-9; ++i) {
    const double middle_s = 0.5 * (low_s + high_s);
    (finished_by(middle_s) >= n_requests ? high_s : low_s) = middle_s;
  }
  return high_s;
}

/// Gives one device its share: joins its open batch, or opens one unless the batching rule would rather wait.
bool StateMachine::serve(TimeNs now_ns, std::uint32_t index, const Candidate& c, std::uint32_t n_share) {
  Lane& lane = *lanes_[index];
  Node& node = nodes_[c.node.value];
  if (Batch* open = open_batch(node, index)) {
    const std::uint32_t n_before = lane.queue.size();
    fill(now_ns, index, c, *open, n_share);
    open->expected_end_ns = base::add_ns(now_ns, base::to_ns(latency_.at(lane.model, c.node).service_s(open->shape)));
    return lane.queue.size() < n_before;
  }
  const double work_mean = lane.work_mean();
  const batch::Pending pending{
      .shape = {n_share, work_mean * n_share, work_mean},
      .earliest_deadline_ns = lane.queue.next_deadline_ns(),
      .held_since_ns = std::max(node.free_since_ns, lane.queue.oldest_arrival_ns()),
      .arrivals_per_s = lane.rate.per_s(now_ns),
      .max_batch_size = models_[lane.model.value].config.max_batch_size,
      .delay_ns_max = models_[lane.model.value].config.batch_delay_ns_max,
  };
  const batch::Close close = batching_->close(now_ns, pending, latency_.at(lane.model, c.node));
  if (close.n_requests == 0) {
    set_lane_timer(index, close.wait_until_ns);
    return false;
  }
  Batch b;
  b.id = next_batch_id_++;
  b.lane = index;
  b.model = lane.model;
  b.open = true;
  b.opened_ns = now_ns;
  fill(now_ns, index, c, b, close.n_requests);
  if (b.members.empty()) return true;  // all of them were too late, and are gone: the lane is another one now
  b.expected_end_ns = base::add_ns(now_ns, base::to_ns(latency_.at(lane.model, c.node).service_s(b.shape)));
  node.in_flight.push_back(std::move(b));
  return true;
}

/// Whether no device could finish the request in time even if it were free now. `first`: one that most likely can.
bool StateMachine::too_late(TimeNs now_ns, const contracts::Request& r, const Candidate& first) const noexcept {
  if (r.deadline_ns == base::never_ns) return false;
  const auto can = [&](const Candidate& c) {
    return base::add_ns(now_ns, base::to_ns(c.alone_s + c.per_work_s * r.work)) <= r.deadline_ns;
  };
  return !can(first) && std::none_of(candidates_.begin(), candidates_.end(), can);
}

/// Moves up to `n_more` requests from the lane into the batch, most urgent first. One that no device can finish in time
/// any more is shed; one that must run alone (its batch failed before) does. The batch stops growing where one more
/// would make its most urgent member late, as long as that costs no more than half of it.
void StateMachine::fill(TimeNs now_ns, std::uint32_t index, const Candidate& c, Batch& b, std::uint32_t n_more) {
  Lane& lane = *lanes_[index];
  const contracts::LatencyModel& latency = latency_.at(lane.model, c.node);
  TimeNs earliest_ns = base::never_ns;
  for (const std::uint32_t m : b.members) earliest_ns = std::min(earliest_ns, slots_[m].request.deadline_ns);
  const std::uint32_t n_wanted = b.shape.n_requests + n_more;
  while (b.shape.n_requests < n_wanted && lane.queue.size() > 0) {
    const std::uint32_t slot = lane.queue.front(now_ns);
    Slot& s = slots_[slot];
    if (too_late(now_ns, s.request, c)) {
      leave_lane(slot);
      end(now_ns, slot, ActionKind::shed, Reason::deadline);
      continue;
    }
    if (!b.members.empty() && (s.solo || slots_[b.members.front()].solo)) return;
    contracts::BatchShape larger = b.shape;
    larger.add(s.request.work);
    const TimeNs with_it_ns = std::min(earliest_ns, s.request.deadline_ns);
    if (with_it_ns != base::never_ns && larger.n_requests > std::max(1u, n_wanted / 2) &&
        base::add_ns(now_ns, base::to_ns(latency.upper_s(larger))) > with_it_ns) {
      return;
    }
    leave_lane(slot);
    unreserve(s);
    s.where = Where::in_batch;
    s.node = c.node;
    s.batch_id = b.id;
    ++s.attempts;
    reserve(s, c.slope_s + (b.members.empty() ? c.base_s : 0.0));
    earliest_ns = with_it_ns;
    b.shape = larger;
    b.members.push_back(slot);
    act(slot, ActionKind::dispatch, Reason::none, c.node, b.id, b.shape.n_requests - 1);
  }
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
