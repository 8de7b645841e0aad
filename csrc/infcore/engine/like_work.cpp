// Who goes with whom. Where a batch is padded to its largest member, its requests are to be of like work: as far as the
// device's curve says that padding costs something, in the cheapest way to cut those who come first into groups; where
// it does not say, in the model's length buckets. The batch is the group of whoever comes first in the order of
// service, so that neither the rare nor the large wait longer for it.
#include <infcore/engine/state_machine.hpp>

#include <algorithm>
#include <limits>
#include <span>

namespace infcore::engine {
namespace {

/// The range of a model's buckets that the work is in; the last one has no upper end.
std::size_t bucket_of(const std::vector<double>& upper_ends, double work) noexcept {
  return static_cast<std::size_t>(std::lower_bound(upper_ends.begin(), upper_ends.end(), work) - upper_ends.begin());
}

/// Order of service is given up for groups of like work only where those who come first take at most this share of
/// their padded batch's seconds in groups: a term that is hardly there, or was learnt of noise, is not worth it.
constexpr double worth_grouping = 0.9;

}  // namespace

/// Whether those who wait should not all be in one batch there. O(1) where all are alike.
bool StateMachine::matters_who_joins(const Lane& lane, const Pool& pool, NodeId id) const noexcept {
  if (pool.n_waiting < 2 || pool.work_least == pool.work_most) return false;
  if (latency_.at(lane.model, id).curve().per_padded_work_s > 0.0) return true;
  const std::vector<double>& buckets = models_[lane.model.value].config.length_buckets;
  return bucket_of(buckets, pool.work_least) != bucket_of(buckets, pool.work_most);
}

/// Whether the work may join the batch: the batch gets no longer by it than it would take alone.
bool StateMachine::is_like(const Batch& b, double work, NodeId id) const noexcept {
  if (work == b.shape.work_max) return true;
  const contracts::LatencyModel& latency = latency_.at(b.model, id);
  if (latency.curve().per_padded_work_s > 0.0) {
    contracts::BatchShape larger = b.shape, alone;
    larger.add(work);
    alone.add(work);
    return latency.service_s(larger) <= latency.service_s(b.shape) + latency.service_s(alone);
  }
  const std::vector<double>& buckets = models_[b.model.value].config.length_buckets;
  return bucket_of(buckets, work) == bucket_of(buckets, b.shape.work_max);
}

/// Of those shown, what is of like work with the first.
void StateMachine::keep_like(const Lane& lane, NodeId id, std::uint32_t n_max) {
  const contracts::Curve& curve = latency_.at(lane.model, id).curve();
  const std::vector<double>& buckets = models_[lane.model.value].config.length_buckets;
  double least = 0.0, most = std::numeric_limits<double>::infinity();
  if (curve.per_padded_work_s > 0.0) {
    works_.clear();
    for (const batch::Waiting& w : waiting_) works_.push_back(w.work);
    contracts::BatchShape in_order;
    const std::size_t n_first = std::min<std::size_t>(n_max, works_.size());
    for (std::size_t i = 0; i < n_first; ++i) in_order.add(works_[i]);
    length_groups_.split(std::span(works_).first(n_first), curve, n_max);
    if (length_groups_.seconds() > worth_grouping * curve.service_s(in_order)) return;
    length_groups_.split(works_, curve, n_max);
    std::uint32_t g = 0;
    const auto holds_first = [&](std::span<const std::uint32_t> group) {
      return std::find(group.begin(), group.end(), 0u) != group.end();
    };
    while (!holds_first(length_groups_.group(g))) ++g;
    least = works_[length_groups_.group(g).front()];
    most = works_[length_groups_.group(g).back()];
  }
  const std::size_t bucket = bucket_of(buckets, waiting_[0].work);
  std::size_t n = 0;
  for (std::size_t i = 0; i < shown_.size(); ++i) {
    const double work = waiting_[i].work;
    const bool is_like =
        curve.per_padded_work_s > 0.0 ? work >= least && work <= most : bucket_of(buckets, work) == bucket;
    if (!is_like) continue;
    shown_[n] = shown_[i];
    waiting_[n++] = waiting_[i];
  }
  shown_.resize(n);
  waiting_.resize(n);
}

/// The largest of the model's preferred sizes within `n`, where the rest would be in time after that batch, and nobody
/// has waited until he is aged.
std::uint32_t StateMachine::preferred(TimeNs now_ns, const Lane& lane, const Pool& pool, NodeId id,
                                      std::uint32_t n) noexcept {
  const std::vector<std::uint32_t>& sizes = models_[lane.model.value].config.preferred_batch_sizes;
  const auto above = std::upper_bound(sizes.begin(), sizes.end(), n);
  if (above == sizes.begin() || *(above - 1) == n) return n;
  const std::uint32_t n_cut = *(above - 1);
  if (now_ns - pool.oldest_arrival_ns >= config_.ageing_ns) return n;
  const double mean = pool.work_mean();
  const auto upper_s = [&](std::uint32_t k) { return latency_.at(lane.model, id).upper_s({k, mean * k, mean}); };
  const TimeNs both_ns = base::add_ns(now_ns, base::to_ns(upper_s(n_cut) + upper_s(n - n_cut)));
  return both_ns > pool.earliest_deadline_ns ? n : n_cut;
}

}  // namespace infcore::engine
