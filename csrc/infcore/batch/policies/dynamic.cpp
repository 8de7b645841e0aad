// Dynamic: close on size, on delay, or as late as the earliest deadline allows; and never hold a device for nothing.
// A free device is held only while all of these are so: the batch is smaller than what arrives during its own service
// (sent now, the queue grows), at least one more request is expected within the hold, and the deadline leaves room.
// Source: size/delay/deadline as in Clipper (NSDI 2017, 4.3) and Triton's dynamic batcher; the two conditions on
// arrivals are ours: they merge the small batch that a closed loop of callers would otherwise send alone for ever
// (1 + 63 instead of 64), and leave a lone caller unheld.
// Who is in a batch where deadlines are in danger: the first batch of a plan (batch_plan.hpp) that serves as many in
// time as it can, less what the device's time is worth. It contains two rules that each win in one regime: with time
// dear, the largest batch in deadline order, and those before it given up ("window": early drop as in Nexus, SOSP
// 2019, 6.3, over the queue in deadline order); with time cheap, smaller batches for the tight ones while others can
// wait ("gain"). Cost: close() O(1), select() O(layers * waiting). Tunables: the model's delay_ns_max; the constants
// below.
#include <infcore/batch/batch_plan.hpp>
#include <infcore/batch/batching_policy.hpp>

#include <algorithm>

namespace infcore::batch {
namespace {

/// The hold is at most this share of the batch's fixed cost: what one batch less saves, it must not spend on waiting.
constexpr double hold_share = 0.25;

/// What a second of the device is worth, in the requests that it could serve meanwhile in full batches: half of them,
/// less what the load leaves idle. With nothing, queues are served to the last request, in overload by ever smaller
/// batches; with all, batches are as large as may be, in bursts at the cost of those who could wait for the lull after.
/// All it is where those who wait need twice the time that their last deadline leaves.
constexpr double price_of_time = 0.5;

/// Counts as in time: above the mean by so many of the curve's spreads. It is the tightest of a batch alone who is late
/// beyond it, and room for all of them would cost the batch more. In the simulator with spreads of 5, 10 and 30 % best
/// of 0, .3, .6, 1, 1.5 and 2.33.
constexpr double spreads_late = 1.5;

/// So many full batches are planned; with three, 16 busy milliseconds in a queue of 20 are beyond the plan.
constexpr std::uint32_t n_batches_ahead = 4;

/// Up to so many times this device's own, the lane's capacity is this device.
constexpr double capacity_alone = 1.01;

/// Keeps a deadline that is now from being divided by.
constexpr double time_unit_s = 1e-9;

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

  /// The plan of the most urgent ones first: less urgent ones fill what it leaves of the batch, and cost it nobody.
  void select(base::TimeNs now_ns, std::span<const Waiting> waiting, std::uint32_t n_max, const Traffic& traffic,
              const contracts::LatencyModel& device_curve, std::span<Verdict> verdicts) const noexcept override {
    if (!device_curve.is_trusted()) {
      std::fill_n(verdicts.begin(), std::min<std::size_t>({waiting.size(), n_max, traffic.max_batch_size}),
                  Verdict::take);
      return;
    }
    const double peak = peak_per_s(waiting, traffic, device_curve);
    const double next_start = peak / (std::max(traffic.capacity_per_s, peak) * traffic.share);
    BatchPlan plan(device_curve, {spreads_late, traffic.max_batch_size, next_start});
    StartedBatch batch{.room = std::min(n_max, traffic.max_batch_size)};
    for (std::size_t begin = 0, end = 0; begin < waiting.size() && batch.room > 0; begin = end) {
      end = end_of_class(waiting, begin);
      const std::size_t n = std::min(end - begin, std::size_t{n_batches_ahead} * traffic.max_batch_size);
      const FirstBatch first = plan.first(now_ns, waiting.subspan(begin, n), batch,
                                          price_of_second(now_ns, waiting, {begin, end}, traffic, peak));
      const std::size_t from = begin + first.n_skipped, to = from + first.n_taken;
      for (std::size_t i = from; i < to; ++i) {
        verdicts[i] = Verdict::take;
        batch.add(now_ns, waiting[i]);
      }
      if (batch.shape.n_requests > 0 && to < end) break;  // no room, or no time, for all of these
    }
    if (batch.shape.n_requests == 0) {
      verdicts[0] = Verdict::take;  // this device has nobody in time: then one, so that something happens
    } else if (traffic.capacity_per_s <= capacity_alone * peak) {
      give_up(now_ns, waiting, plan, device_curve.service_s(batch.shape), verdicts);
    }
  }

  /// Those left out who would be late in the next batch too: nobody else serves this lane.
  static void give_up(base::TimeNs now_ns, std::span<const Waiting> waiting, const BatchPlan& plan, double batch_s,
                      std::span<Verdict> verdicts) noexcept {
    for (std::size_t i = 0; i < waiting.size(); ++i) {
      const double alone_s = plan.late_s({1, waiting[i].work, waiting[i].work});
      if (verdicts[i] == Verdict::leave && base::seconds(waiting[i].deadline_ns - now_ns) < batch_s + alone_s) {
        verdicts[i] = Verdict::drop;
      }
    }
  }

  /// Aged ones are the most urgent class, then tier by tier, and in a tier tenant by tenant.
  static std::size_t end_of_class(std::span<const Waiting> waiting, std::size_t begin) noexcept {
    const Waiting& first = waiting[begin];
    std::size_t end = begin + 1;
    const auto is_like_first = [&](const Waiting& w) {
      return w.aged == first.aged && (first.aged || (w.tier == first.tier && w.tenant == first.tenant));
    };
    while (end < waiting.size() && is_like_first(waiting[end])) ++end;
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

  struct Range {
    std::size_t begin, end;
  };
  /// What a second of the device is worth to a class and those more urgent: as if they were alone here, so that nobody
  /// is given up for the less urgent. Their share of the traffic is taken to be their share of those shown.
  static double price_of_second(base::TimeNs now_ns, std::span<const Waiting> waiting, Range of, const Traffic& traffic,
                                double peak) noexcept {
    base::TimeNs last_ns = now_ns;
    for (std::size_t i = of.begin; i < of.end; ++i) last_ns = std::max(last_ns, waiting[i].deadline_ns);
    const double share = static_cast<double>(of.end) / static_cast<double>(waiting.size());
    const double per_s = share / (std::max(traffic.capacity_per_s, peak) * traffic.share);
    const double load = std::min(1.0, traffic.arrivals_per_s * per_s);
    const double left_s = base::seconds(last_ns - now_ns) + time_unit_s;
    const double crowded = std::clamp(traffic.n_waiting * per_s / left_s - 1.0, 0.0, 1.0);
    return peak * (price_of_time * load * (1.0 - crowded) + crowded);
  }
};

}  // namespace

std::unique_ptr<BatchingPolicy> make_dynamic() { return std::make_unique<Dynamic>(); }

}  // namespace infcore::batch
