#include <infcore/engine/turn_plan.hpp>

#include <algorithm>

namespace infcore::engine {

void TurnPlan::clear() noexcept {
  queues_.clear();
  waiting_.clear();
}

void TurnPlan::add_queue(const contracts::Curve& curve, double work_mean, std::uint32_t max_batch_size) {
  const auto at = static_cast<std::uint32_t>(waiting_.size());
  queues_.push_back({curve, work_mean, max_batch_size, at, at});
}

void TurnPlan::add(Waiting one) {
  waiting_.push_back(one);
  ++queues_.back().end;
}

base::TimeNs TurnPlan::Queue::run_ns(std::uint32_t n) const noexcept {
  return base::to_ns(curve.service_s({n, work_mean * n, work_mean}));
}

std::uint32_t TurnPlan::best(base::TimeNs now_ns) {
  for (const Queue& q : queues_) {
    std::stable_sort(waiting_.begin() + q.begin, waiting_.begin() + q.end,
                     [](const Waiting& a, const Waiting& b) { return a.deadline_ns < b.deadline_ns; });
  }
  std::uint32_t best = 0, most = n_in_time(now_ns, 0, Rule::earliest_deadline);
  if (most == waiting_.size()) return 0;
  for (const Rule rule : {Rule::earliest_deadline, Rule::first_come}) {
    for (std::uint32_t first = 0; first < queues_.size(); ++first) {
      const std::uint32_t n = n_in_time(now_ns, first, rule);
      if (n <= most) continue;
      most = n;
      best = first;
    }
  }
  return best;
}

/// Of all that wait, those who are in time where that queue is served first and the rule says who comes then.
std::uint32_t TurnPlan::n_in_time(base::TimeNs now_ns, std::uint32_t first, Rule rule) noexcept {
  for (Queue& q : queues_) q.at = q.begin;
  std::uint32_t n = serve(queues_[first], now_ns);
  while (Queue* const q = next(now_ns, rule)) n += serve(*q, now_ns);
  return n;
}

/// The queue whose turn it is; nullptr: nobody can be in time any more. Who cannot is passed over.
TurnPlan::Queue* TurnPlan::next(base::TimeNs now_ns, Rule rule) noexcept {
  Queue* least = nullptr;
  base::TimeNs least_ns = base::never_ns;
  for (Queue& q : queues_) {
    const base::TimeNs alone_ns = base::add_ns(now_ns, q.run_ns(1));
    while (q.at < q.end && waiting_[q.at].deadline_ns < alone_ns) ++q.at;
    if (q.at == q.end) continue;
    const Waiting& head = waiting_[q.at];
    const base::TimeNs its_ns = rule == Rule::first_come ? head.arrival_ns : head.deadline_ns;
    if (least != nullptr && its_ns >= least_ns) continue;
    least = &q;
    least_ns = its_ns;
  }
  return least;
}

/// One batch: all that it can hold, or as many as the first of them is in time with, whichever brings more in the time.
std::uint32_t TurnPlan::serve(Queue& q, base::TimeNs& now_ns) const noexcept {
  const base::TimeNs alone_ns = base::add_ns(now_ns, q.run_ns(1));
  while (q.at < q.end && waiting_[q.at].deadline_ns < alone_ns) ++q.at;
  if (q.at == q.end) return 0;
  const std::uint32_t n_all = std::min(q.end - q.at, q.max_batch_size);
  const auto in_time = [&](std::uint32_t n) {
    const base::TimeNs end_ns = base::add_ns(now_ns, q.run_ns(n));
    const auto from = waiting_.begin() + q.at, to = from + n;
    const auto late = std::partition_point(from, to, [&](const Waiting& w) { return w.deadline_ns < end_ns; });
    return static_cast<std::uint32_t>(to - late);
  };
  std::uint32_t least = 1, beyond = n_all + 1;
  while (beyond - least > 1) {
    const std::uint32_t n = (least + beyond) / 2;
    (base::add_ns(now_ns, q.run_ns(n)) <= waiting_[q.at].deadline_ns ? least : beyond) = n;
  }
  const std::uint32_t n_in_all = in_time(n_all);
  const auto all_s = base::seconds(q.run_ns(n_all)), least_s = base::seconds(q.run_ns(least));
  const bool takes_all =
      least == n_all || static_cast<double>(n_in_all) * least_s >= static_cast<double>(least) * all_s;
  const std::uint32_t n = takes_all ? n_all : least;
  q.at += n;
  now_ns = base::add_ns(now_ns, q.run_ns(n));
  return takes_all ? n_in_all : least;
}

}  // namespace infcore::engine
