// Dynamic: close on size, on delay, or as late as the earliest deadline allows; and never hold a device for nothing.
// A free device is held only while all of these are so: the batch is smaller than what arrives during its own service
// (sent now, the queue grows), at least one more request is expected within the hold, and the deadline leaves room.
// Source: size/delay/deadline as in Clipper (NSDI 2017, 4.3) and Triton's dynamic batcher; the two conditions on
// arrivals are ours: they merge the small batch that a closed loop of callers would otherwise send alone for ever
// (1 + 63 instead of 64), and leave a lone caller unheld.
// Cost: O(1). Tunables: the model's delay_ns_max; hold_share below.
#include <infcore/batch/batch_plan.hpp>
#include <infcore/batch/batching_policy.hpp>

#include <algorithm>

namespace infcore::batch {
namespace {

/// The hold is at most this share of the batch's fixed cost: what one batch less saves, it must not spend on waiting.
constexpr double hold_share = 0.25;

/// What a second of the device is worth, in the requests that it could serve meanwhile in full batches: half of them,
/// less what the load leaves idle. Nothing: queues are served to the last request, in overload by ever smaller batches.
/// All: batches are as large as may be, in bursts at the price of requests that would have gone into the lull after.
constexpr double price_of_time = 0.5;
/// Where as many again wait beyond those shown: they are there to use it.
constexpr double price_of_time_crowded = 1.0;

/// Counts as in time: above the mean by so many of the curve's spreads. It is the tightest of a batch alone who is late
/// beyond it, and room for all of them would cost the batch more.
constexpr double spreads_late = 1.5;

/// What is planned: so many full batches.
constexpr std::uint32_t n_batches_ahead = 4;

/// Above so many times this device's own, the lane's capacity is that of several devices.
constexpr double capacity_shared = 1.01;

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

  void select(base::TimeNs now_ns, std::span<const Waiting> waiting, std::uint32_t n_max, const Traffic& traffic,
              const contracts::LatencyModel& device_curve, std::span<Verdict> verdicts) const noexcept override {
    BatchPlan plan(device_curve, price_of(now_ns, waiting, traffic, device_curve));
    contracts::BatchShape batch;
    base::TimeNs earliest_ns = base::never_ns;
    const std::uint32_t n_room = std::min(n_max, traffic.max_batch_size);
    std::size_t begin = 0, end = 0;
    for (; begin < waiting.size() && batch.n_requests < n_room; begin = end) {
      end = end_of_class(waiting, begin);
      const std::size_t n = std::min(end - begin, std::size_t{n_batches_ahead} * traffic.max_batch_size);
      const double limit_s = base::seconds(earliest_ns - now_ns);
      const FirstBatch first =
          plan.first(now_ns, waiting.subspan(begin, n), batch, limit_s, n_room - batch.n_requests);
      for (std::size_t i = begin + first.n_skipped; i < begin + first.n_skipped + first.n_taken; ++i) {
        verdicts[i] = Verdict::take;
        batch.add(waiting[i].work);
        earliest_ns = std::min(earliest_ns, waiting[i].deadline_ns);
      }
      if (begin + first.n_skipped + first.n_taken < end) break;  // no room, or no time, for any of it
    }
    if (batch.n_requests == 0) {  // nobody is safe: somebody may be lucky
      verdicts[0] = Verdict::take;
      return;
    }
    if (traffic.capacity_per_s > capacity_shared * peak_per_s(waiting, traffic, device_curve)) return;
    give_up(now_ns, waiting, plan, device_curve.service_s(batch), verdicts);
  }

  /// Those passed over are in time for the next batch, or for none: nobody else serves this lane.
  static void give_up(base::TimeNs now_ns, std::span<const Waiting> waiting, const BatchPlan& plan, double batch_s,
                      std::span<Verdict> verdicts) noexcept {
    for (std::size_t i = 0; i < waiting.size(); ++i) {
      const double alone_s = plan.late_s({1, waiting[i].work, waiting[i].work});
      if (verdicts[i] == Verdict::leave && base::seconds(waiting[i].deadline_ns - now_ns) < batch_s + alone_s) {
        verdicts[i] = Verdict::drop;
      }
    }
  }

  static std::size_t end_of_class(std::span<const Waiting> waiting, std::size_t begin) noexcept {
    std::size_t end = begin + 1;
    while (end < waiting.size() && waiting[end].aged == waiting[begin].aged &&
           (waiting[begin].aged || waiting[end].tier == waiting[begin].tier)) {
      ++end;
    }
    return end;
  }

  /// Requests a second that the device serves in full batches of the shown ones' mean work.
  static double peak_per_s(std::span<const Waiting> waiting, const Traffic& traffic,
                           const contracts::LatencyModel& device_curve) noexcept {
    double work_sum = 0.0;
    for (const Waiting& w : waiting) work_sum += w.work;
    const double n = traffic.max_batch_size, mean = work_sum / static_cast<double>(waiting.size());
    return n / device_curve.service_s({traffic.max_batch_size, n * mean, mean});
  }

  static PlanPrice price_of(base::TimeNs now_ns, std::span<const Waiting> waiting, const Traffic& traffic,
                            const contracts::LatencyModel& device_curve) noexcept {
    const double peak = peak_per_s(waiting, traffic, device_curve);
    const double capacity = std::max(traffic.capacity_per_s, peak);
    base::TimeNs last_ns = now_ns;
    for (const Waiting& w : waiting) last_ns = std::max(last_ns, w.deadline_ns);
    const double load = std::min(1.0, traffic.arrivals_per_s / capacity);
    const double needs_s = traffic.n_waiting / capacity;
    const double unseen = std::clamp(needs_s / base::seconds(last_ns - now_ns + 1) - 1.0, 0.0, 1.0);
    const double price = price_of_time * load * (1.0 - unseen) + price_of_time_crowded * unseen;
    return {price * peak, peak / capacity, spreads_late, traffic.max_batch_size};
  }
};

}  // namespace

std::unique_ptr<BatchingPolicy> make_dynamic() { return std::make_unique<Dynamic>(); }

}  // namespace infcore::batch
