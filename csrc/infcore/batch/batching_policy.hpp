#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/contracts/batch.hpp>
#include <infcore/contracts/latency.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace infcore::batch {

/// What waits in one lane, as a rule sees it.
struct Pending {
  contracts::BatchShape shape;        ///< of the batch that would go now; n_requests >= 1
  base::TimeNs earliest_deadline_ns;  ///< in that batch
  base::TimeNs held_since_ns;         ///< since when these requests and this free device have had each other
  double arrivals_per_s;              ///< of this lane, lately
  std::uint32_t max_batch_size;
  base::TimeNs delay_ns_max;  ///< the longest that a free device may be kept waiting for a larger batch
};

/// How many to send. n == 0: nothing yet, ask again at `wait_until_ns` or at the next arrival.
struct Close {
  std::uint32_t n_requests;
  base::TimeNs wait_until_ns;
};

/// Decides when a batch for a device that has a free slot closes. Pure: same arguments, same answer.
/// Contract: 0 <= n <= pending.shape.n_requests; where n == 0, now_ns < wait_until_ns < never_ns.
class BatchingPolicy {
 public:
  virtual ~BatchingPolicy() = default;
  [[nodiscard]] virtual Close close(base::TimeNs now_ns, const Pending& pending,
                                    const contracts::LatencyModel& device_curve) const noexcept = 0;
};

/// Throws UnknownName for a name that is not in batching_registry.def.
[[nodiscard]] std::unique_ptr<BatchingPolicy> make_batching_policy(std::string_view name);
[[nodiscard]] std::vector<std::string> batching_policies();

}  // namespace infcore::batch
