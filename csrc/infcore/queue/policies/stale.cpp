// Stale: an answer from before, where the driver has one at hand, instead of a run.
// Source: serving stale content under load (RFC 5861, stale-if-error), with overload for the error.
// No tunables. O(1).
#include <infcore/queue/admission_policy.hpp>

namespace infcore::queue {
namespace {

class Stale final : public AdmissionPolicy {
  Verdict admit(const Arrival& a) noexcept override { return {.entry = a.has_stale ? Entry::stale : Entry::admit}; }
};

}  // namespace

std::unique_ptr<AdmissionPolicy> make_stale(std::uint32_t) { return std::make_unique<Stale>(); }

}  // namespace infcore::queue
