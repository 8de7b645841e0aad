// Cheaper: the model's fallback answers, where it serves more of the same requests or has less to do.
// Source: model switching under load as in INFaaS (USENIX ATC 2021, section 4); who falls back to whom is configured,
// not searched. No tunables. O(1).
#include <infcore/queue/admission_policy.hpp>

namespace infcore::queue {
namespace {

class Cheaper final : public AdmissionPolicy {
  Verdict admit(const Arrival& a) noexcept override {
    const bool serves = a.fallback_per_s > 0.0;
    const bool helps = a.fallback_per_s > a.capacity_per_s || a.fallback_wait_s < a.wait_s;
    return {.entry = serves && helps ? Entry::cheaper : Entry::admit};
  }
};

}  // namespace

std::unique_ptr<AdmissionPolicy> make_cheaper(std::uint32_t) { return std::make_unique<Cheaper>(); }

}  // namespace infcore::queue
