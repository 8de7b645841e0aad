// Infeasible: what no device can answer in time is refused at once, with the best time that any would need.
// Source: the deadline test of real-time admission control (Liu and Layland 1973 onwards), here by learned latency
// curves: `best_s` is given only where every device that might serve the request has a curve that somebody measured or
// declared, and is taken at its lower quantile (engine/admission.cpp). No tunables. O(1).
#include <infcore/queue/admission_policy.hpp>

namespace infcore::queue {
namespace {

class Infeasible final : public AdmissionPolicy {
  Verdict admit(const Arrival& a) noexcept override {
    if (a.deadline_ns == base::never_ns || a.best_s < 0.0) return {};
    if (base::add_ns(a.now_ns, base::to_ns(a.best_s)) <= a.deadline_ns) return {};
    return {.entry = Entry::infeasible, .retry_after_s = a.best_s};
  }
};

}  // namespace

std::unique_ptr<AdmissionPolicy> make_infeasible(std::uint32_t) { return std::make_unique<Infeasible>(); }

}  // namespace infcore::queue
