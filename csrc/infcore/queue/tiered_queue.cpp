#include <algorithm>
#include <infcore/base/errors.hpp>
#include <infcore/queue/tiered_queue.hpp>
#include <new>
#include <string>

namespace infcore::queue {
namespace {

std::uint32_t checked_capacity(std::uint32_t capacity) {
  if (capacity >= 1 && capacity <= Placed::n_slots_max) return capacity;
  throw InvalidArgument("capacity", std::to_string(capacity), "1 to " + std::to_string(Placed::n_slots_max));
}

}  // namespace

TieredQueue::TieredQueue(const TieredQueueConfig& config)
    : capacity_(checked_capacity(config.capacity)),
      shed_lowest_(config.shed_lowest),
      ages_(config.ageing_ns != base::never_ns),
      slots_(capacity_),
      generations_(std::make_unique_for_overwrite<std::uint32_t[]>(capacity_)),
      shed_positions_(shed_lowest_ ? std::make_unique_for_overwrite<std::uint32_t[]>(capacity_) : nullptr),
      lane_(slots_, config.n_tiers, config.ageing_ns) {
  tiers_.resize(config.n_tiers);
  if (!config.tier_capacities.empty() && config.tier_capacities.size() != config.n_tiers) {
    throw InvalidArgument("tier_capacities", "of length " + std::to_string(config.tier_capacities.size()),
                          "one for each of " + std::to_string(config.n_tiers) + " tiers");
  }
  for (std::uint32_t tier = 0; tier < config.n_tiers; ++tier) {
    tiers_[tier].capacity = config.tier_capacities.empty() ? capacity_ : config.tier_capacities[tier];
    if (tiers_[tier].capacity == 0) throw InvalidArgument("tier_capacities", "0", ">= 1");
  }
}

Placed TieredQueue::put(std::uint32_t tier, base::TimeNs deadline_ns, base::TimeNs now_ns, Share share) noexcept {
  if (share.units != TenantFlows::units_per_work && !keep_units()) return {.slot = Placed::out_of_memory};
  if (shed_lowest_ && !tiers_[tier].lowest.make_room()) return {.slot = Placed::out_of_memory};
  std::uint32_t shed = no_slot;
  if (is_full(tier)) {
    if (has_expired(now_ns)) return {.slot = Placed::full_of_expired};
    shed = shed_lowest_ ? lower_than(tier, deadline_ns) : no_slot;
    if (shed == no_slot) return {};
  }
  const TieredLane::Kind kind{.tier = tier, .tenant = share.tenant, .has_deadline = deadline_ns != base::never_ns};
  if (!lane_.make_room(kind)) return {.slot = Placed::out_of_memory};
  if (shed != no_slot) {
    lane_.remove(shed);
    give_back(shed);
    // It may have been the last one of the newcomer's tenant.
    if (!lane_.make_room(kind)) return {.slot = Placed::out_of_memory, .shed = shed};
  }

  const std::uint32_t slot = take_slot();
  QueueSlot& item = slots_[slot];
  item.deadline_ns = deadline_ns;
  item.arrival_ns = ages_ ? now_ns : 0;  // equal: by seq, without the clock
  item.seq = next_seq_++;
  item.tier = static_cast<std::uint16_t>(tier);
  item.tenant = share.tenant;
  if (units_ != nullptr) units_[slot] = share.units;
  lane_.push_into_room(slot);
  ++tiers_[tier].size;
  // ~x turns the order of int64 round without overflow.
  if (shed_lowest_) tiers_[tier].lowest.push(LowestFirst{this}, ~deadline_ns, slot);
  return {.slot = slot, .shed = shed};
}

/// The item to give up for a newcomer, or no_slot if the newcomer is the lowest itself. Being the newest, it loses
/// ties.
std::uint32_t TieredQueue::lower_than(std::uint32_t tier, base::TimeNs deadline_ns) const noexcept {
  std::uint32_t from = tier;
  if (tiers_[tier].size < tiers_[tier].capacity) {  // full in all, not in this tier
    from = static_cast<std::uint32_t>(tiers_.size()) - 1;
    while (tiers_[from].size == 0) --from;
  }
  if (from != tier) return from > tier ? tiers_[from].lowest.top() : no_slot;
  return ~tiers_[from].lowest.top_key() > deadline_ns ? tiers_[from].lowest.top() : no_slot;
}

std::uint32_t TieredQueue::cancel(std::uint64_t ticket_of_item) noexcept {
  const auto slot = static_cast<std::uint32_t>(ticket_of_item);
  if (slot >= n_touched_ || ticket(slot) != ticket_of_item) return no_slot;
  lane_.remove(slot);
  give_back(slot);
  return slot;
}

std::uint32_t TieredQueue::take_expired(base::TimeNs now_ns) noexcept {
  const std::uint32_t slot = lane_.next_to_expire();
  if (slot == no_slot || slots_[slot].deadline_ns > now_ns) return no_slot;
  lane_.remove(slot);
  give_back(slot);
  return slot;
}

/// Until an item counts something else than 1, nothing is kept.
bool TieredQueue::keep_units() noexcept {
  if (units_ != nullptr) return true;
  units_.reset(new (std::nothrow) std::int64_t[capacity_]);
  if (units_ == nullptr) return false;
  std::fill_n(units_.get(), n_touched_, TenantFlows::units_per_work);
  return true;
}

std::uint32_t TieredQueue::take_slot() noexcept {
  if (first_free_ == no_slot) {
    generations_[n_touched_] = 0;
    return n_touched_++;
  }
  const std::uint32_t slot = first_free_;
  first_free_ = slots_[slot].by_seq.after;
  return slot;
}

void TieredQueue::give_back(std::uint32_t slot) noexcept {
  Tier& tier = tiers_[slots_[slot].tier];
  --tier.size;
  if (shed_lowest_) tier.lowest.remove(LowestFirst{this}, slot);
  ++generations_[slot];
  slots_[slot].by_seq.after = first_free_;
  first_free_ = slot;
}

}  // namespace infcore::queue
