// The door: who enters, in which form, and what makes room. Policies decide (queue/admission_policy.hpp); here is what
// they are shown of the engine, and what is done as they say.
#include <infcore/base/errors.hpp>
#include <infcore/engine/state_machine.hpp>

#include <algorithm>
#include <bit>
#include <limits>
#include <string>

namespace infcore::engine {
namespace {

/// Capacities are worked out anew after as long, and after as much for each node: a few tens of nanoseconds each.
constexpr TimeNs look_ns = 10'000'000, look_ns_per_node = 20'000;
/// What is taken of a new figure into a mean of the last ones.
constexpr double newest_share = 1.0 / 32.0;
/// A wait is overload from so many full batches on, or half of what requests have until their deadlines.
constexpr double batches_of_wait = 4.0, share_of_slack = 0.5;
/// That no node is in time is believed for this share of the best time, and no longer than a capacity: devices come
/// back, and runs end early.
constexpr double believed_share = 1.0 / 16.0;
/// A time is certain less as much of it as the spread says, at most half.
constexpr float tail_most = 0.5f;

}  // namespace

void StateMachine::set_up_door() {
  AdmissionState& door = door_;
  for (const std::string& name : config_.admission) {
    if (std::count(config_.admission.begin(), config_.admission.end(), name) > 1) {
      throw InvalidArgument("admission", name + " twice", "each policy once");
    }
    door.policies.push_back(queue::make_admission_policy(name, config_.max_models));
    const auto rows = queue::admission_policies();
    const bool is_step = std::find_if(rows.begin(), rows.end(), [&](auto& r) { return r.name == name; })->is_step;
    door.rung.push_back(is_step ? ++door.n_rungs : 0);
    if (is_step) door.step_names.push_back(name);
    if (name == "off_peak") door.off_peak_rung = door.n_rungs;
    door.by_best |= name == "infeasible";
    door.by_load |= name != "infeasible";
    door.learns |= name == "gradient";
    door.sheds |= name == "shed_last";
  }
  door.sheds |= config_.shed_lowest;
  if (!config_.tier_capacity.empty() && config_.tier_capacity.size() != config_.n_tiers) {
    throw InvalidArgument("tier_capacity", "of length " + std::to_string(config_.tier_capacity.size()),
                          "one for each of " + std::to_string(config_.n_tiers) + " tiers");
  }
  door.models.resize(config_.max_models);
  door.n_in_tier.resize(config_.n_tiers);
  if (door.sheds) door.lowest.resize(config_.n_tiers);
  if (door.sheds || door.off_peak_rung > 0) door.positions.resize(config_.max_requests);
  door.release.resize(config_.max_models);
}

/// Whether the request goes on, as the policies left it; false: it was refused or answered, and the action is there.
bool StateMachine::admit(TimeNs now_ns, contracts::Request& request, Entrance& entrance) {
  AdmissionState& door = door_;
  if (!door.by_load && request.deadline_ns == base::never_ns) return true;
  if (!models_[request.model.value].known || request.deadline_ns <= now_ns) return true;  // enqueue() says so
  queue::Arrival seen = seen_of(now_ns, request);
  const std::uint32_t asked_model = request.model.value;
  std::uint32_t rung = 0;
  if (door.by_load) {
    const double load = seen.goal_s > 0.0 ? seen.wait_s / seen.goal_s : 0.0;
    rung = door.models[asked_model].ladder.arrived(now_ns, load, seen.capacity_per_s, door.n_rungs);
  }
  for (std::size_t i = 0; i < door.policies.size(); ++i) {
    if (door.rung[i] > rung) continue;
    const queue::Verdict verdict = door.policies[i]->admit(seen);
    switch (verdict.entry) {
      case queue::Entry::admit:
        break;
      case queue::Entry::infeasible:
        doubt_load(now_ns, request);
        refuse(request, ActionKind::reject, Reason::infeasible, verdict.retry_after_s);
        return false;
      case queue::Entry::refuse:
        if (door.rung[i] == 0) door.models[asked_model].ladder.refused();
        refuse(request, ActionKind::reject, Reason::overload, verdict.retry_after_s);
        return false;
      case queue::Entry::stale:
        refuse(request, ActionKind::complete, Reason::stale, 0.0);
        return false;
      case queue::Entry::cheaper:
        if (Stats* stats = models_[request.model.value].stats.get()) ++stats->cheaper;
        request.model = models_[request.model.value].config.fallback;
        entrance.reason = Reason::cheaper;
        seen = seen_of(now_ns, request);
        break;
      case queue::Entry::defer:
        entrance.until_ns = verdict.until_ns;
        return true;
      case queue::Entry::displace:
        entrance.displaces = true;  // one for one: it adds to nobody's wait, and no further step is asked
        return true;
    }
  }
  return true;
}

/// It ends here, without ever having been one of ours.
void StateMachine::refuse(const contracts::Request& request, ActionKind kind, Reason reason, double hint_s) {
  Action action;
  action.cookie = request.cookie;
  action.kind = kind;
  action.reason = reason;
  action.hint_s = static_cast<float>(hint_s);
  actions_.push_back(action);
  Stats* stats = models_[request.model.value].stats.get();
  if (stats == nullptr) return;
  if (kind == ActionKind::reject) ++stats->rejected;
  if (reason == Reason::infeasible) ++stats->infeasible;
  if (reason == Reason::overload) ++stats->overloaded;
  if (reason == Reason::stale) ++stats->stale;
  if (reason == Reason::cached) ++stats->cached;
}

queue::Arrival StateMachine::seen_of(TimeNs now_ns, const contracts::Request& r) {
  AdmissionState& door = door_;
  AdmissionState::Model& model = door.models[r.model.value];
  queue::Arrival seen{.now_ns = now_ns,
                      .deadline_ns = r.deadline_ns,
                      .defer_ns = r.defer_ns,
                      .model = r.model.value,
                      .tier = r.tier,
                      .has_stale = r.has_stale,
                      .n_open = model.n_open};
  if (door.by_best && r.deadline_ns != base::never_ns) seen.best_s = best_s(now_ns, r);
  if (!door.by_load) return seen;
  model.work_mean += (r.work - model.work_mean) * (model.work_mean > 0.0 ? newest_share : 1.0);
  const double slack_s = r.deadline_ns == base::never_ns ? 0.0 : base::seconds(r.deadline_ns - now_ns);
  if (slack_s > 0.0) model.slack_s += (slack_s - model.slack_s) * (model.slack_s > 0.0 ? newest_share : 1.0);
  look(now_ns, r.model);
  seen.wait_s = wait_s(r.model);
  seen.goal_s = goal_s(model);
  seen.capacity_per_s = model.capacity_per_s;
  if (const ModelId fallback = models_[r.model.value].config.fallback;
      fallback != no_model && fallback.value < models_.size() && models_[fallback.value].known) {
    look(now_ns, fallback);
    seen.fallback_per_s = door.models[fallback.value].capacity_per_s;
    seen.fallback_wait_s = wait_s(fallback);
  }
  seen.first_tier = r.tier;
  for (std::uint16_t tier = 0; tier < r.tier; ++tier) {
    if (door.n_in_tier[tier] > 0) seen.first_tier = std::min(seen.first_tier, tier);
  }
  for (std::size_t tier = door.lowest.size(); tier-- > 0;) {
    if (door.lowest[tier].empty()) continue;
    const ModelId waits = slots_[door.lowest[tier].top()].request.model;
    const auto& sharers = model.sharers;
    if (std::find(sharers.begin(), sharers.end(), waits) != sharers.end()) {
      seen.last_tier = static_cast<std::uint16_t>(tier);
    }
    break;
  }
  return seen;
}

double StateMachine::goal_s(const AdmissionState::Model& model) const noexcept {
  if (model.capacity_per_s <= 0.0) return 0.0;
  if (config_.overload_wait_ns != base::never_ns) return base::seconds(config_.overload_wait_ns);
  const double goal = batches_of_wait * model.full_batch_s;
  return model.slack_s > 0.0 ? std::min(goal, share_of_slack * model.slack_s) : goal;
}

/// Until what was accepted for its devices is done, were each model's alone on all of its own.
double StateMachine::wait_s(ModelId id) const noexcept {
  double sum = 0.0;
  for (const ModelId sharer : door_.models[id.value].sharers) {
    const AdmissionState::Model& other = door_.models[sharer.value];
    if (other.capacity_per_s > 0.0) sum += other.n_open / other.capacity_per_s;
  }
  return sum;
}

TimeNs StateMachine::look_every_ns() const noexcept { return std::max(look_ns, look_ns_per_node * fleet_.n_nodes()); }

/// Brings a model's capacity up to date: of its devices that are up and whose curves somebody knows, in full batches.
void StateMachine::look(TimeNs now_ns, ModelId id) {
  AdmissionState::Model& model = door_.models[id.value];
  const auto& columns = fleet_.columns();
  const std::uint32_t n_nodes = fleet_.n_nodes(), n_words = (n_nodes + 63) / 64;
  const bool moved = model.membership != door_.membership;
  if (moved) {
    model.membership = door_.membership;
    model.sharers.assign(1, id);
    for (ModelId other{0}; other.value < n_models_; ++other.value) {
      std::uint64_t shared = 0;
      for (std::uint32_t word = 0; word < n_words && shared == 0; ++word) {
        shared = columns.resident(id.value, word).load(std::memory_order_relaxed) &
                 columns.resident(other.value, word).load(std::memory_order_relaxed);
      }
      if (other != id && shared != 0) model.sharers.push_back(other);
    }
  }
  if (!moved && model.looked_ns != AdmissionState::never_looked && now_ns - model.looked_ns < look_every_ns()) return;
  model.looked_ns = now_ns;
  const double n_full = models_[id.value].config.max_batch_size;
  double per_s = 0.0, fastest_s = std::numeric_limits<double>::infinity();
  for (std::uint32_t word = 0; word < n_words; ++word) {
    std::uint64_t left = columns.up(word).load(std::memory_order_relaxed) &
                         columns.resident(id.value, word).load(std::memory_order_relaxed);
    for (; left != 0; left &= left - 1) {
      const NodeId node{word * 64 + static_cast<std::uint32_t>(std::countr_zero(left))};
      const contracts::LatencyModel& latency = latency_.at(id, node);
      if (latency.n_observed() == 0 && !latency.has_prior()) continue;
      const contracts::Curve& c = latency.curve();
      const double slope_s = c.per_request_s + (c.per_work_s + c.per_padded_work_s) * model.work_mean;
      const double full_s = std::max(c.base_s + slope_s * n_full, contracts::LatencyModel::service_s_min);
      per_s += nodes_[node.value].slots * n_full / full_s;
      fastest_s = std::min(fastest_s, full_s);
    }
  }
  model.capacity_per_s = per_s;
  model.full_batch_s = per_s > 0.0 ? fastest_s : 0.0;
}

/// The least seconds in which any device could answer the request, given when each is free, where that is certain and
/// too long; else negative: some device may be in time, or there is none, or one that nobody knows yet. A node that was
/// in time before is asked first, and that none is, is believed for a while, so that few requests look at every node.
double StateMachine::best_s(TimeNs now_ns, const contracts::Request& r) {
  AdmissionState::Model& door = door_.models[r.model.value];
  const contracts::BatchColumns curves = latency_.batch(r.model);
  const float* const tail = latency_.single(r.model).tail;
  const auto& columns = fleet_.columns();
  const auto work = static_cast<float>(r.work);
  const double now_s = base::seconds(now_ns), left_s = base::seconds(r.deadline_ns - now_ns);
  const auto at_least_s = [&](std::uint32_t n) {
    const float free_in_s = has_open_batch(NodeId{n}) ? 0.0f : NodeFinish::free_in(free_at_s_[n], now_s);
    const float alone_s = NodeFinish::of(0.0f, curves, n, work).batch_s(1.0f);
    const auto least_s = static_cast<double>((free_in_s + alone_s) * (1.0f - std::min(tail[n], tail_most)));
    // Where many models share a node, what waits for the others is most of the wait.
    if (!residency_ || least_s + residency_->plan().backlog_s[n] <= left_s) return least_s;
    return least_s + ahead_s(now_ns, r, NodeId{n});
  };
  const auto candidates = [&](std::uint32_t word) {
    std::uint64_t passing = columns.up(word).load(std::memory_order_relaxed) &
                            columns.resident(r.model.value, word).load(std::memory_order_relaxed);
    for (std::uint64_t left = r.require; left != 0 && passing != 0; left &= left - 1) {
      passing &=
          columns.labelled(static_cast<std::uint32_t>(std::countr_zero(left)), word).load(std::memory_order_relaxed);
    }
    return passing;
  };
  const std::uint32_t n_words = (fleet_.n_nodes() + 63) / 64;
  const auto may_be_tried_now = [&](std::uint32_t n) {
    return may_be_tried(now_ns, r.model, NodeId{n}, NodeFinish::of(0.0f, curves, n, work).batch_s(1.0f));
  };
  if (door.witness / 64 < n_words && (candidates(door.witness / 64) >> (door.witness % 64) & 1) != 0 &&
      at_least_s(door.witness) <= left_s) {
    return -1.0;
  }
  if (now_ns < door.refusing_until_ns && r.deadline_ns < door.best_end_ns && r.work >= door.refusing_work &&
      r.require == door.refusing_require) {
    return base::seconds(door.best_end_ns - now_ns);
  }
  double best = std::numeric_limits<double>::infinity();
  for (std::uint32_t word = 0; word < n_words; ++word) {
    for (std::uint64_t left = candidates(word); left != 0; left &= left - 1) {
      const std::uint32_t n = word * 64 + static_cast<std::uint32_t>(std::countr_zero(left));
      const double least_s = at_least_s(n);
      if (least_s <= left_s || !latency_.at(r.model, NodeId{n}).is_trusted() || may_be_tried_now(n)) {
        door.witness = n;
        return -1.0;
      }
      best = std::min(best, least_s);
    }
  }
  if (residency_) best = std::min(best, cold_s(now_ns, r));
  if (best == std::numeric_limits<double>::infinity() || best <= left_s) return -1.0;
  door.best_end_ns = base::add_ns(now_ns, base::to_ns(best));
  door.refusing_until_ns = base::add_ns(now_ns, std::min(base::to_ns(believed_share * best), look_every_ns()));
  door.refusing_work = r.work;
  door.refusing_require = r.require;
  return best;
}

/// A batch's member was answered.
void StateMachine::answered(const Slot& s, const Batch& b, TimeNs now_ns, double service_s) noexcept {
  if (s.was_put_off || s.attempts > 1) return;  // its latency is not that of a queue
  const queue::Answered told{.model = b.model.value,
                             .n_open = door_.models[b.model.value].n_open,
                             .max_batch_size = models_[b.model.value].config.max_batch_size,
                             .latency_s = base::seconds(now_ns - s.request.arrival_ns),
                             .service_s = service_s};
  for (const auto& policy : door_.policies) policy->answered(told);
}

/// The rule would keep the device for a larger batch: it is asked again, with as little patience as the ladder leaves.
batch::Close StateMachine::shorter_close(TimeNs now_ns, Lane& lane, NodeId node, batch::Pending pending,
                                         batch::Close held) noexcept {
  const TimeNs configured_ns = pending.delay_ns_max;
  const std::uint32_t rung = door_.models[lane.model.value].ladder.rung();
  for (std::size_t i = 0; i < door_.policies.size(); ++i) {
    if (door_.rung[i] <= rung) pending.delay_ns_max = door_.policies[i]->batch_delay_ns(pending.delay_ns_max);
  }
  if (pending.delay_ns_max == configured_ns) return held;
  const batch::Close close = batching_->close(now_ns, pending, latency_.at(lane.model, node));
  lane.unheld = close.n_requests > 0;
  return close;
}

// ---- room

struct StateMachine::LowestFirst {
  StateMachine* machine;
  std::uint32_t& position(std::uint32_t slot) const noexcept { return machine->door_.positions[slot]; }
  /// Of equal deadlines the newest is given up.
  bool first(std::uint32_t a, std::uint32_t b) const noexcept {
    return machine->queue_slots_[a].seq > machine->queue_slots_[b].seq;
  }
};
struct StateMachine::SoonestFirst {
  StateMachine* machine;
  std::uint32_t& position(std::uint32_t slot) const noexcept { return machine->door_.positions[slot]; }
  bool first(std::uint32_t a, std::uint32_t b) const noexcept {
    return machine->queue_slots_[a].seq < machine->queue_slots_[b].seq;
  }
};

void StateMachine::waits(std::uint32_t slot) {
  queue::SlotHeap& heap = door_.lowest[slots_[slot].request.tier];
  if (!heap.make_room()) throw std::bad_alloc();
  heap.push(LowestFirst{this}, ~slots_[slot].request.deadline_ns, slot);  // ~x: the order of int64 turned round
}

void StateMachine::waits_no_more(std::uint32_t slot) noexcept {
  door_.lowest[slots_[slot].request.tier].remove(LowestFirst{this}, slot);
}

/// Room for the request, within all bounds, or none: then it is refused.
bool StateMachine::make_room(TimeNs now_ns, const contracts::Request& r, bool displaces) {
  const bool tier_full = !config_.tier_capacity.empty() && door_.n_in_tier[r.tier] >= config_.tier_capacity[r.tier];
  const bool full = tier_full || free_slots_.empty();
  if (!full && !displaces) return true;
  // enqueue() ends it at once: nobody is given up for that.
  if (r.deadline_ns <= now_ns || !models_[r.model.value].known) return !full;
  std::uint32_t from = r.tier;
  if (!tier_full) {
    from = static_cast<std::uint32_t>(door_.lowest.size());
    while (from > 0 && door_.lowest[from - 1].empty()) --from;
    from = from == 0 ? r.tier : from - 1;
  }
  const bool may = !full || config_.shed_lowest;
  const bool there = may && from < door_.lowest.size() && !door_.lowest[from].empty();
  const bool lower =
      there && (from > r.tier || (from == r.tier && full && ~door_.lowest[from].top_key() > r.deadline_ns));
  if (lower) {
    const std::uint32_t slot = door_.lowest[from].top();
    const ModelId model = slots_[slot].request.model;
    leave_lane(slot);
    hint_s_ = retry_after_s(now_ns, model);
    hint_s_ = std::max(hint_s_, wait_s(model));
    end(now_ns, slot, ActionKind::shed, Reason::displaced);
    hint_s_ = 0.0;
  }
  return lower || !full;
}

/// What queue_full says of when to try again: until one of those that are open is done.
double StateMachine::retry_after_s(TimeNs now_ns, ModelId model) {
  look(now_ns, model);
  const double per_s = door_.models[model.value].capacity_per_s;
  return per_s > 0.0 ? std::max(1.0 / per_s, queue::retry_after_s_min) : queue::retry_after_s_min;
}

// ---- put off

void StateMachine::put_off(TimeNs now_ns, std::uint32_t slot, TimeNs until_ns) {
  Slot& s = slots_[slot];
  const std::uint32_t model = s.request.model.value;
  queue::SlotHeap& heap = door_.models[model].deferred;
  if (!heap.make_room()) throw std::bad_alloc();
  s.where = Where::put_off;
  --door_.models[model].n_open;  // it is nobody's load yet
  s.was_put_off = true;
  s.deferred_until_ns = until_ns;
  hint_s_ = base::seconds(until_ns - now_ns);
  act(slot, ActionKind::defer, Reason::off_peak, base::no_node);
  hint_s_ = 0.0;
  heap.push(SoonestFirst{this}, until_ns, slot);
  door_.release.set(model, std::min(until_ns, base::add_ns(now_ns, queue::AdmissionLadder::period_ns)));
  if (s.entered_as == Reason::none) s.entered_as = Reason::off_peak;
  ++models_[model].stats->deferred;
}

void StateMachine::leave_put_off(std::uint32_t slot) noexcept {
  AdmissionState::Model& model = door_.models[slots_[slot].request.model.value];
  model.deferred.remove(SoonestFirst{this}, slot);
  ++model.n_open;
}

/// Lets in whose time is up, and where the load has gone as many as half of the devices' time takes.
void StateMachine::release_put_off(TimeNs now_ns) {
  while (door_.release.next_ns() <= now_ns) {
    const ModelId id{door_.release.pop()};
    AdmissionState::Model& model = door_.models[id.value];
    look(now_ns, id);
    const bool calm = model.ladder.settle(now_ns, door_.n_rungs) < door_.off_peak_rung;
    double n_more = calm ? 1.0 + 0.5 * model.capacity_per_s * base::seconds(queue::AdmissionLadder::period_ns) : 0.0;
    while (!model.deferred.empty()) {
      const bool due = model.deferred.top_key() <= now_ns;
      if (!due && (n_more < 1.0 || (model.goal_reached(wait_s(id), goal_s(model))))) break;
      if (!due) n_more -= 1.0;
      const std::uint32_t slot = model.deferred.top();
      leave_put_off(slot);
      enqueue(now_ns, slot);
    }
    if (model.deferred.empty()) continue;
    door_.release.set(id.value,
                      std::min(model.deferred.top_key(), base::add_ns(now_ns, queue::AdmissionLadder::period_ns)));
  }
}

void StateMachine::reject_put_off(TimeNs now_ns, ModelId id) {
  queue::SlotHeap& heap = door_.models[id.value].deferred;
  while (!heap.empty()) {
    const std::uint32_t slot = heap.top();
    leave_put_off(slot);
    end(now_ns, slot, ActionKind::reject, Reason::unloaded);
  }
}

AdmissionFigures StateMachine::admission_figures(TimeNs now_ns, ModelId id) {
  AdmissionState::Model& model = door_.models[id.value];
  const AdmissionState::Look as_it_was = model;
  AdmissionFigures figures;
  queue::AdmissionLadder as_of_now = model.ladder;
  figures.rung = as_of_now.settle(now_ns, door_.n_rungs);
  figures.n_open = model.n_open;
  figures.n_put_off = model.deferred.size();
  figures.retry_after_s = retry_after_s(now_ns, id);
  figures.wait_s = wait_s(id);
  static_cast<AdmissionState::Look&>(model) = as_it_was;  // being asked is in no log: no decision may come of it
  figures.limit = std::numeric_limits<double>::infinity();
  for (const auto& policy : door_.policies) figures.limit = std::min(figures.limit, policy->limit(id.value));
  return figures;
}

}  // namespace infcore::engine
