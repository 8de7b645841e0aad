// The joint choice of device and batch. A lane's requests wait together; when a device that can run them takes some,
// the one that would be done first with one more gets its share: the most of them such that all devices together, free
// or busy, each running batch after batch, would not have finished everything before it is done with the last of them.
// So a slow free device gets nothing that fast busy ones would finish sooner, and helps exactly as far as it shortens
// the whole. A lane bound to one device takes its turn. What else a lane waits for is the batching rule's. Source:
// earliest finish time first on unrelated machines (Graham et al. 1979, list scheduling; HEFT, Topcuoglu 2002), in the
// fluid form because a batch's marginal cost is a line.
#include <infcore/engine/state_machine.hpp>

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

namespace infcore::engine {
namespace {

/// Finished before a time means by this much of it: equal nodes whose learned curves differ in the last digits finish
/// together, and a free one is not passed over for a busy one.
constexpr float strictly = 1.0f - 0x1p-16f;

/// Where free devices were passed over for busy ones, look again after this share of what the first of them takes for
/// one request: those it waits for may be late.
constexpr double look_again = 0.125;

constexpr std::uint64_t bit_of(NodeId id) noexcept { return std::uint64_t{1} << (id.value % 64); }

}  // namespace

void StateMachine::schedule(TimeNs now_ns) {
  // Ending or retrying requests while we dispatch can mark further lanes: go on until none is left.
  while (!dirty_.empty()) {
    due_.swap(dirty_);
    if (due_.size() > 1) {
      std::sort(due_.begin(), due_.end(), [&](std::uint32_t a, std::uint32_t b) { return before(a, b, now_ns); });
    }
    for (const std::uint32_t lane : due_) {
      lanes_[lane]->dirty = false;
      if (lanes_[lane]->bound != base::no_node) {
        dispatch_bound(now_ns, lane);
        continue;
      }
      while (lanes_[lane]->queue.size() > 0 && dispatch_from(now_ns, lane)) {
      }
    }
    due_.clear();
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
  // Where nobody takes anything, as under load most of the time, nothing else need be looked at.
  if (models_[lane.model.value].n_free == 0 && lane.open_nodes.empty()) return false;
  const auto work_mean = static_cast<float>(lane.work_mean());
  if (!gather(index, work_mean)) return false;
  const LeastAlone free = least_alone(latency_.batch(lane.model), free_candidates_.data(), fleet_.n_nodes(), work_mean);
  for (;;) {
    Taker first{.node = free.seconds < std::numeric_limits<float>::infinity() ? NodeId{free.node} : base::no_node,
                .first_s = free.seconds};
    auto open = open_takers_.end();
    for (auto it = open_takers_.begin(); it != open_takers_.end(); ++it) {
      if (it->refused || it->first_s > first.first_s || (it->first_s == first.first_s && it->node > first.node))
        continue;
      first = *it;
      open = it;
    }
    if (first.node == base::no_node) return false;
    const std::uint32_t n_share = share_of(now_ns, index, first, work_mean);
    if (n_share == 0) {  // busy ones are sooner, and then the devices after this one have no share either
      set_lane_timer(index, base::add_ns(base::add_ns(now_ns, base::to_ns(look_again * first.first_s)), 1));
      return false;
    }
    const Served served = serve(now_ns, index, first.node, n_share);
    if (served != Served::refused) return served == Served::sent;
    open->refused = true;
  }
}

/// A lane that waits for one device sends it what it can take, batch after batch.
void StateMachine::dispatch_bound(TimeNs now_ns, std::uint32_t index) {
  Lane& lane = *lanes_[index];
  Node& node = nodes_[lane.bound.value];
  const std::uint32_t max_batch_size = models_[lane.model.value].config.max_batch_size;
  while (lane.queue.size() > 0 && fleet_.state(lane.bound) == route::NodeState::up) {
    std::uint32_t room = max_batch_size;
    if (const Batch* open = lane.open_nodes.empty() ? nullptr : open_batch(node, index)) {
      room -= open->shape.n_requests;
    } else if (node.in_flight.size() >= node.slots) {
      return;
    }
    if (serve(now_ns, index, lane.bound, std::min(room, lane.queue.size())) != Served::sent) return;
  }
}

/// Who may run the lane's requests, and who of them takes some now. False where nobody does.
bool StateMachine::gather(std::uint32_t index, float work_mean) {
  const Lane& lane = *lanes_[index];
  const auto& columns = fleet_.columns();
  const std::uint32_t n_words = (fleet_.n_nodes() + 63) / 64;
  std::uint64_t any = 0;
  for (std::uint32_t word = 0; word < n_words; ++word) {
    // relaxed: up, residents and labels change under the fleet's mutex before a node is ever considered
    std::uint64_t passing = columns.up(word).load(std::memory_order_relaxed);
    passing &= columns.resident(lane.model.value, word).load(std::memory_order_relaxed);
    for (std::uint64_t left = lane.require; left != 0 && passing != 0; left &= left - 1) {
      passing &= columns.labelled(std::countr_zero(left), word).load(std::memory_order_relaxed);
    }
    candidates_[word] = others_[word] = passing;
    free_candidates_[word] = passing & has_free_slot_[word];
    any |= free_candidates_[word];
  }
  open_takers_.clear();
  for (const NodeId id : lane.open_nodes) {
    if ((others_[id.value / 64] & bit_of(id)) == 0) continue;  // no candidate, or it was here already
    const Batch* const open = open_batch(nodes_[id.value], index);
    if (open == nullptr) continue;
    others_[id.value / 64] &= ~bit_of(id);
    free_candidates_[id.value / 64] &= ~bit_of(id);
    const NodeFinish finish = NodeFinish::of(0.0f, latency_.batch(lane.model), id.value, work_mean);
    const std::uint32_t joined = open->shape.n_requests;
    open_takers_.push_back({id, finish.batch_s(static_cast<float>(joined + 1)), joined, false});
  }
  return any != 0 || !open_takers_.empty();
}

/// The most requests, at least one, such that fewer than all that wait could be finished strictly before the device has
/// done its last of them; 0 where there is no such number. Whatever is expected of busy devices, what the first in the
/// queue has waited already for them would have been enough: other queues compete for them, or they are late (the ski
/// rental argument: at most twice what was best), if that is still in time for it. Looked for from the lane's last
/// share on: most often it is the same or one more.
std::uint32_t StateMachine::share_of(TimeNs now_ns, std::uint32_t index, const Taker& taker, float work_mean) noexcept {
  Lane& lane = *lanes_[index];
  const std::uint32_t n_requests = lane.queue.size();
  const std::uint32_t max_batch_size = models_[lane.model.value].config.max_batch_size;
  const FinishColumns columns{free_at_s_.data(), latency_.batch(lane.model)};
  const FinishQuery query{base::seconds(now_ns), work_mean, static_cast<float>(max_batch_size),
                          static_cast<float>(n_requests)};
  const NodeFinish finish = NodeFinish::of(0.0f, columns.curves, taker.node.value, work_mean);
  const contracts::Request& head = slots_[lane.queue.front(now_ns)].request;
  const auto waited_s = static_cast<float>(base::seconds(now_ns - head.arrival_ns));
  const auto left_s = static_cast<float>(base::seconds(head.deadline_ns - now_ns));
  const auto can_have = [&](std::uint32_t n_share) {
    const float t_s = finish.batch_s(static_cast<float>(taker.joined + n_share)) * strictly;
    if (t_s <= waited_s && t_s <= left_s) return true;
    const std::uint32_t n_enough = n_requests - n_share + 1;  // of the others; it has done n_share - 1 itself
    float n_open = 0.0f;
    for (const Taker& open : open_takers_) {
      if (open.node == taker.node) continue;
      const NodeFinish its = NodeFinish::of(0.0f, columns.curves, open.node.value, work_mean);
      const float n = its.n_by(t_s, query) - static_cast<float>(open.joined);
      n_open += n > 0.0f ? n : 0.0f;
    }
    if (n_open >= static_cast<float>(n_enough)) return false;
    return finish_fewer(columns, others_.data(), fleet_.n_nodes(), query, t_s,
                        n_enough - static_cast<std::uint32_t>(n_open));
  };
  std::uint64_t& word = others_[taker.node.value / 64];
  const std::uint64_t was = std::exchange(word, word & ~bit_of(taker.node));
  // From the last share on in growing steps, then by halves.
  const std::uint32_t most = std::min(n_requests, max_batch_size - taker.joined);
  std::uint32_t least = 0, beyond = most + 1, step = 1;
  for (std::uint32_t n = std::clamp(lane.last_share, 1u, most); beyond - least > 1;) {
    const bool can = can_have(n);
    (can ? least : beyond) = n;
    if (least == 0) {
      n = beyond > step ? beyond - step : 1;
    } else if (beyond > most) {
      n = std::min(least + step, most);
    } else {
      n = (least + beyond) / 2;
    }
    step *= 2;
  }
  lane.last_share = least;
  word = was;
  return least;
}

/// Gives one device its share: joins its open batch, or opens one unless the batching rule would rather wait.
StateMachine::Served StateMachine::serve(TimeNs now_ns, std::uint32_t index, NodeId id, std::uint32_t n_share) {
  Lane& lane = *lanes_[index];
  lane.unheld = false;
  Node& node = nodes_[id.value];
  const contracts::LatencyModel& latency = latency_.at(lane.model, id);
  if (Batch* open = lane.open_nodes.empty() ? nullptr : open_batch(node, index)) {
    const std::uint32_t n_before = lane.queue.size();
    fill(now_ns, index, id, *open, n_share);
    open->expected_end_ns = base::add_ns(now_ns, base::to_ns(latency.service_s(open->shape)));
    occupancy_changed(id);
    return lane.queue.size() < n_before ? Served::sent : Served::refused;
  }
  batch::Close close{n_share, now_ns};
  // The rule may wait for more to come; not where more is there already, and others do it sooner.
  if (n_share == lane.queue.size() || lane.bound != base::no_node) close = ask_rule(now_ns, lane, id, n_share);
  if (close.n_requests == 0) {
    set_lane_timer(index, close.wait_until_ns);
    return Served::held;
  }
  Batch b;
  b.id = next_batch_id_++;
  b.lane = index;
  b.model = lane.model;
  b.open = true;
  b.opened_ns = now_ns;
  if (!spare_members_.empty()) {
    b.members.swap(spare_members_.back());
    spare_members_.pop_back();
  }
  fill(now_ns, index, id, b, close.n_requests);
  if (b.members.empty()) {  // all of them were too late, and are gone: the lane is another one now
    keep_members(b);
    return Served::sent;
  }
  b.expected_end_ns = base::add_ns(now_ns, base::to_ns(latency.service_s(b.shape)));
  node.in_flight.push_back(std::move(b));
  lane.open_nodes.push_back(id);
  occupancy_changed(id);
  return Served::sent;
}

/// Whether to send so many now, or to wait for more.
batch::Close StateMachine::ask_rule(TimeNs now_ns, Lane& lane, NodeId id, std::uint32_t n_share) noexcept {
  const double work_mean = lane.work_mean();
  const ModelConfig& config = models_[lane.model.value].config;
  const batch::Pending pending{
      .shape = {n_share, work_mean * n_share, work_mean},
      .earliest_deadline_ns = lane.queue.next_deadline_ns(),
      .held_since_ns = std::max(nodes_[id.value].free_since_ns, lane.queue.oldest_arrival_ns()),
      .arrivals_per_s = lane.rate.per_s(now_ns),
      .max_batch_size = config.max_batch_size,
      .delay_ns_max = config.batch_delay_ns_max,
  };
  const batch::Close close = batching_->close(now_ns, pending, latency_.at(lane.model, id));
  return close.n_requests > 0 || door_.n_rungs == 0 ? close : shorter_close(now_ns, lane, id, pending, close);
}

/// Whether no device could finish the request in time even if it were free now. `first`: one that most likely can.
bool StateMachine::too_late(TimeNs now_ns, const Lane& lane, const contracts::Request& r, NodeId first) const noexcept {
  if (r.deadline_ns == base::never_ns) return false;
  const auto work = static_cast<float>(r.work);
  const contracts::BatchColumns curves = latency_.batch(lane.model);
  const auto late = [&](float alone_s) { return base::add_ns(now_ns, base::to_ns(alone_s)) > r.deadline_ns; };
  if (!late(NodeFinish::of(0.0f, curves, first.value, work).batch_s(1.0f))) return false;
  if (lane.bound != base::no_node) return true;
  return late(least_alone(curves, candidates_.data(), fleet_.n_nodes(), work).seconds);
}

/// Moves up to `n_more` requests from the lane into the batch, most urgent first. One that no device can finish in time
/// any more is shed; one that must run alone (its batch failed before) does. The batch stops growing where one more
/// would make its most urgent member late, as long as that costs no more than half of it.
void StateMachine::fill(TimeNs now_ns, std::uint32_t index, NodeId id, Batch& b, std::uint32_t n_more) {
  Lane& lane = *lanes_[index];
  const contracts::LatencyModel& latency = latency_.at(lane.model, id);
  const contracts::Curve& curve = latency.curve();
  const double slope_s = curve.per_request_s + (curve.per_work_s + curve.per_padded_work_s) * lane.work_mean();
  TimeNs earliest_ns = base::never_ns;
  for (const std::uint32_t m : b.members) earliest_ns = std::min(earliest_ns, slots_[m].request.deadline_ns);
  const std::uint32_t n_wanted = b.shape.n_requests + n_more;
  contracts::Credit credit{};
  while (b.shape.n_requests < n_wanted && lane.queue.size() > 0) {
    const std::uint32_t slot = lane.queue.front(now_ns);
    Slot& s = slots_[slot];
    if (too_late(now_ns, lane, s.request, id)) {
      leave_lane(slot);
      end(now_ns, slot, ActionKind::shed, Reason::deadline);
      continue;
    }
    if (!b.members.empty() && (s.solo || slots_[b.members.front()].solo)) break;
    contracts::BatchShape larger = b.shape;
    larger.add(s.request.work);
    const TimeNs with_it_ns = std::min(earliest_ns, s.request.deadline_ns);
    if (with_it_ns != base::never_ns && larger.n_requests > std::max(1u, n_wanted / 2) &&
        base::add_ns(now_ns, base::to_ns(latency.upper_s(larger))) > with_it_ns) {
      break;
    }
    // A request is charged to its tenant once, however often it is run.
    leave_lane(slot, std::exchange(s.charged, true) ? 0 : queue::TenantFlows::units_of(s.request.work));
    if (const std::uint32_t next = lane.queue.front(now_ns); next != queue::no_slot) __builtin_prefetch(&slots_[next]);
    unreserve_into(credit, s);  // of a bound lane: on the same device
    s.where = Where::in_batch;
    s.node = id;
    s.batch_id = b.id;
    ++s.attempts;
    reserve_into(credit, s, slope_s + (b.members.empty() ? curve.base_s : 0.0));
    earliest_ns = with_it_ns;
    b.shape = larger;
    b.members.push_back(slot);
    act(slot, ActionKind::dispatch, lane.unheld && s.entered_as == Reason::none ? Reason::overload : s.entered_as, id,
        b.id, b.shape.n_requests - 1);
  }
  if (credit.inflight != 0 || credit.reserved_ns != 0) fleet_.change_credit(id, credit);
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
