// Off peak: a request that says it may wait is put off, until the load is gone or its time is up.
// It keeps the time that it needs: what waits at most as long as counts as overload must still be in time.
// Source: deferrable load as power grids know it, and batch tiers of inference services; the rule is ours.
// No tunables. O(1).
#include <infcore/queue/admission_policy.hpp>

#include <algorithm>

namespace infcore::queue {
namespace {

class OffPeak final : public AdmissionPolicy {
  Verdict admit(const Arrival& a) noexcept override {
    if (a.defer_ns <= 0) return {};
    base::TimeNs until_ns = base::add_ns(a.now_ns, a.defer_ns);
    if (a.deadline_ns != base::never_ns) until_ns = std::min(until_ns, a.deadline_ns - base::to_ns(a.goal_s));
    if (until_ns <= a.now_ns) return {};
    return {.entry = Entry::defer, .until_ns = until_ns};
  }
};

}  // namespace

std::unique_ptr<AdmissionPolicy> make_off_peak(std::uint32_t) { return std::make_unique<OffPeak>(); }

}  // namespace infcore::queue
