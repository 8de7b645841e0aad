// What goes into a batch: who joins an open one, when a new one is opened, and who is in it. The lane's order of
// service decides as long as everybody is in time; where deadlines are in danger, the batching rule selects among the
// first that wait, and says who is given up so that others are in time.
#include <infcore/engine/state_machine.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

namespace infcore::engine {
namespace {

/// How long a lane's capacity is believed: as long as its rate of arrivals looks back. 10,000 nodes are not summed up
/// for every batch.
constexpr TimeNs capacity_ns = 10'000'000;

}  // namespace

/// Gives one device its share: joins its open batch, or opens one unless the batching rule would rather wait. Filled
/// from sources_, the first of which is the lane whose turn it is and may have `n_share`.
StateMachine::Served StateMachine::serve(TimeNs now_ns, std::uint32_t index, NodeId id, std::uint32_t n_share) {
  Lane& lane = *lanes_[index];
  lane.unheld = false;
  Node& node = nodes_[id.value];
  const std::uint32_t room = room_of(node);
  n_share = std::min(n_share, room);
  const contracts::LatencyModel& latency = latency_.at(lane.model, id);
  const std::uint32_t n_before = lane.queue.size();
  std::vector<NodeId>& open_nodes = open_nodes_of(lane);
  if (Batch* open = open_nodes.empty() ? nullptr : open_batch(node, index)) {
    const std::uint32_t joined = open->shape.n_requests;
    std::uint32_t n = joined + n_share;
    if (!models_[lane.model.value].config.preferred_batch_sizes.empty()) {
      n = preferred(now_ns, lane, pool_of_sources(), id, n);
    }
    if (n <= joined) return Served::refused;
    fill(now_ns, index, id, *open, n - joined);
    open->expected_end_ns = base::add_ns(now_ns, base::to_ns(latency.service_s(open->shape)));
    occupancy_changed(id);
    return lane.queue.size() < n_before ? Served::sent : Served::refused;
  }
  std::uint32_t n = 0;
  for (const Source& source : sources_) n += source.left;
  n = std::min({n, models_[lane.model.value].config.max_batch_size, room});
  const Pool pool = pool_of_sources();
  batch::Close close = ask_rule(now_ns, lane, pool, id, n);
  // The rule may wait for more to come; not where more is there already, and others do it sooner.
  const bool more_is_there = n_share < n_before && lane.bound == base::no_node;
  if (more_is_there) {
    lane.unheld = false;
    if (close.n_requests == 0) close.n_requests = n;
  }
  if (close.n_requests == 0) {
    set_lane_timer(index, close.wait_until_ns);
    return Served::held;
  }
  Batch b = new_batch(now_ns, index);
  bool picks = in_danger(now_ns, lane, pool, id, close.n_requests);
  if (!picks) close.n_requests = preferred(now_ns, lane, pool, id, close.n_requests);
  const bool suited = !picks && !suited_.empty() && fill_suited(now_ns, index, id, b, close.n_requests);
  picks = !suited && (picks || matters_who_joins(lane, pool, id));
  if (picks || (!suited && !fill(now_ns, index, id, b, close.n_requests))) {
    choose(now_ns, index, id, b, close.n_requests);
  }
  if (b.members.empty()) {  // who was given up is gone, and the lane another one; or all of them wait for a faster one
    keep_members(b);
    return lane.queue.size() < n_before ? Served::sent : Served::held;
  }
  b.expected_end_ns = base::add_ns(now_ns, base::to_ns(latency.service_s(b.shape)));
  node.in_flight.push_back(std::move(b));
  open_nodes.push_back(id);
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

StateMachine::Pool StateMachine::pool_of_sources() const noexcept {
  Pool pool;
  for (const Source& source : sources_) {
    const Lane& lane = *lanes_[source.lane];
    const bool is_first = &source == sources_.data();
    pool.work_least = is_first ? lane.work_least : std::min(pool.work_least, lane.work_least);
    pool.work_most = is_first ? lane.work_most : std::max(pool.work_most, lane.work_most);
    pool.n_waiting += lane.queue.size();
    pool.work_pending += lane.work_pending;
    pool.earliest_deadline_ns = std::min(pool.earliest_deadline_ns, lane.queue.next_deadline_ns());
    pool.oldest_arrival_ns = std::min(pool.oldest_arrival_ns, lane.queue.oldest_arrival_ns());
  }
  return pool;
}

double StateMachine::arrivals_per_s(TimeNs now_ns) noexcept {
  double per_s = 0.0;
  for (const Source& source : sources_) per_s += lanes_[source.lane]->rate.per_s(now_ns);
  return per_s;
}

/// Whether to send so many now, fewer, or to wait for more.
batch::Close StateMachine::ask_rule(TimeNs now_ns, Lane& lane, const Pool& pool, NodeId id, std::uint32_t n) noexcept {
  const double work_mean = pool.work_mean();
  const ModelConfig& config = models_[lane.model.value].config;
  const batch::Pending pending{
      .shape = {n, work_mean * n, work_mean},
      .earliest_deadline_ns = pool.earliest_deadline_ns,
      .held_since_ns = std::max(nodes_[id.value].free_since_ns, pool.oldest_arrival_ns),
      .arrivals_per_s = arrivals_per_s(now_ns),
      .max_batch_size = config.max_batch_size,
      .delay_ns_max = config.batch_delay_ns_max,
  };
  const batch::Close close = batching_->close(now_ns, pending, latency_.at(lane.model, id));
  return close.n_requests > 0 || door_.n_rungs == 0 ? close : shorter_close(now_ns, lane, id, pending, close);
}

/// Whether somebody might be late in a batch of so many sent now: by the mean work and the earliest deadline of what
/// waits, since that costs next to nothing where all is well.
bool StateMachine::in_danger(TimeNs now_ns, const Lane& lane, const Pool& pool, NodeId id,
                             std::uint32_t n) const noexcept {
  if (pool.earliest_deadline_ns == base::never_ns) return false;
  const double mean = pool.work_mean();
  const contracts::BatchShape shape{n, mean * n, mean};
  return base::add_ns(now_ns, base::to_ns(latency_.at(lane.model, id).upper_s(shape))) > pool.earliest_deadline_ns;
}

/// Whether the node alone, were it free now, would finish the request after its deadline. Not where it may be tried.
bool StateMachine::late_on(TimeNs now_ns, ModelId model, const contracts::Request& r, NodeId node) const noexcept {
  if (r.deadline_ns == base::never_ns) return false;
  const NodeFinish finish = NodeFinish::of(0.0f, latency_.batch(model), node.value, static_cast<float>(r.work));
  const float alone_s = finish.batch_s(1.0f);
  return base::add_ns(now_ns, base::to_ns(alone_s)) > r.deadline_ns && !may_be_tried(now_ns, model, node, alone_s);
}

/// Whether a node that is believed to be too slow has been idle for as long as it is believed to take: then trying
/// costs nobody anything, and is how a curve that is no longer true is found out. Else one slow first run would have
/// every request with a shorter deadline given up for ever, there and on all nodes that have their class's curve of it.
/// A curve that was given is believed, one that has seen less than its own features is not.
bool StateMachine::may_be_tried(TimeNs now_ns, ModelId model, NodeId node, float alone_s) const noexcept {
  const Node& its = nodes_[node.value];
  const contracts::LatencyModel& latency = latency_.at(model, node);
  if (latency_.is_given(model, node)) return false;
  if (!latency.is_trusted()) return its.in_flight.size() < its.slots;
  return its.in_flight.empty() && base::add_ns(its.free_since_ns, base::to_ns(alone_s)) <= now_ns;
}

/// Whether no device could finish the request in time even if it were free now. `first`: one that most likely can, and
/// then one that does; a lane that is bound to one has no other.
bool StateMachine::too_late(TimeNs now_ns, const Lane& lane, const contracts::Request& r,
                            NodeId& first) const noexcept {
  if (!late_on(now_ns, lane.model, r, first)) return false;
  if (lane.bound != base::no_node) return true;
  const LeastAlone least =
      least_alone(latency_.batch(lane.model), candidates_.data(), fleet_.n_nodes(), static_cast<float>(r.work));
  if (base::add_ns(now_ns, base::to_ns(least.seconds)) <= r.deadline_ns) {
    first = NodeId{least.node};
    return false;
  }
  for (std::uint32_t word = 0; word < (fleet_.n_nodes() + 63) / 64; ++word) {
    for (std::uint64_t left = candidates_[word] & has_free_slot_[word]; left != 0; left &= left - 1) {
      const NodeId node{word * 64 + static_cast<std::uint32_t>(std::countr_zero(left))};
      if (late_on(now_ns, lane.model, r, node)) continue;
      first = node;
      return false;
    }
  }
  return true;
}

/// The lane whose head comes first of those that may still give some; nullptr: none.
StateMachine::Source* StateMachine::first_source(TimeNs now_ns) noexcept {
  Source* first = nullptr;
  for (Source& source : sources_) {
    if (source.left == 0 || source.passed || lanes_[source.lane]->queue.size() == 0) continue;
    if (first == nullptr || before(source.lane, first->lane, now_ns)) first = &source;
  }
  return first;
}

/// Moves up to `n_more` requests into the batch, most urgent first. One that no device can finish in time any more is
/// shed; one that must run alone (its batch failed before) does. It stops where one more would make somebody late who
/// would be in time without, itself included. False: whom the batch would begin with is late on this device and not on
/// another.
bool StateMachine::fill(TimeNs now_ns, std::uint32_t index, NodeId id, Batch& b, std::uint32_t n_more) {
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
  NodeId fastest = id;
  for (Source& source : sources_) source.passed = false;
  bool begins = true;
  while (b.shape.n_requests < n_wanted) {
    Source* const source = first_source(now_ns);
    if (source == nullptr) break;
    const std::uint32_t slot = lanes_[source->lane]->queue.front(now_ns);
    const contracts::Request& r = slots_[slot].request;
    if (late_on(now_ns, lane.model, r, id)) {
      if (source->lane == index && too_late(now_ns, lane, r, fastest)) {
        shed(now_ns, slot, Reason::deadline);
        continue;
      }
      source->passed = true;  // it waits for a faster device, or for its own lane's turn
      begins = begins && !b.members.empty();
      continue;
    }
    const TimeNs deadline_ns = r.deadline_ns;
    if (!b.members.empty() && (!may_join(slot, b) || !is_like(b, r.work, id))) {
      source->passed = true;
      continue;
    }
    if (std::min(earliest_ns, deadline_ns) != base::never_ns) {
      contracts::BatchShape larger = b.shape, alone;
      larger.add(r.work);
      alone.add(r.work);
      const TimeNs with_it_ns = ends_ns(larger);
      if (with_it_ns > earliest_ns) break;
      if (with_it_ns <= deadline_ns) {
        earliest_ns = std::min(earliest_ns, deadline_ns);
      } else if (!b.members.empty() && ends_ns(alone) <= deadline_ns) {
        source->passed = true;
        continue;
      }
    }
    --source->left;
    take(now_ns, slot, id, b, filling);
    if (const std::uint32_t next = lane.queue.front(now_ns); next != queue::no_slot) __builtin_prefetch(&slots_[next]);
  }
  if (filling.credit.inflight != 0 || filling.credit.reserved_ns != 0) fleet_.change_credit(id, filling.credit);
  return begins || !b.members.empty();
}

/// Not if one of the two insists on running alone, or if the rule saw it and left it out.
bool StateMachine::may_join(std::uint32_t slot, const Batch& b) const noexcept {
  return !slots_[slot].solo && !slots_[b.members.front()].solo && queue_slots_[slot].seq >= b.joins_from_seq;
}

void StateMachine::shed(TimeNs now_ns, std::uint32_t slot, Reason reason) {
  leave_lane(slot);
  end(now_ns, slot, ActionKind::shed, reason);
}

StateMachine::Filling StateMachine::filling_of(const Lane& lane, NodeId id) const noexcept {
  const contracts::Curve& curve = latency_.at(lane.model, id).curve();
  return {curve.base_s,
          curve.per_request_s + (curve.per_work_s + curve.per_padded_work_s) * lane.work_mean(),
          lane.unheld,
          {}};
}

/// From its lane into the batch.
void StateMachine::take(TimeNs now_ns, std::uint32_t slot, NodeId id, Batch& b, Filling& filling) {
  Slot& s = slots_[slot];
  // A request is charged to its tenant once, however often it is run.
  leave_lane(slot, std::exchange(s.charged, true) ? 0 : queue::TenantFlows::units_of(s.request.work));
  unreserve_into(filling.credit, s);  // of a bound lane: on the same device
  s.where = Where::in_batch;
  s.node = id;
  s.batch_id = b.id;
  ++s.attempts;
  reserve_into(filling.credit, s, filling.slope_s + (b.members.empty() ? filling.base_s : 0.0));
  b.shape.add(s.request.work);
  b.members.push_back(slot);
  ModelState& model = models_[b.model.value];
  model.tried[id.value / 64] |= std::uint64_t{1} << (id.value % 64);
  ++model.n_taken;
  if (by_tokens_ && s.request.prompt_tokens > 0) share_tokens(slot, id, b.opened_ns);
  const bool unheld = filling.unheld && s.entered_as == Reason::none;
  act(slot, ActionKind::dispatch, unheld ? Reason::overload : s.entered_as, id, b.id, b.shape.n_requests - 1);
  note_terms(now_ns, s.request, id);
}

/// Opens a batch of at most `n_max` where some might be late, or where it matters who goes with whom. If those who come
/// first of like work are in time, they are it; else the rule selects. Nobody joins it then who waits now: the rule saw
/// him, and left him out.
void StateMachine::choose(TimeNs now_ns, std::uint32_t index, NodeId id, Batch& b, std::uint32_t n_max) {
  Lane& lane = *lanes_[index];
  show(now_ns, index, id);
  if (shown_.empty()) return;
  const Pool pool = pool_of_sources();
  if (matters_who_joins(lane, pool, id)) keep_like(lane, id, n_max);
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
    std::fill_n(verdicts_.begin(), preferred(now_ns, lane, pool, id, n_max), batch::Verdict::take);
  } else {
    group_by_tenant(now_ns);
    const batch::Traffic traffic{.n_waiting = pool.n_waiting,
                                 .max_batch_size = models_[lane.model.value].config.max_batch_size,
                                 .arrivals_per_s = arrivals_per_s(now_ns),
                                 .capacity_per_s = capacity_per_s(now_ns, lane),
                                 .share = share_of_device(id)};
    batching_->select(now_ns, waiting_, n_max, traffic, latency, verdicts_);
    b.joins_from_seq = next_seq_;
  }
  Filling filling = filling_of(lane, id);
  for (std::uint32_t i = 0; i < n_shown; ++i) {
    const std::uint32_t slot = shown_[i];
    // Another lane's may have devices that the rule was not told of: its own turn says who of them is given up.
    if (verdicts_[i] == batch::Verdict::drop && slots_[slot].lane == index) shed(now_ns, slot, Reason::early_drop);
    if (verdicts_[i] != batch::Verdict::take || b.shape.n_requests == n_max) continue;
    const auto its = [&](const Source& source) { return source.lane == slots_[slot].lane; };
    Source& source = *std::find_if(sources_.begin(), sources_.end(), its);
    if (source.left == 0) continue;
    --source.left;
    take(now_ns, slot, id, b, filling);
  }
  if (filling.credit.inflight != 0 || filling.credit.reserved_ns != 0) fleet_.change_credit(id, filling.credit);
}

/// Of the first that wait, in the order of service, those that the device could still finish in time. Those that no
/// device can are shed; those that only another one can wait for it. One that must run alone is shown alone, once it
/// comes first.
void StateMachine::show(TimeNs now_ns, std::uint32_t index, NodeId id) {
  Lane& lane = *lanes_[index];
  list_first(now_ns);
  shown_.clear();
  waiting_.clear();
  late_here_.clear();
  for (const std::uint32_t slot : first_) {
    const Slot& s = slots_[slot];
    const contracts::Request& r = s.request;
    if (late_on(now_ns, lane.model, r, id)) {
      if (s.lane == index) late_here_.push_back(slot);
    } else if (!s.solo || shown_.empty()) {
      shown_.push_back(slot);
      waiting_.push_back(waiting_of(slot, now_ns));
      if (s.solo) break;
    }
  }
  NodeId first = id;
  for (const std::uint32_t slot : late_here_) {
    if (too_late(now_ns, lane, slots_[slot].request, first)) shed(now_ns, slot, Reason::deadline);
  }
}

batch::Waiting StateMachine::waiting_of(std::uint32_t slot, TimeNs now_ns) const noexcept {
  const contracts::Request& r = slots_[slot].request;
  return {r.deadline_ns, r.work, r.tier, is_aged(slot, now_ns), r.tenant};
}

/// In a tier each tenant's requests together, in the order in which their first ones stand.
void StateMachine::group_by_tenant(TimeNs now_ns) {
  const auto is_alike = [](const batch::Waiting& a, const batch::Waiting& b) {
    return a.aged == b.aged && (a.aged || (a.tier == b.tier && a.tenant == b.tenant));
  };
  const std::uint32_t tenant = waiting_[0].tenant;
  if (std::all_of(waiting_.begin(), waiting_.end(), [&](const auto& w) { return w.tenant == tenant; })) return;
  firsts_.clear();
  grouped_.clear();
  for (std::uint32_t i = 0; i < shown_.size(); ++i) {
    std::uint32_t group = 0;
    while (group < firsts_.size() && !is_alike(waiting_[firsts_[group]], waiting_[i])) ++group;
    if (group == firsts_.size()) firsts_.push_back(i);
    grouped_.push_back(std::uint64_t{group} << 32 | i);
  }
  std::sort(grouped_.begin(), grouped_.end());
  merged_.clear();
  for (const std::uint64_t one : grouped_) merged_.push_back(shown_[static_cast<std::uint32_t>(one)]);
  shown_.swap(merged_);
  for (std::size_t i = 0; i < shown_.size(); ++i) waiting_[i] = waiting_of(shown_[i], now_ns);
}

/// The first that wait in all sources, as they would stand in one lane.
void StateMachine::list_first(TimeNs now_ns) {
  constexpr std::uint32_t n_max = batch::BatchingPolicy::n_waiting_shown_max;
  std::array<std::uint32_t, sources_max> at{}, end{};
  first_.clear();
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    at[i] = static_cast<std::uint32_t>(first_.size());
    lanes_[sources_[i].lane]->queue.in_order(now_ns, order_scratch_, [&](std::uint32_t slot) {
      first_.push_back(slot);
      return first_.size() - at[i] < n_max;
    });
    end[i] = static_cast<std::uint32_t>(first_.size());
  }
  if (sources_.size() == 1) return;
  merged_.clear();
  while (merged_.size() < n_max) {
    std::size_t next = sources_.size();
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      if (at[i] < end[i] && (next == sources_.size() || goes_before(first_[at[i]], first_[at[next]], now_ns))) next = i;
    }
    if (next == sources_.size()) break;
    merged_.push_back(first_[at[next]++]);
  }
  first_.swap(merged_);
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

/// Seconds that the device would take for all that waits in a lane, in batches as full as may be.
double StateMachine::pending_s(const Lane& lane, NodeId id) const noexcept {
  const contracts::Curve& curve = latency_.at(lane.model, id).curve();
  const double n = lane.queue.size(), n_full = models_[lane.model.value].config.max_batch_size;
  const double slope_s = curve.per_request_s + (curve.per_work_s + curve.per_padded_work_s) * lane.work_mean();
  return std::max(std::max(1.0, n / n_full) * curve.base_s + slope_s * n, contracts::LatencyModel::service_s_min);
}

/// Of the device's time, what the lanes at hand have where all that wait for it take turns by how much they bring.
double StateMachine::share_of_device(NodeId id) {
  const Node& node = nodes_[id.value];
  competing_.clear();
  for (const ModelId model : node.models) {
    for (const std::uint32_t lane : models_[model.value].lanes) {
      if (fleet_.columns().carries(id.value, lanes_[lane]->require)) competing_.push_back(lane);
    }
  }
  competing_.insert(competing_.end(), node.bound_lanes.begin(), node.bound_lanes.end());
  std::sort(competing_.begin(), competing_.end());
  double own_s = 0.0, all_s = 0.0;
  for (const std::uint32_t lane : competing_) {
    if (lanes_[lane]->queue.size() == 0) continue;
    const double s = pending_s(*lanes_[lane], id);
    const auto is_it = [&](const Source& source) { return source.lane == lane; };
    all_s += s;
    if (std::any_of(sources_.begin(), sources_.end(), is_it)) own_s += s;
  }
  return own_s > 0.0 ? own_s / all_s : 1.0;
}

/// The batch that requests of the lane may still join; nullptr where there is none with room.
Batch* StateMachine::open_batch(Node& node, std::uint32_t lane) noexcept {
  const Lane& its = *lanes_[lane];
  const std::uint32_t max_batch_size = models_[its.model.value].config.max_batch_size;
  if (room_of(node) == 0) return nullptr;
  for (Batch& b : node.in_flight) {
    if (!b.open || b.model != its.model || b.shape.n_requests >= max_batch_size) continue;
    if (lanes_[b.lane]->bound != its.bound) continue;
    if (b.members.empty() || !slots_[b.members.front()].solo) return &b;
  }
  return nullptr;
}

}  // namespace infcore::engine
