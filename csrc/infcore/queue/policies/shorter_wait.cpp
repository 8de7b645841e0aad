// Shorter wait: while devices have more to do than they can, none that is free is kept waiting for a larger batch.
// Source: the size-only batching of Clipper (NSDI 2017, section 4.3.2); as a step of a ladder it is ours.
// No tunables. O(1).
#include <infcore/queue/admission_policy.hpp>

namespace infcore::queue {
namespace {

class ShorterWait final : public AdmissionPolicy {
  base::TimeNs batch_delay_ns(base::TimeNs) const noexcept override { return 0; }
};

}  // namespace

std::unique_ptr<AdmissionPolicy> make_shorter_wait(std::uint32_t) { return std::make_unique<ShorterWait>(); }

}  // namespace infcore::queue
