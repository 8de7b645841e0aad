#include <infcore/queue/tenant_flows.hpp>
#include <new>
#include <utility>

namespace infcore::queue {
namespace {

/// A forgotten tenant's heap is kept for the next one up to so many items.
constexpr std::uint32_t kept_items_max = 64;

}  // namespace

bool TenantFlows::adopt(std::uint32_t flow, std::uint32_t tenant, TierItems& items, QueueSlots& slots) noexcept {
  if (flows_.size() <= flow) {  // the first time: flow is 0
    if (!make_room_for_flows(1)) return false;
    flows_.emplace_back();
  }
  if (!by_tenant_.make_room()) return false;
  by_tenant_.insert(tenant, flow);
  Flow& f = flows_[flow];
  f.items = std::exchange(items, {});
  f.tenant = tenant;
  f.served = floor_;
  f.idle = false;
  n_known_ = 1;
  ready_.push(ByServed{&flows_, &slots}, f.served, flow);
  if (!f.items.deadlines.empty()) due_.push(ByDeadline{&flows_, &slots}, f.items.deadlines.top_key(), flow);
  return true;
}

std::uint32_t TenantFlows::give_up(std::uint32_t& tenant, TierItems& items) noexcept {
  floor_ = 0;
  if (n_known_ == 0) {  // the tier is empty, and every flow nobody's
    const std::uint32_t flow = free_.back();
    free_.pop_back();
    items = std::exchange(flows_[flow].items, {});
    return flow;
  }
  const std::uint32_t flow = ready_.top();
  Flow& f = flows_[flow];
  by_tenant_.erase(f.tenant);
  ready_.clear();
  due_.clear();
  n_known_ = 0;
  tenant = f.tenant;
  items = std::exchange(f.items, {});
  return flow;
}

bool TenantFlows::make_room_for_flows(std::size_t n) noexcept {
  if (n <= free_.capacity()) return true;
  try {
    const std::size_t larger = std::max<std::size_t>(2 * n, 8);
    flows_.reserve(larger);
    ready_.reserve(larger);
    idle_.reserve(larger);
    due_.reserve(larger);
    free_.reserve(larger);  // last: its capacity says that all of them have theirs
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

/// Where n_flows_max tenants wait, the next ones share.
std::uint32_t TenantFlows::flow_of(std::uint32_t tenant) const noexcept {
  const std::uint32_t flow = by_tenant_.find(tenant);
  return flow != TenantMap::none ? flow : tenant % n_flows_max;
}

bool TenantFlows::make_room(std::uint32_t tenant, bool has_deadline) noexcept {
  std::uint32_t flow = by_tenant_.find(tenant);
  if (flow == TenantMap::none) {
    if (free_.empty() && flows_.size() == n_flows_max) {
      if (!idle_.empty()) {
        const std::uint32_t least_ahead = idle_.top();
        idle_.remove(ByServedIdle{&flows_}, least_ahead);
        forget(least_ahead);
      }
    }
    if (free_.empty() && flows_.size() == n_flows_max) {
      flow = flow_of(tenant);
    } else {
      if (!by_tenant_.make_room()) return false;
      if (free_.empty()) {
        if (!make_room_for_flows(flows_.size() + 1)) return false;
        free_.push_back(static_cast<std::uint32_t>(flows_.size()));
        flows_.emplace_back();
      }
      flow = free_.back();
      if (has_deadline && !flows_[flow].items.deadlines.make_room()) return false;
      free_.pop_back();
      by_tenant_.insert(tenant, flow);
      Flow& f = flows_[flow];
      f.tenant = tenant;
      f.idle = false;
      ++n_known_;
      return true;
    }
  }
  return !has_deadline || flows_[flow].items.deadlines.make_room();
}

void TenantFlows::push(QueueSlots& slots, std::uint32_t slot) noexcept {
  const std::uint32_t flow = flow_of(slots[slot].tenant);
  slots[slot].flow = static_cast<std::uint16_t>(flow);
  Flow& f = flows_[flow];
  const std::uint32_t front = f.items.front(), first_due = f.items.next_to_expire();
  f.items.push(slots, slot);
  const ByServed by_served{&flows_, &slots};
  if (front == no_slot) {
    if (std::exchange(f.idle, false)) {
      idle_.remove(ByServedIdle{&flows_}, flow);
    } else {
      f.served = floor_;
    }
    ready_.push(by_served, f.served, flow);
    if (ready_.size() == 1) raise_floor(f.served);  // nobody else waits; it may have been ahead
  } else if (f.items.front() != front) {
    ready_.remove(by_served, flow);
    ready_.push(by_served, f.served, flow);
  }
  deadline_changed(slots, flow, first_due);
}

void TenantFlows::take(QueueSlots& slots, std::uint32_t slot, std::int64_t units) noexcept {
  const std::uint32_t flow = slots[slot].flow;
  Flow& f = flows_[flow];
  const std::uint32_t front = f.items.front(), first_due = f.items.next_to_expire();
  f.items.remove(slots, slot);
  f.served = std::min(f.served + units, floor_ + ahead_units_max);
  const ByServed by_served{&flows_, &slots};
  if (f.items.empty()) {
    ready_.remove(by_served, flow);
    deadline_changed(slots, flow, first_due);
    raise_floor(ready_.empty() ? f.served : ready_.top_key());
    if (f.served > floor_) {
      f.idle = true;
      idle_.push(ByServedIdle{&flows_}, f.served, flow);
    } else {
      forget(flow);
    }
    return;
  }
  if (units != 0 || f.items.front() != front) {
    ready_.remove(by_served, flow);
    ready_.push(by_served, f.served, flow);
  }
  deadline_changed(slots, flow, first_due);
  raise_floor(ready_.top_key());
}

/// After a flow's items changed: its place among the deadlines.
void TenantFlows::deadline_changed(const QueueSlots& slots, std::uint32_t flow, std::uint32_t first_before) noexcept {
  const SlotHeap& deadlines = flows_[flow].items.deadlines;
  const std::uint32_t first_now = deadlines.empty() ? no_slot : deadlines.top();
  if (first_now == first_before) return;
  const ByDeadline by_deadline{&flows_, &slots};
  if (first_before != no_slot) due_.remove(by_deadline, flow);
  if (first_now != no_slot) due_.push(by_deadline, deadlines.top_key(), flow);
}

/// Whoever waits has got at least this. Who is away and no further ahead would be lifted to it.
void TenantFlows::raise_floor(std::int64_t to) noexcept {
  floor_ = to;
  while (!idle_.empty() && idle_.top_key() <= floor_) {
    const std::uint32_t flow = idle_.top();
    idle_.remove(ByServedIdle{&flows_}, flow);
    forget(flow);
  }
  if (floor_ < ahead_units_max) return;
  // Differences are all that counts: begin at 0 again, long before a counter could overflow.
  for (Flow& f : flows_) f.served = std::max<std::int64_t>(f.served - floor_, 0);  // 0: nobody's
  ready_.lower_keys(floor_);
  idle_.lower_keys(floor_);
  floor_ = 0;
}

void TenantFlows::forget(std::uint32_t flow) noexcept {
  Flow& f = flows_[flow];
  by_tenant_.erase(f.tenant);
  f.idle = false;
  if (f.items.deadlines.capacity() > kept_items_max) f.items = {};
  free_.push_back(flow);
  --n_known_;
}

}  // namespace infcore::queue
