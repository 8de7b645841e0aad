// Refuse: nothing more enters than is served within the wait that counts as overload. Who is refused is told when half
// of it will be left: the backlog over the capacity, both by the learned curves.
// Source: bounded wait instead of bounded count, as in "Controlling Queue Delay" (ACM Queue 10(5), 2012).
// No tunables but the engine's overload_wait_s. O(1).
#include <infcore/queue/admission_policy.hpp>

#include <algorithm>

namespace infcore::queue {
namespace {

class Refuse final : public AdmissionPolicy {
  Verdict admit(const Arrival& a) noexcept override {
    if (!(a.goal_s > 0.0 && a.wait_s >= a.goal_s)) return {};
    return {.entry = Entry::refuse, .retry_after_s = std::max(a.wait_s - 0.5 * a.goal_s, retry_after_s_min)};
  }
};

}  // namespace

std::unique_ptr<AdmissionPolicy> make_refuse(std::uint32_t) { return std::make_unique<Refuse>(); }

}  // namespace infcore::queue
