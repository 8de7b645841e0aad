// Shed the last tier: while the wait counts as overload, an urgent arrival takes the place of the least urgent that
// waits, and an arrival of the least urgent tier is refused as long as anything more urgent is there.
// Source: shedding by criticality ("The Site Reliability Workbook", and WeChat's DAGOR, SoCC 2018, section 4), one for
// one, so that no more is shed than came in. No tunables. O(1), and O(log n) for the place.
#include <infcore/queue/admission_policy.hpp>

#include <algorithm>

namespace infcore::queue {
namespace {

class ShedLast final : public AdmissionPolicy {
  Verdict admit(const Arrival& a) noexcept override {
    if (!(a.goal_s > 0.0 && a.wait_s >= a.goal_s)) return {};
    if (a.tier < a.last_tier) return {.entry = Entry::displace};
    if (a.tier == a.first_tier) return {};
    return {.entry = Entry::refuse, .retry_after_s = std::max(a.wait_s - 0.5 * a.goal_s, retry_after_s_min)};
  }
};

}  // namespace

std::unique_ptr<AdmissionPolicy> make_shed_last(std::uint32_t) { return std::make_unique<ShedLast>(); }

}  // namespace infcore::queue
