#include <infcore/base/errors.hpp>
#include <infcore/engine/state_machine.hpp>

#include <algorithm>
#include <string>
#include <utility>

namespace infcore::engine {
namespace {

/// Sets of labels per model that keep a queue of their own while nothing waits there.
constexpr std::size_t joint_lanes_kept = 32;

/// What is taken back because its deadline passed was not its caller's wish.
constexpr ActionKind ending(Reason reason) noexcept {
  return reason == Reason::deadline ? ActionKind::shed : ActionKind::cancel;
}

constexpr RequestHandle handle_of(std::uint32_t slot, std::uint32_t generation) noexcept {
  return (static_cast<RequestHandle>(generation) << 32) | slot;
}

}  // namespace

StateMachine::StateMachine(const EngineConfig& config, route::Fleet& fleet, contracts::LatencyTable& latency,
                           std::unique_ptr<route::RoutingPolicy> routing,
                           std::unique_ptr<batch::BatchingPolicy> batching)
    : config_(config),
      fleet_(fleet),
      latency_(latency),
      view_(fleet, latency),
      routing_(std::move(routing)),
      batching_(std::move(batching)),
      queue_slots_(config.max_requests),
      slots_(config.max_requests),
      nodes_(config.max_nodes),
      models_(config.max_models),
      free_at_s_(std::size_t{fleet.columns().n_words()} * 64, free_now),
      weights_(routing_->joint()),
      usd_per_s_(free_at_s_.size()),
      has_free_slot_(fleet.columns().n_words()),
      bounded_(has_free_slot_.size()),
      many_slots_(has_free_slot_.size()),
      candidates_(has_free_slot_.size()),
      free_candidates_(has_free_slot_.size()),
      others_(has_free_slot_.size()),
      further_(has_free_slot_.size()),
      by_tokens_(routing_->reads_blocks() && !routing_->binds_on_arrival()) {
  if (config.max_requests == 0) throw InvalidArgument("max_requests", "0", "1 or more");
  free_slots_.reserve(config.max_requests);
  for (std::uint32_t slot = config.max_requests; slot-- > 0;) free_slots_.push_back(slot);
  actions_.reserve(config.max_requests);
  view_.never_loads();
  timers_.resize(config.max_nodes);
  tokens_.resize(config.max_nodes);
  if (routing_->reads_blocks() && routing_->binds_on_arrival()) {
    prefixes_ =
        std::make_unique<route::PrefixIndex>(route::PrefixConfig{.max_nodes = fleet.max_nodes(), .approximate = true});
    view_.use_prefix(prefixes_.get());
  }
  constexpr std::size_t n_shown_max = batch::BatchingPolicy::n_waiting_shown_max;
  for (auto* scratch : {&shown_, &late_here_, &firsts_}) scratch->reserve(n_shown_max);
  grouped_.reserve(n_shown_max);
  for (auto* scratch : {&first_, &merged_}) scratch->reserve(sources_max * n_shown_max);
  sources_.reserve(sources_max);
  waiting_.reserve(n_shown_max);
  works_.reserve(n_shown_max);
  verdicts_.reserve(n_shown_max);
  routing_->attach(fleet);
  set_up_door();
  set_up_health();
  set_up_residency();
  if (config.hedge_quantile <= 0.0) return;
  hedging_.copies.resize(config.max_requests);
  hedging_.looks.resize(config.max_nodes);
}

// ---- events

RequestHandle StateMachine::arrive(TimeNs now_ns, const contracts::Request& asked) {
  if (asked.is_cached) {
    refuse(asked, ActionKind::complete, Reason::cached, 0.0);
    return 0;
  }
  contracts::Request request = asked;
  Entrance entrance;
  if (!door_.policies.empty() && !admit(now_ns, request, entrance)) return 0;
  if (!make_room(now_ns, request, entrance.displaces)) {
    refuse(asked, ActionKind::reject, Reason::queue_full, retry_after_s(now_ns, asked.model));
    return 0;
  }
  const std::uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  Slot& s = slots_[slot];
  s.request = request;
  s.failed_on = base::no_node;
  s.attempts = 0;
  s.solo = s.doomed = s.charged = s.was_put_off = s.has_first_token = false;
  s.entered_as = entrance.reason;
  ++n_pending_;
  earn_budgets(models_[request.model.value]);
  if (residency_) residency_->asked(request.model, now_ns);
  ++door_.models[request.model.value].n_open;
  ++door_.n_in_tier[request.tier];
  queue::QueueSlot& queued = queue_slots_[slot];
  queued.deadline_ns = request.deadline_ns;
  queued.arrival_ns = request.arrival_ns;
  queued.seq = next_seq_++;
  queued.tier = request.tier;
  queued.tenant = request.tenant;
  const RequestHandle handle = handle_of(slot, s.generation);  // enqueue may end it at once
  if (entrance.until_ns == 0) {
    enqueue(now_ns, slot);
  } else {
    put_off(now_ns, slot, entrance.until_ns);
  }
  return handle;
}

bool StateMachine::cancel(TimeNs now_ns, RequestHandle handle, Reason reason) {
  const auto slot = static_cast<std::uint32_t>(handle);
  if (slot >= slots_.size()) return false;
  Slot& s = slots_[slot];
  if (s.where == Where::free || s.generation != handle >> 32) return false;
  if (s.where == Where::waiting || s.where == Where::put_off) {
    if (s.where == Where::waiting) {
      leave_lane(slot);
      look_for_loads();  // what was loaded for him may go now
    } else {
      leave_put_off(slot);
    }
    end(now_ns, slot, ending(reason), reason);
    return true;
  }
  if (has_copy(slot)) drop_copy(slot);  // then the first one runs, and it ends at once
  for (Batch& b : nodes_[s.node.value].in_flight) {
    const auto member = std::find(b.members.begin(), b.members.end(), slot);
    if (b.id != s.batch_id || member == b.members.end()) continue;
    if (b.open) {
      leave_open(b, member);
      occupancy_changed(s.node);
    } else if (b.running) {
      *member = vacated;
    } else {  // its inputs are being copied: it ends when that is over, see started()
      if (s.doomed) return false;
      s.doomed = true;
      s.doomed_reason = reason;
      return true;
    }
    end(now_ns, slot, ending(reason), reason);
    return true;
  }
  return false;
}

void StateMachine::cancel_all(TimeNs now_ns, Reason reason) {
  for (std::uint32_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot].where != Where::free) cancel(now_ns, handle_of(slot, slots_[slot].generation), reason);
  }
}

const Batch* StateMachine::claim(TimeNs now_ns, NodeId id) {
  Node& node = nodes_[id.value];
  for (auto it = node.in_flight.begin(); it != node.in_flight.end(); ++it) {
    if (!it->open) continue;
    close_door(*it, id);
    if (it->members.empty()) {
      keep_members(*it);
      node.in_flight.erase(it);
      node.free_since_ns = now_ns;
      occupancy_changed(id);
      mark_node(id);
      return nullptr;
    }
    it->open = false;
    it->start_ns = now_ns;
    return &*it;
  }
  return nullptr;
}

void StateMachine::started(TimeNs now_ns, NodeId id, std::uint64_t batch_id) {
  Node& node = nodes_[id.value];
  const auto it = find_batch(node, batch_id);
  if (it == node.in_flight.end()) return;
  const route::NodeState state = fleet_.state(id);
  if (state == route::NodeState::lost || state == route::NodeState::absent) {
    Batch b = std::move(*it);
    node.in_flight.erase(it);
    occupancy_changed(id);
    return give_up(now_ns, b, Reason::device_lost);
  }
  Batch& b = *it;
  b.running = true;
  b.start_ns = now_ns;
  b.beside = node.occupied;
  b.expected_end_ns = base::add_ns(now_ns, base::to_ns(latency_.at(b.model, id).service_s(learned_shape(b))));
  occupancy_changed(id);
  if (residency_) residency_->used(id, b.model);
  timers_.set(id.value, base::add_ns(now_ns, node.run_limit_ns));
  for (std::uint32_t& member : b.members) {
    if (member == vacated || !slots_[member].doomed) continue;
    const Reason reason = slots_[member].doomed_reason;
    end(now_ns, std::exchange(member, vacated), ending(reason), reason);
  }
  watch(now_ns, id, b);
}

bool StateMachine::complete(TimeNs now_ns, NodeId id, std::uint64_t batch_id, bool ok) {
  Node& node = nodes_[id.value];
  const auto it = find_batch(node, batch_id);
  if (it == node.in_flight.end()) return false;
  Batch b = std::move(*it);
  node.in_flight.erase(it);
  node.free_since_ns = now_ns;
  occupancy_changed(id);
  const double service_s = base::seconds(now_ns - b.start_ns);
  ModelState& model = models_[b.model.value];
  for (const std::uint32_t slot : b.members)
    if (slot != vacated) __builtin_prefetch(&slots_[slot]);  // cold by now; learning takes as long as they do to come
  if (!hedging_.copies.empty()) learn_lateness(b, id, now_ns);
  tell_health(now_ns, id, b, service_s, ok);
  if (ok) latency_.observe(b.model, id, learned_shape(b), service_s);
  Stats* const both[] = {model.stats.get(), node.stats.get()};
  for (Stats* stats : both) {
    ++stats->batches;
    stats->busy_s += service_s;
    stats->work += b.shape.work_sum;
  }
  // One change of the node's credit for all; a retry looks at credit, so before one each is released by itself.
  contracts::Credit credit{};
  for (std::uint32_t i = 0; i < b.members.size(); ++i) {
    const std::uint32_t slot = b.members[i];
    if (slot == vacated) continue;
    Slot& s = slots_[slot];
    if (s.doomed) {  // it ended before it was started()
      end(now_ns, slot, ending(s.doomed_reason), s.doomed_reason);
      continue;
    }
    for (Stats* stats : both) {
      if (stats->stages) record(*stats->stages, b, s.request, service_s);
    }
    if (ok) {
      if (has_copy(slot)) outran(slot, b);
      if (s.solo) model.retries.give_back();
      if (door_.learns) answered(s, b, now_ns, service_s);
      unreserve_into(credit, s);
      end(now_ns, slot, ActionKind::complete, Reason::ok, i);
    } else if (goes_on(now_ns, slot, b, Reason::device_failed)) {
      continue;
    } else if (model.config.idempotent && b.members.size() > 1 && may_retry(b.model)) {
      retry(now_ns, slot, true, Reason::device_failed);
    } else if (model.config.idempotent && b.members.size() == 1 && to_be_tried_elsewhere(s, id) && may_retry(b.model)) {
      try_elsewhere(now_ns, slot, id);
    } else {
      end(now_ns, slot, ActionKind::complete, Reason::device_failed, i);
    }
  }
  if (credit.inflight != 0) fleet_.change_credit(id, credit);
  keep_members(b);
  mark_node(id);
  if (fleet_.state(id) == route::NodeState::lost) node_back(now_ns, id);  // it has just answered
  settle_health(now_ns);
  return true;
}

void StateMachine::first_token(TimeNs now_ns, NodeId id, std::uint64_t batch_id) {
  Node& node = nodes_[id.value];
  const auto it = find_batch(node, batch_id);
  if (it == node.in_flight.end()) return;
  for (const std::uint32_t slot : it->members) {
    if (slot == vacated) continue;
    tokens_.first_token(now_ns, it->model, id, slots_[slot].share);  // of each run, once more after a loss
    if (std::exchange(slots_[slot].has_first_token, true)) continue;
    const TimeNs ttft_ns = std::max<TimeNs>(0, now_ns - slots_[slot].request.arrival_ns);
    for (Stats* stats : {models_[it->model.value].stats.get(), node.stats.get()}) {
      if (stats->stages) stats->stages->ttft_s.record_ns(ttft_ns);
    }
  }
}

void StateMachine::progress(TimeNs now_ns, NodeId id) { nodes_[id.value].progress_ns = now_ns; }

void StateMachine::record(StageHistograms& to, const Batch& b, const contracts::Request& r, double service_s) noexcept {
  to.queue_s.record_ns(b.opened_ns > r.arrival_ns ? b.opened_ns - r.arrival_ns : 0);
  to.batch_wait_s.record_ns(b.start_ns - std::max(b.opened_ns, r.arrival_ns));
  to.service_s.record(service_s);
}

void StateMachine::tick(TimeNs now_ns) {
  settle_health(now_ns);
  release_put_off(now_ns);
  while (timers_.next_ns() <= now_ns) {
    const std::uint32_t owner = timers_.pop();
    if (owner < nodes_.size()) {
      check_run_limit(now_ns, NodeId{owner});
      continue;
    }
    const std::uint32_t index = owner - config_.max_nodes;
    Lane& lane = *lanes_[index];
    expire(now_ns, lane);
    mark(index);
    set_lane_timer(index, lane.queue.next_deadline_ns());
  }
  look_at_late(now_ns);
}

void StateMachine::check_run_limit(TimeNs now_ns, NodeId id) {
  const Node& node = nodes_[id.value];
  TimeNs next_ns = base::never_ns;
  if (residency_) {
    next_ns = forgive_loads(now_ns, id);
    if (residency_->node(id) != nullptr) next_ns = std::min(next_ns, load_limit_ns(id));
    look_for_loads();
  }
  for (const Batch& b : node.in_flight) {
    if (!b.running) continue;
    next_ns = std::min(next_ns, base::add_ns(std::max(b.start_ns, node.progress_ns), node.run_limit_ns));
  }
  if (next_ns <= now_ns) {
    node_lost(now_ns, id);
  } else {
    timers_.set(id.value, next_ns);
  }
}

// ---- what events share

std::uint32_t StateMachine::lane_for(const contracts::Request& request, NodeId bound) {
  const bool joint = bound == base::no_node;
  std::vector<std::uint32_t>& lanes = joint ? models_[request.model.value].lanes : nodes_[bound.value].bound_lanes;
  for (const std::uint32_t lane : lanes) {
    if (lanes_[lane]->model == request.model && (!joint || lanes_[lane]->require == request.require)) return lane;
  }
  if (lanes.size() >= joint_lanes_kept && joint) {
    const auto idle = std::find_if(lanes.begin(), lanes.end(), [&](auto l) { return lanes_[l]->queue.size() == 0; });
    if (idle != lanes.end()) {
      // A batch of the former labels that is still open is no matter: a node is asked for the lane's present ones.
      lanes_[*idle]->require = request.require;
      lanes_[*idle]->rate = {};
      lanes_[*idle]->capacity_until_ns = std::numeric_limits<TimeNs>::min();
      return *idle;
    }
  }
  const auto lane = static_cast<std::uint32_t>(lanes_.size());
  lanes_.push_back(std::make_unique<Lane>(Lane{.model = request.model,
                                               .require = joint ? request.require : 0,
                                               .bound = bound,
                                               .queue = {queue_slots_, config_.n_tiers, config_.ageing_ns}}));
  lanes.push_back(lane);
  timers_.resize(config_.max_nodes + lane + 1);
  if (residency_) residency_->plan().waiting.resize(lane / 64 + 1);
  return lane;
}

void StateMachine::enqueue(TimeNs now_ns, std::uint32_t slot, NodeId bound) {
  Slot& s = slots_[slot];
  const contracts::Request& r = s.request;
  s.bound_ns = base::never_ns;
  if (!models_[r.model.value].known) return end(now_ns, slot, ActionKind::reject, Reason::unloaded);
  if (r.deadline_ns <= now_ns) return end(now_ns, slot, ActionKind::shed, Reason::deadline);
  if (routing_->binds_on_arrival()) {
    // With no device for it, it waits in the joint lane until bind_from() finds one.
    if (bound == base::no_node) bound = choose_node(now_ns, r);
    if (bound != base::no_node) {
      contracts::BatchShape alone;
      alone.add(r.work);
      s.node = bound;
      s.bound_ns = now_ns;
      reserve(s, latency_.at(r.model, bound).service_s(alone));
    }
  }
  s.where = Where::waiting;
  s.lane = lane_for(r, bound);
  Lane& lane = *lanes_[s.lane];
  if (!lane.queue.push(slot)) return end(now_ns, slot, ActionKind::shed, Reason::queue_full);  // out of memory
  const bool is_first = lane.queue.size() == 1;
  lane.work_pending += r.work;
  lane.work_least = is_first ? r.work : std::min(lane.work_least, r.work);
  lane.work_most = is_first ? r.work : std::max(lane.work_most, r.work);
  if (s.attempts == 0) lane.rate.add(now_ns);
  if (residency_) residency_->waits(s.lane, r);
  if (s.attempts == 0) ++lane.n_untold;
  if (door_.sheds) waits(slot);
  set_lane_timer(s.lane, r.deadline_ns);
  mark(s.lane);
}

void StateMachine::end(TimeNs now_ns, std::uint32_t slot, ActionKind kind, Reason reason, std::uint32_t member) {
  Slot& s = slots_[slot];
  act(slot, kind, reason, s.node, s.batch_id, member);
  tell_policy(now_ns, s, reason);
  if (kind != ActionKind::complete && s.holds_credit && routing_->binds_on_arrival()) mark_node(s.node);
  unreserve(s);
  leave_tokens(s);
  const double latency_s = base::seconds(now_ns - s.request.arrival_ns);
  Stats* stats[] = {models_[s.request.model.value].stats.get(),
                    s.node == base::no_node ? nullptr : nodes_[s.node.value].stats.get()};
  for (Stats* to : stats) {
    if (to == nullptr) continue;
    to->count(reason);
    if (reason == Reason::ok && to->stages) to->stages->latency_s.record(latency_s);
  }
  s.where = Where::free;
  s.node = base::no_node;
  s.batch_id = 0;
  ++s.generation;
  free_slots_.push_back(slot);
  --n_pending_;
  --door_.models[s.request.model.value].n_open;
  --door_.n_in_tier[s.request.tier];
}

void StateMachine::retry(TimeNs now_ns, std::uint32_t slot, bool solo, Reason reason, NodeId bound) {
  Slot& s = slots_[slot];
  if (s.doomed) return end(now_ns, slot, ending(s.doomed_reason), s.doomed_reason);
  act(slot, ActionKind::retry, reason, s.node, s.batch_id);
  ++models_[s.request.model.value].stats->retried;
  ++nodes_[s.node.value].stats->retried;
  tell_policy(now_ns, s, reason);
  unreserve(s);
  leave_tokens(s);
  s.node = base::no_node;
  s.batch_id = 0;
  s.solo = solo;
  enqueue(now_ns, slot, bound);
}

/// What a balancer in front of the node would see: an answer, an error, a lost connection, a deadline that passed. Not
/// what we took back ourselves: cancels, what was bound to a node that went away.
void StateMachine::tell_policy(TimeNs now_ns, Slot& s, Reason reason) noexcept {
  const TimeNs bound_ns = std::exchange(s.bound_ns, base::never_ns);
  const bool seen = reason == Reason::ok || reason == Reason::device_failed || reason == Reason::device_lost ||
                    reason == Reason::deadline;
  if (bound_ns == base::never_ns || !seen) return;
  const double latency_s = base::seconds(std::max<TimeNs>(0, now_ns - bound_ns));
  routing_->observe({s.node, s.request.model, now_ns, latency_s, reason == Reason::ok});
}

void StateMachine::leave_lane(std::uint32_t slot, std::int64_t units) {
  Lane& lane = *lanes_[slots_[slot].lane];
  if (door_.sheds) waits_no_more(slot);
  lane.queue.serve(slot, units);
  lane.work_pending -= slots_[slot].request.work;
  if (lane.queue.size() == 0) lane.work_pending = 0.0;  // what rounding left of it
}

void StateMachine::expire(TimeNs now_ns, Lane& lane) {
  for (;;) {
    const std::uint32_t slot = lane.queue.next_to_expire();
    if (slot == queue::no_slot) return;
    if (slots_[slot].request.deadline_ns > now_ns) return;
    leave_lane(slot);
    look_for_loads();
    end(now_ns, slot, ActionKind::shed, Reason::deadline);
  }
}

void StateMachine::mark(std::uint32_t lane) {
  if (lanes_[lane]->queue.size() == 0 || std::exchange(lanes_[lane]->dirty, true)) return;
  dirty_.push_back(lane);
}

void StateMachine::act(std::uint32_t slot, ActionKind kind, Reason reason, NodeId node, std::uint64_t batch_id,
                       std::uint32_t member) {
  actions_.push_back(
      {slots_[slot].request.cookie, batch_id, node, member, kind, reason, slot, static_cast<float>(hint_s_)});
}

std::vector<Batch>::iterator StateMachine::find_batch(Node& node, std::uint64_t id) noexcept {
  return std::find_if(node.in_flight.begin(), node.in_flight.end(), [=](const Batch& b) { return b.id == id; });
}

std::vector<NodeId>& StateMachine::open_nodes_of(Lane& lane) noexcept {
  return lane.bound == base::no_node ? models_[lane.model.value].open_nodes : lane.open_nodes;
}

/// Nobody joins the batch any more.
void StateMachine::close_door(const Batch& b, NodeId id) {
  std::vector<NodeId>& open_nodes = open_nodes_of(*lanes_[b.lane]);
  open_nodes.erase(std::find(open_nodes.begin(), open_nodes.end(), id));
}

/// The batch is over: the next one need not allocate.
void StateMachine::keep_members(Batch& b) {
  b.members.clear();
  spare_members_.push_back(std::move(b.members));
}

bool StateMachine::has_open_batch(NodeId id) const noexcept {
  const std::vector<Batch>& in_flight = nodes_[id.value].in_flight;
  return std::any_of(in_flight.begin(), in_flight.end(), [](const Batch& b) { return b.open; });
}

}  // namespace infcore::engine
