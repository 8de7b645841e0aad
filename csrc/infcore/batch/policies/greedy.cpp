// Greedy: whatever waits goes to the free device at once; batches form only while every device is busy.
// Source: the adaptive batching of Clipper without a delay (NSDI 2017, section 4.3). No tunables. O(1).
#include <infcore/batch/batching_policy.hpp>

#include <algorithm>

namespace infcore::batch {
namespace {

class Greedy final : public BatchingPolicy {
  Close close(base::TimeNs now_ns, const Pending& pending, const contracts::LatencyModel&) const noexcept override {
    return {pending.shape.n_requests, now_ns};
  }

  void select(base::TimeNs, std::span<const Waiting> waiting, std::uint32_t n_max, const Traffic& traffic,
              const contracts::LatencyModel&, std::span<Verdict> verdicts) const noexcept override {
    const std::size_t n = std::min<std::size_t>({waiting.size(), n_max, traffic.max_batch_size});
    std::fill_n(verdicts.begin(), n, Verdict::take);
  }
};

}  // namespace

std::unique_ptr<BatchingPolicy> make_greedy() { return std::make_unique<Greedy>(); }

}  // namespace infcore::batch
