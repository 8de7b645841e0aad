// What the door is told where the engine decides what is loaded (load_plan.cpp): when a node that holds no such model
// could answer, and what nodes have to do before. Many models share a node there, so what waits for the others is most
// of a request's wait.
#include <infcore/engine/state_machine.hpp>

#include <algorithm>
#include <bit>
#include <limits>

namespace infcore::engine {
namespace {

constexpr double never_cold_s = std::numeric_limits<double>::infinity();
/// Who comes later rides along in the batches of those that come before, which then take so many times as long. From
/// thousand-models: 1.2, 1.35 and 1.5 leave 95.3, 95.7 and 95.4 % in time at 2,000 requests a second, and let .24, .09
/// and .01 of a hundred in that miss it; 1 leaves 94.4 and lets 5 miss it.
constexpr double rides_along = 1.35;
/// Of one lane's, in looking at what comes before a request.
constexpr std::uint32_t n_counted_max = 64;

}  // namespace

bool StateMachine::has_free(NodeId id) const noexcept {
  return (has_free_slot_[id.value / 64] >> (id.value % 64) & 1u) != 0;
}

/// What a load takes: as measured, where the engine decides what is loaded, else as told.
double StateMachine::load_s(ModelId model, double told_s) const noexcept {
  return residency_ ? residency_->load_s(model) : told_s;
}

/// What the node has to do before it, of what waits: an equal share, as in add_backlog().
double StateMachine::ahead_s(TimeNs now_ns, const contracts::Request& r, NodeId id) {
  const Residency::Plan& plan = residency_->plan();
  const bool all_before = r.tier >= plan.tier_most && r.deadline_ns >= plan.deadline_ns_most;
  if (all_before) return rides_along * plan.backlog_s[id.value];
  double sum_s = 0.0;
  for (const std::uint32_t index : plan.lanes) {
    Lane& lane = *lanes_[index];
    if (lane.queue.size() == 0 || lane.bound != base::no_node) continue;
    const bool is_there = fleet_.resident(id, lane.model);
    const std::uint32_t n_there = n_for(lane, true);
    if (!is_there && (n_there > 0 || !residency_->hosts(id, lane.model))) continue;
    std::uint32_t n_before = 0;
    lane.queue.in_order(now_ns, order_scratch_, [&](std::uint32_t slot) {
      const contracts::Request& its = slots_[slot].request;
      if (its.tier > r.tier || (its.tier == r.tier && its.deadline_ns > r.deadline_ns)) return false;
      return ++n_before < n_counted_max;
    });
    if (n_before == 0) continue;
    const NodeFinish finish =
        NodeFinish::of(0.0f, latency_.batch(lane.model), id.value, static_cast<float>(lane.work_mean()));
    const std::uint32_t max_batch_size = models_[lane.model.value].config.max_batch_size;
    const std::uint32_t n_full = (n_before + max_batch_size - 1) / max_batch_size * max_batch_size;
    sum_s += (batches_s(finish, std::min(n_full, lane.queue.size()), max_batch_size) + in_turn_load_s(id, lane.model)) /
             std::max(1u, is_there ? n_there : n_for(lane, false));
  }
  return rides_along * sum_s / std::max(1u, nodes_[id.value].slots);
}

/// Of the nodes that would have to load its model first, or of `only` that one: the least seconds in which one could
/// answer the request; `ahead`: seconds of loads that come before. With it, also after what those nodes have to do
/// before.
Residency::Cold StateMachine::cold_of(TimeNs now_ns, const contracts::Request& r, NodeId only, double ahead) {
  const contracts::BatchColumns curves = latency_.batch(r.model);
  const double load_s = residency_->load_s(r.model), now_s = base::seconds(now_ns);
  Residency::Cold cold{.least_s = never_cold_s};
  for (std::uint32_t word = 0; word < (fleet_.n_nodes() + 63) / 64; ++word) {
    std::uint64_t able = fleet_.columns().up(word).load(std::memory_order_relaxed) & residency_->allowed(r.model, word);
    able &= ~fleet_.columns().resident(r.model.value, word).load(std::memory_order_relaxed);
    for (std::uint64_t left = able; left != 0; left &= left - 1) {
      const NodeId id{word * 64 + static_cast<std::uint32_t>(std::countr_zero(left))};
      const Residency::NodeLoads& loads = *residency_->node(id);
      if ((only != base::no_node && id != only) || !fleet_.columns().carries(id.value, r.require)) continue;
      if (residency_->model(r.model).weights_bytes > loads.memory.capacity_bytes()) continue;
      ++cold.n_able;
      // It is not asked for before, where it has just failed.
      const double failed_s = std::max(0.0, base::seconds(loads.failed_until_ns(r.model)) - now_s);
      if (!latency_.at(r.model, id).is_trusted()) cold.least_s = std::min(cold.least_s, failed_s);
      const double alone_s =
          static_cast<double>(NodeFinish::of(0.0f, curves, id.value, static_cast<float>(r.work)).batch_s(1.0f));
      const double left_s =
          std::max(failed_s, loads.is_loading() ? base::seconds(loads.expected_end_ns) - now_s : failed_s);
      double begin_s = left_s + (loads.loading == r.model ? 0.0 : load_s + ahead);
      if (ahead > 0.0 && begin_s + alone_s < cold.least_s) {
        const double runs_s = ahead_s(now_ns, r, id);
        const double free_s =
            has_free(id) ? 0.0 : static_cast<double>(NodeFinish::free_in(free_at_s_[id.value], now_s));
        // In turn with its runs, all that comes before: what is ahead there has the loads in it.
        begin_s = loads.beside_runs ? std::max(begin_s, free_s + runs_s)
                                    : std::max(failed_s, free_s + runs_s) + (loads.loading == r.model ? 0.0 : load_s);
      }
      cold.least_s = std::min(cold.least_s, begin_s + alone_s);
    }
  }
  return cold;
}

/// After a request was refused: whether it would not have been, had its load taken no time.
void StateMachine::doubt_load(TimeNs now_ns, const contracts::Request& r) {
  if (!residency_ || n_holding(r.model) > 0) return;
  const double left_s = base::seconds(r.deadline_ns - now_ns), load_s = residency_->load_s(r.model);
  const Residency::Cold cold = cold_of(now_ns, r, base::no_node, 0.0);
  if (cold.n_able > 0 && cold.least_s > left_s && cold.least_s - load_s <= left_s) residency_->doubt(r.model, now_ns);
}

/// Likewise, after those that wait for a load and come before it; of a model that others hold, after all of them. +inf:
/// there is no such node.
double StateMachine::cold_s(TimeNs now_ns, const contracts::Request& r) {
  std::uint32_t n_able = 0;
  for (std::uint32_t word = 0; word < (fleet_.n_nodes() + 63) / 64; ++word) {
    const std::uint64_t up = fleet_.columns().up(word).load(std::memory_order_relaxed);
    n_able += static_cast<std::uint32_t>(std::popcount(up & residency_->hosts(r.model, word)));
  }
  double ahead = 0.0;
  const bool is_further = n_holding(r.model) > 0;
  for (const std::uint32_t index : residency_->plan().lanes) {
    const Lane& lane = *lanes_[index];
    const std::uint32_t head = lane.queue.front(now_ns);
    if (head == queue::no_slot || lane.model == r.model || n_holding(lane.model) > 0) continue;
    const contracts::Request& its = slots_[head].request;
    const bool is_before = its.tier < r.tier || (its.tier == r.tier && its.deadline_ns <= r.deadline_ns);
    if (is_further || is_before) ahead += residency_->load_s(lane.model);
  }
  constexpr double least_ahead_s = 1e-9;  // it is asked what is ahead, and be it nothing
  return cold_of(now_ns, r, base::no_node, std::max(least_ahead_s, ahead / std::max(1u, n_able))).least_s;
}

}  // namespace infcore::engine
