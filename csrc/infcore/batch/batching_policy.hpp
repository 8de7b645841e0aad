#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/contracts/batch.hpp>
#include <infcore/contracts/latency.hpp>

#include <cstdint>
#include <memory>
#include <span>
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

/// One request that waits, as select() sees it.
struct Waiting {
  base::TimeNs deadline_ns;  ///< never_ns: none
  double work;
  std::uint16_t tier;  ///< 0 is the most urgent
  bool aged;           ///< it has waited so long that it goes before everything younger
  /// Those of one tier and tenant stand together, who was served the least work before the others: like a tier of its
  /// own, so that a tenant that floods the queue is what is given up, and not who is beside it.
  std::uint32_t tenant{};
};

/// What becomes of it.
enum class Verdict : std::uint8_t {
  leave,  ///< it waits on
  take,   ///< it is in the batch
  drop    ///< it is given up, so that others meet their deadlines
};

/// What a rule may know of the traffic when it selects.
struct Traffic {
  std::uint32_t n_waiting;  ///< in the lane; select() is shown the first of them
  std::uint32_t max_batch_size;
  double arrivals_per_s;  ///< of this lane, lately
  double capacity_per_s;  ///< requests that all devices of the lane, in full batches and for it alone, could serve
  double share{1.0};      ///< of the device's time, for this lane; the rest goes to other queues that wait for it
};

/// Decides when a batch for a device that has a free slot closes, and, where deadlines are in danger, who is in it.
/// Pure: same arguments, same answer.
/// Contract of close(): 0 <= n <= pending.shape.n_requests; where n == 0, now_ns < wait_until_ns < never_ns.
/// Contract of select(): `verdicts` are all `leave` when it is called; at least one is not when it returns, at most
/// n_max and max_batch_size of them are `take`.
class BatchingPolicy {
 public:
  static constexpr std::uint32_t n_waiting_shown_max = 256;

  virtual ~BatchingPolicy() = default;
  [[nodiscard]] virtual Close close(base::TimeNs now_ns, const Pending& pending,
                                    const contracts::LatencyModel& device_curve) const noexcept = 0;
  /// `waiting`: the lane's first requests in the order of service. Asked only where the first n_max of them, sent now,
  /// would not all be in time by the curve's upper quantile.
  virtual void select(base::TimeNs now_ns, std::span<const Waiting> waiting, std::uint32_t n_max,
                      const Traffic& traffic, const contracts::LatencyModel& device_curve,
                      std::span<Verdict> verdicts) const noexcept = 0;
};

/// Throws UnknownName for a name that is not in batching_registry.def.
[[nodiscard]] std::unique_ptr<BatchingPolicy> make_batching_policy(std::string_view name);
[[nodiscard]] std::vector<std::string> batching_policies();

}  // namespace infcore::batch
