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
#include <optional>
#include <utility>

namespace infcore::engine {
namespace {

/// In less than this much of what one request takes none is done, however n_in() is rounded: what is looked at first,
/// as most slots of a large fleet do nothing in time and a division each would be most of the choice.
constexpr float surely_less = 1.0f - 0x1p-20f;

constexpr std::uint64_t bit_of(NodeId id) noexcept { return std::uint64_t{1} << (id.value % 64); }

}  // namespace

void StateMachine::schedule(TimeNs now_ns) {
  // Ending or retrying requests while we dispatch can mark further lanes, and so can what is unloaded: go on until none
  // is left.
  do {
    dispatch_dirty(now_ns);
    if (looks_for_loads_) plan_loads(now_ns);
  } while (!dirty_.empty());
}

void StateMachine::dispatch_dirty(TimeNs now_ns) {
  while (!dirty_.empty()) {
    due_.swap(dirty_);
    if (due_.size() > 1) {
      std::sort(due_.begin(), due_.end(), [&](std::uint32_t a, std::uint32_t b) { return before(a, b, now_ns); });
      give_turn(now_ns);
    }
    for (const std::uint32_t lane : due_) {
      lanes_[lane]->dirty = false;
      dispatch_lane(now_ns, lane);
      look_for_loads();
    }
    due_.clear();
  }
}

void StateMachine::dispatch_lane(TimeNs now_ns, std::uint32_t lane) {
  if (lanes_[lane]->bound != base::no_node) return dispatch_bound(now_ns, lane);
  if (routing_->binds_on_arrival()) return bind_from(now_ns, lane);
  while (lanes_[lane]->queue.size() > 0 && dispatch_from(now_ns, lane)) {
  }
}

/// Order in which lanes that compete for devices are served: as their heads would stand in one lane.
bool StateMachine::before(std::uint32_t lane_a, std::uint32_t lane_b, TimeNs now_ns) const noexcept {
  const std::uint32_t a = lanes_[lane_a]->queue.front(now_ns), b = lanes_[lane_b]->queue.front(now_ns);
  if (a == queue::no_slot || b == queue::no_slot)
    return a != queue::no_slot || (b == queue::no_slot && lane_a < lane_b);
  return goes_before(a, b, now_ns);
}

/// As TieredLane has it for one tenant.
bool StateMachine::goes_before(std::uint32_t a, std::uint32_t b, TimeNs now_ns) const noexcept {
  const contracts::Request &ra = slots_[a].request, &rb = slots_[b].request;
  const bool aged = is_aged(a, now_ns);
  if (aged != is_aged(b, now_ns)) return aged;
  if (aged && ra.arrival_ns != rb.arrival_ns) return ra.arrival_ns < rb.arrival_ns;
  if (!aged && ra.tier != rb.tier) return ra.tier < rb.tier;
  if (!aged && ra.deadline_ns != rb.deadline_ns) return ra.deadline_ns < rb.deadline_ns;
  return queue_slots_[a].seq < queue_slots_[b].seq;
}

/// Sends or joins at most one device's share. Returns whether it did, so that it is asked again.
bool StateMachine::dispatch_from(TimeNs now_ns, std::uint32_t index) {
  Lane& lane = *lanes_[index];
  // Where nobody takes anything, as under load most of the time, nothing else need be looked at.
  const ModelState& model = models_[lane.model.value];
  if (model.n_free == 0 && model.open_nodes.empty()) return false;
  const auto work_mean = static_cast<float>(lane.work_mean());
  if (!gather(index, work_mean)) return false;
  if (model.config.runs_share) {
    const std::uint32_t head = lane.queue.front(now_ns);
    const bool by_tokens = by_tokens_ && slots_[head].request.prompt_tokens > 0;
    return by_tokens ? dispatch_tokens(now_ns, index) : dispatch_shared(now_ns, index);
  }
  if (bool sent = false; weights_.by_work && open_takers_.empty() && dispatch_untried(now_ns, index, sent)) return sent;
  if (weights_.price_us_per_usd > 0.0 && has_prices_ && open_takers_.empty()) {
    bool sent = false;
    if (dispatch_costly(now_ns, index, work_mean, sent)) return sent;
  }
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
    suited_.clear();
    const bool by_work = weights_.by_work && open == open_takers_.end() && model.lanes.size() == 1;
    const std::uint32_t n_share =
        by_work ? share_by_work(now_ns, index, first, work_mean) : share_of(now_ns, index, first, work_mean);
    if (n_share == 0) {  // busy ones are sooner, and then the devices after this one have no share either
      set_lane_timer(index, base::add_ns(base::add_ns(now_ns, base::to_ns(look_again * first.first_s)), 1));
      return false;
    }
    sources_.assign(1, {.lane = index, .left = n_share});
    if (model.lanes.size() > 1 && open == open_takers_.end()) add_riders(now_ns, index, first);
    const Served served = serve(now_ns, index, first.node, n_share);
    if (served == Served::held) return dispatch_late(now_ns, index, first.node);
    if (served == Served::sent) return true;
    open->refused = true;
  }
}

/// Where nobody was sent to the device whose turn it was because it would be too late for the first request: that goes
/// to another one that is free and would be in time for it or may be tried. No other turn would come before its
/// deadline has passed. False: it waits for a busy one, or there is none.
bool StateMachine::dispatch_late(TimeNs now_ns, std::uint32_t index, NodeId passed) {
  const Lane& lane = *lanes_[index];
  const contracts::Request& head = slots_[lane.queue.front(now_ns)].request;
  NodeId other = passed;
  if (!late_on(now_ns, lane.model, head, passed) || too_late(now_ns, lane, head, other)) return false;
  if ((free_candidates_[other.value / 64] & bit_of(other)) == 0) return false;
  suited_.clear();
  sources_.assign(1, {.lane = index, .left = 1});
  return serve(now_ns, index, other, 1) == Served::sent;
}

/// Sends the first request to the node where it would be done first beside all that runs there, of those with a free
/// slot. A node whose curve is not to be trusted yet comes before all others while it has fewer requests than it takes
/// to learn it, and after them then: who is slow is found out at the cost of a few.
bool StateMachine::dispatch_shared(TimeNs now_ns, std::uint32_t index) {
  Lane& lane = *lanes_[index];
  const double work = slots_[lane.queue.front(now_ns)].request.work;
  NodeId best = base::no_node;
  int best_rank = 0;
  double best_cost = 0.0;
  for (std::uint32_t word = 0; word < (fleet_.n_nodes() + 63) / 64; ++word) {
    for (std::uint64_t left = free_candidates_[word]; left != 0; left &= left - 1) {
      const NodeId id{word * 64 + static_cast<std::uint32_t>(std::countr_zero(left))};
      const contracts::LatencyModel& latency = latency_.at(lane.model, id);
      contracts::BatchShape with_it = nodes_[id.value].occupied;
      const bool is_known = latency.is_trusted();
      const int rank = is_known ? 1 : with_it.n_requests < contracts::LatencyModel::n_features ? 0 : 2;
      const double n_there = with_it.n_requests;
      with_it.add(work);
      const double cost = is_known ? latency.service_s(with_it) : n_there;
      if (best != base::no_node && (rank > best_rank || (rank == best_rank && cost >= best_cost))) continue;
      best = id;
      best_rank = rank;
      best_cost = cost;
    }
  }
  if (best == base::no_node) return false;
  suited_.clear();
  sources_.assign(1, {.lane = index, .left = 1});
  const Served served = serve(now_ns, index, best, 1);
  return served == Served::held ? dispatch_late(now_ns, index, best) : served == Served::sent;
}

/// A lane that waits for one device sends it what it can take, batch after batch.
void StateMachine::dispatch_bound(TimeNs now_ns, std::uint32_t index) {
  Lane& lane = *lanes_[index];
  Node& node = nodes_[lane.bound.value];
  const std::uint32_t max_batch_size = models_[lane.model.value].config.max_batch_size;
  suited_.clear();
  if (!fleet_.resident(lane.bound, lane.model)) return;  // it is to be loaded first
  while (lane.queue.size() > 0 && fleet_.state(lane.bound) == route::NodeState::up) {
    std::uint32_t room = max_batch_size;
    if (const Batch* open = lane.open_nodes.empty() ? nullptr : open_batch(node, index)) {
      room -= open->shape.n_requests;
    } else if (node.in_flight.size() >= node.slots || (residency_ && residency_->is_reserved(lane.bound))) {
      return;
    }
    room = std::min(room, room_of(node));
    if (room == 0) return;
    const std::uint32_t n = std::min(room, lane.queue.size());
    sources_.assign(1, {.lane = index, .left = n});
    if (serve(now_ns, index, lane.bound, n) != Served::sent) return;
  }
}

/// What else waits for the model and may run there goes in the same batch, each lane up to its own share: one that
/// another device of its own would do sooner does not ride along. The most urgent lanes, if there are many.
void StateMachine::add_riders(TimeNs now_ns, std::uint32_t index, const Taker& taker) {
  riders_.clear();
  for (const std::uint32_t lane : models_[lanes_[index]->model.value].lanes) {
    if (lane == index || lanes_[lane]->queue.size() == 0) continue;
    if (fleet_.columns().carries(taker.node.value, lanes_[lane]->require)) riders_.push_back(lane);
  }
  if (riders_.empty()) return;
  if (riders_.size() > sources_max - 1) {
    const auto end = riders_.begin() + (sources_max - 1);
    std::partial_sort(riders_.begin(), end, riders_.end(),
                      [&](std::uint32_t a, std::uint32_t b) { return before(a, b, now_ns); });
    riders_.erase(end, riders_.end());
  }
  for (const std::uint32_t lane : riders_) {
    const auto work_mean = static_cast<float>(lanes_[lane]->work_mean());
    gather(lane, work_mean);
    if (const std::uint32_t n = share_of(now_ns, lane, taker, work_mean)) sources_.push_back({.lane = lane, .left = n});
  }
  gather(index, static_cast<float>(lanes_[index]->work_mean()));
}

/// Who may run the lane's requests, and who of them takes some now. False where nobody does.
bool StateMachine::gather(std::uint32_t index, float work_mean) {
  const Lane& lane = *lanes_[index];
  const auto& columns = fleet_.columns();
  const std::uint32_t n_words = (fleet_.n_nodes() + 63) / 64;
  std::uint64_t any = 0, any_bounded = 0;
  std::optional<bool> others_wait;  // anywhere: asked only where some node has several slots
  for (std::uint32_t word = 0; word < n_words; ++word) {
    // relaxed: up, residents and labels change under the fleet's mutex before a node is ever considered
    std::uint64_t passing = columns.up(word).load(std::memory_order_relaxed);
    passing &= columns.resident(lane.model.value, word).load(std::memory_order_relaxed);
    for (std::uint64_t left = lane.require; left != 0 && passing != 0; left &= left - 1) {
      passing &= columns.labelled(std::countr_zero(left), word).load(std::memory_order_relaxed);
    }
    candidates_[word] = passing;
    others_[word] = passing;
    free_candidates_[word] = passing & has_free_slot_[word];
    further_[word] = passing & many_slots_[word] & ~bounded_[word];
    if (further_[word] != 0 && !others_wait) others_wait = any_waits_but(lane.model);
    for (std::uint64_t left = others_wait.value_or(false) ? further_[word] : 0; left != 0; left &= left - 1) {
      const NodeId id{word * 64 + static_cast<std::uint32_t>(std::countr_zero(left))};
      if (others_wait_for(id, lane.model)) further_[word] &= ~bit_of(id);
    }
    any |= free_candidates_[word];
    any_bounded |= passing & bounded_[word];
  }
  open_takers_.clear();
  for (const NodeId id : models_[lane.model.value].open_nodes) {
    if ((others_[id.value / 64] & bit_of(id)) == 0) continue;  // no candidate, or it was here already
    const Batch* const open = open_batch(nodes_[id.value], index);
    if (open == nullptr) continue;
    others_[id.value / 64] &= ~bit_of(id);
    free_candidates_[id.value / 64] &= ~bit_of(id);
    const NodeFinish finish = NodeFinish::of(0.0f, latency_.batch(lane.model), id.value, work_mean);
    const std::uint32_t joined = open->shape.n_requests;
    open_takers_.push_back({id, finish.batch_s(static_cast<float>(joined + 1)), joined, false});
  }
  // Nobody waits for a node that may have a few at a time only. Who has a batch open there joins it all the same.
  for (std::uint32_t word = 0; any_bounded != 0 && word < n_words; ++word) others_[word] &= ~bounded_[word];
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
      if (open.node == taker.node || (bounded_[open.node.value / 64] & bit_of(open.node)) != 0) continue;
      const NodeFinish its = NodeFinish::of(0.0f, columns.curves, open.node.value, work_mean);
      const float n = its.n_by(t_s, query) - static_cast<float>(open.joined);
      n_open += n > 0.0f ? n : 0.0f;
    }
    if (n_open >= static_cast<float>(n_enough)) return false;
    const std::uint32_t n_left = n_enough - static_cast<std::uint32_t>(n_open);
    const std::uint32_t n_further = n_in_further_slots(lane.model, query, t_s, n_left);
    return n_further < n_left &&
           finish_fewer(columns, others_.data(), fleet_.n_nodes(), query, t_s, n_left - n_further);
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

/// Whether anything of another model waits.
bool StateMachine::any_waits_but(ModelId model) const noexcept {
  for (std::uint32_t other = 0; other < n_models_; ++other) {
    if (ModelId{other} == model) continue;
    for (const std::uint32_t lane : models_[other].lanes) {
      if (lanes_[lane]->queue.size() > 0) return true;
    }
  }
  return false;
}

/// Whether anything of another model waits that the node may run: then its slots are not the lane's to count on.
bool StateMachine::others_wait_for(NodeId id, ModelId model) const noexcept {
  for (const ModelId other : nodes_[id.value].models) {
    if (other == model) continue;
    for (const std::uint32_t lane : models_[other.value].lanes) {
      if (lanes_[lane]->queue.size() > 0) return true;
    }
  }
  return false;
}

/// How many the slots of the candidates finish by then, of each node without the one that is free first, which stands
/// for the node among the others. Runs do not disturb each other, so a slot is as good as a device of its own; those
/// that run another model will be wanted for it again. Looks no further once they are enough.
std::uint32_t StateMachine::n_in_further_slots(ModelId model, const FinishQuery& query, float t_s,
                                               std::uint32_t n_enough) const noexcept {
  const contracts::BatchColumns curves = latency_.batch(model);
  std::uint32_t n = 0;
  for (std::uint32_t word = 0; word < (fleet_.n_nodes() + 63) / 64; ++word) {
    for (std::uint64_t left = further_[word]; left != 0; left &= left - 1) {
      const NodeId id{word * 64 + static_cast<std::uint32_t>(std::countr_zero(left))};
      const Node& node = nodes_[id.value];
      const NodeFinish finish = NodeFinish::of(0.0f, curves, id.value, query.work_mean);
      const float least_s = finish.batch_s(1.0f) * surely_less;
      if (t_s < least_s) continue;
      const auto n_busy = static_cast<std::uint32_t>(node.in_flight.size());
      const std::uint32_t n_idle = node.slots > n_busy ? node.slots - n_busy : 0;
      if (n_idle > 1) n += (n_idle - 1) * static_cast<std::uint32_t>(finish.n_in(t_s, query));
      bool is_passed = n_idle > 0;
      for (const Batch& b : node.in_flight) {
        if (n >= n_enough) return n;
        const double end_s = base::seconds(b.expected_end_ns);
        if (!is_passed && end_s == free_at_s_[id.value]) {
          is_passed = true;
          continue;
        }
        const float room_s = t_s - NodeFinish::free_in(end_s, query.now_s);
        if (b.model == model && room_s >= least_s) n += static_cast<std::uint32_t>(finish.n_in(room_s, query));
      }
    }
  }
  return n;
}

/// What the latency model is told of a batch: where runs share a node, all that ran there when it started.
const contracts::BatchShape& StateMachine::learned_shape(const Batch& b) const noexcept {
  return models_[b.model.value].config.runs_share ? b.beside : b.shape;
}

/// After any change of the node's batches: when its next slot is free, as the joint choice reads it.
void StateMachine::occupancy_changed(NodeId id) {
  Node& node = nodes_[id.value];
  TimeNs free_ns = base::never_ns;
  node.occupied = {};
  for (const Batch& b : node.in_flight) {
    free_ns = std::min(free_ns, b.expected_end_ns);
    node.occupied.n_requests += b.shape.n_requests;
    node.occupied.work_sum += b.shape.work_sum;
    node.occupied.work_max = std::max(node.occupied.work_max, b.shape.work_max);
  }
  bool has_free_slot = node.in_flight.size() < node.slots && room_of(node) > 0;
  if (residency_) {
    follow_use(id);
    const Residency::NodeLoads* const loads = residency_->node(id);
    if (residency_->is_reserved(id)) {
      has_free_slot = false;
      if (node.in_flight.empty()) free_ns = node.free_since_ns;
    }
    if (loads != nullptr && loads->is_loading() && !loads->beside_runs) {  // its worker loads
      has_free_slot = false;
      free_ns = loads->expected_end_ns;
    }
  }
  free_at_s_[id.value] = has_free_slot ? free_now : base::seconds(free_ns);
  std::uint64_t& word = has_free_slot_[id.value / 64];
  const std::uint64_t bit = std::uint64_t{1} << (id.value % 64);
  if (((word & bit) != 0) == has_free_slot) return;
  word ^= bit;
  for (const ModelId model : node.models) models_[model.value].n_free += has_free_slot ? 1u : -1u;
}

}  // namespace infcore::engine
