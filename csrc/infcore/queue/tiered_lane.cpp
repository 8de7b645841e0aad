#include <infcore/queue/tiered_lane.hpp>
#include <new>

namespace infcore::queue {

// What happens only where several tenants wait in a tier is not inlined into what happens always.

bool TieredLane::make_room_for_several(Tier& tier, const Kind& kind) noexcept {
  if (!tier.is_several) {
    if (tier.flows == nullptr) tier.flows.reset(new (std::nothrow) TenantFlows);
    if (tier.flows == nullptr || !tier.flows->adopt(tier.flow, tier.tenant, tier.items, *slots_)) return false;
    tier.is_several = true;
  }
  return tier.flows->make_room(kind.tenant, kind.has_deadline);
}

void TieredLane::take_of_several(Tier& tier, std::uint32_t slot, std::int64_t units) noexcept {
  tier.flows->take(*slots_, slot, units);
  if (!tier.flows->is_one()) return;
  tier.flow = static_cast<std::uint16_t>(tier.flows->give_up(tier.tenant, tier.items));
  tier.is_several = false;
}

}  // namespace infcore::queue
