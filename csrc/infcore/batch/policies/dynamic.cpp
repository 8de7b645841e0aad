// Dynamic: close on size, on delay, or as late as the earliest deadline allows; and never hold a device for nothing.
// A free device is held only while all of these are so: the batch is smaller than what arrives during its own service
// (sent now, the queue grows), at least one more request is expected within the hold, and the deadline leaves room.
// Source: size/delay/deadline as in Clipper (NSDI 2017, 4.3) and Triton's dynamic batcher; the two conditions on
// arrivals are ours: they merge the small batch that a closed loop of callers would otherwise send alone for ever
// (1 + 63 instead of 64), and leave a lone caller unheld.
// Cost: O(1). Tunables: the model's delay_ns_max; hold_share below.
#include <infcore/batch/batching_policy.hpp>

#include <algorithm>

namespace infcore::batch {
namespace {

/// The hold is at most this share of the batch's fixed cost: what one batch less saves, it must not spend on waiting.
constexpr double hold_share = 0.25;

class Dynamic final : public BatchingPolicy {
  Close close(base::TimeNs now_ns, const Pending& pending,
              const contracts::LatencyModel& device_curve) const noexcept override {
    const std::uint32_t n = pending.shape.n_requests;
    const Close now{n, now_ns};
    if (n >= pending.max_batch_size || (device_curve.n_observed() == 0 && !device_curve.has_prior())) return now;
    if (n >= pending.arrivals_per_s * device_curve.service_s(pending.shape)) return now;
    const base::TimeNs hold_ns = std::min(pending.delay_ns_max, base::to_ns(hold_share * device_curve.curve().base_s));
    base::TimeNs until_ns = base::add_ns(pending.held_since_ns, hold_ns);
    if (pending.earliest_deadline_ns != base::never_ns) {
      until_ns = std::min(until_ns, pending.earliest_deadline_ns - base::to_ns(device_curve.upper_s(pending.shape)));
    }
    if (until_ns <= now_ns || pending.arrivals_per_s * base::seconds(until_ns - now_ns) < 1.0) return now;
    return {0, until_ns};
  }

  void select(base::TimeNs, std::span<const Waiting> waiting, std::uint32_t n_max, const Traffic& traffic,
              const contracts::LatencyModel&, std::span<Verdict> verdicts) const noexcept override {
    const std::size_t n = std::min<std::size_t>({waiting.size(), n_max, traffic.max_batch_size});
    std::fill_n(verdicts.begin(), n, Verdict::take);
  }
};

}  // namespace

std::unique_ptr<BatchingPolicy> make_dynamic() { return std::make_unique<Dynamic>(); }

}  // namespace infcore::batch
