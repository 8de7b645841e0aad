// Which lane is served first, where several wait for the same device and cannot all be in time. Else the one whose head
// stands first, as everywhere: by tier and deadline.
#include <infcore/engine/state_machine.hpp>

#include <algorithm>
#include <bit>

namespace infcore::engine {

/// The device that alone may serve the lane, if it has a free slot; else no_node.
NodeId StateMachine::only_device(std::uint32_t index) {
  const Lane& lane = *lanes_[index];
  NodeId only = lane.bound;
  if (only == base::no_node) {
    if (models_[lane.model.value].n_free == 0) return base::no_node;
    static_cast<void>(gather(index, static_cast<float>(lane.work_mean())));
    for (std::uint32_t word = 0; word < (fleet_.n_nodes() + 63) / 64; ++word) {
      if (candidates_[word] == 0) continue;
      if (only != base::no_node || std::popcount(candidates_[word]) > 1) return base::no_node;
      only = NodeId{word * 64 + static_cast<std::uint32_t>(std::countr_zero(candidates_[word]))};
    }
  }
  if (only == base::no_node || (has_free_slot_[only.value / 64] >> (only.value % 64) & 1u) == 0) return base::no_node;
  return only;
}

/// Puts the lane that should have the device first in due_, which is in the order of service. Of those that stand where
/// its first does, with curves that can be planned with; label sets of one model share batches and are left as they
/// are.
void StateMachine::give_turn(TimeNs now_ns) {
  const std::uint32_t head = lanes_[due_.front()]->queue.front(now_ns);
  if (head == queue::no_slot || lanes_[due_[1]]->queue.size() == 0) return;
  const NodeId node = only_device(due_.front());
  if (node == base::no_node) return;
  competing_.clear();  // places in due_
  TimeNs end_ns = now_ns;
  bool in_danger = false;
  for (std::uint32_t at = 0; at < due_.size() && competing_.size() < TurnPlan::n_queues_max; ++at) {
    Lane& lane = *lanes_[due_[at]];
    const std::uint32_t its = lane.queue.front(now_ns);
    if (its == queue::no_slot || is_aged(its, now_ns) != is_aged(head, now_ns)) break;
    if (slots_[its].request.tier != slots_[head].request.tier) break;
    if (at > 0 && only_device(due_[at]) != node) continue;
    const contracts::LatencyModel& latency = latency_.at(lane.model, node);
    const ModelConfig& config = models_[lane.model.value].config;
    if (!latency.is_trusted() || config.runs_share) return;
    const auto is_sibling = [&](std::uint32_t other) { return lanes_[due_[other]]->model == lane.model; };
    if (std::any_of(competing_.begin(), competing_.end(), is_sibling)) return;
    competing_.push_back(at);
    const std::uint32_t n = std::min(lane.queue.size(), config.max_batch_size);
    const double mean = lane.work_mean();
    end_ns = base::add_ns(end_ns, base::to_ns(latency.upper_s({n, mean * n, mean})));
    in_danger = in_danger || end_ns > lane.queue.next_deadline_ns();
  }
  if (competing_.size() < 2 || !in_danger) return;
  plan_.clear();
  for (const std::uint32_t at : competing_) {
    const Lane& lane = *lanes_[due_[at]];
    plan_.add_queue(latency_.at(lane.model, node).curve(), lane.work_mean(),
                    models_[lane.model.value].config.max_batch_size);
    std::uint32_t n = 0;
    lane.queue.in_order(now_ns, order_scratch_, [&](std::uint32_t slot) {
      plan_.add({slots_[slot].request.deadline_ns, slots_[slot].request.arrival_ns});
      return ++n < TurnPlan::n_waiting_max;
    });
  }
  const auto first = due_.begin() + competing_[plan_.best(now_ns)];
  std::rotate(due_.begin(), first, first + 1);
}

}  // namespace infcore::engine
