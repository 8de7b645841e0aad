// Requests of token models whose prompts are known: each goes on its own, on arrival or as soon as some node has a slot
// for it, where the choice says; the node batches them by itself. Until then it waits here, so that nothing is bound
// to a node that cannot take it: a node that is lost or drained gives back what it had, as any other.
#include <infcore/contracts/block_hash.hpp>
#include <infcore/engine/state_machine.hpp>

#include <bit>

namespace infcore::engine {

/// What the policies' index calls the blocks of its prompt: what a node has computed of one model is nothing to another
/// one, whatever their prompts have in common.
std::span<const std::uint64_t> StateMachine::names_of(const contracts::Request& r) {
  if (!prefixes_) return {r.blocks, r.n_blocks};
  names_.clear();
  for (std::uint32_t i = 0; i < r.n_blocks; ++i) names_.push_back(contracts::name_of(r.blocks[i], r.model.value));
  return names_;
}

/// Of a policy that binds on arrival.
NodeId StateMachine::choose_node(TimeNs now_ns, const contracts::Request& r) {
  const route::RouteQuery query{.model = r.model,
                                .work = r.work,
                                .tier = r.tier,
                                .now_ns = now_ns,
                                .deadline_ns = base::never_ns,
                                .require = r.require,
                                .session = r.session,
                                .blocks = names_of(r)};
  const bool has_prefix = prefixes_ && r.n_blocks > 0;
  if (has_prefix) prefixes_->follow(fleet_), prefixes_->advance(now_ns);
  const NodeId chosen = routing_->select(query, view_);
  if (chosen != base::no_node) {
    if (has_prefix) prefixes_->picked(chosen, query.blocks, now_ns);
    return chosen;
  }
  return routing_->failed() && view_.filter(query) ? view_.least_inflight() : chosen;
}

/// Sends the first request to the candidate of least cost that has a free slot, the lowest id among equals.
bool StateMachine::dispatch_tokens(TimeNs now_ns, std::uint32_t index) {
  const Lane& lane = *lanes_[index];
  const contracts::Request& request = slots_[lane.queue.front(now_ns)].request;
  const double beside = routing_->joint().beside;
  NodeId best = base::no_node;
  double best_s = 0.0;
  for (std::uint32_t word = 0; word < (fleet_.n_nodes() + 63) / 64; ++word) {
    for (std::uint64_t left = free_candidates_[word]; left != 0; left &= left - 1) {
      const NodeId id{word * 64 + static_cast<std::uint32_t>(std::countr_zero(left))};
      const auto n_beside = static_cast<std::uint32_t>(nodes_[id.value].in_flight.size());
      const double cost_s = tokens_.cost_s(request, id, n_beside, beside);
      if (best != base::no_node && cost_s >= best_s) continue;
      best = id;
      best_s = cost_s;
    }
  }
  if (best == base::no_node) return false;
  sources_.assign(1, {.lane = index, .left = 1});
  const Served served = serve(now_ns, index, best, 1);
  return served == Served::held ? dispatch_late(now_ns, index, best) : served == Served::sent;
}

/// It was taken into a batch of the node, which is not among those in flight yet.
void StateMachine::share_tokens(std::uint32_t slot, NodeId id, TimeNs now_ns) {
  const auto n_beside = static_cast<std::uint32_t>(nodes_[id.value].in_flight.size());
  slots_[slot].share = tokens_.send(now_ns, slots_[slot].request, id, n_beside);
}

void StateMachine::leave_tokens(Slot& s) noexcept {
  if (s.share.n_tokens > 0) tokens_.leave(s.request.model, s.node, s.share);
}

}  // namespace infcore::engine
