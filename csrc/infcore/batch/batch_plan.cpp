#include <infcore/batch/batch_plan.hpp>

#include <algorithm>
#include <bit>

namespace infcore::batch {

FirstBatch BatchPlan::first(base::TimeNs now_ns, std::span<const Waiting> waiting, const StartedBatch& started,
                            double price_per_s) noexcept {
  load(now_ns, waiting);
  const Label safe = best(started, price_per_s, late_factor_);
  return safe.value != none ? with_lucky(started, safe.first) : best(started, price_per_s, 1.0).first;
}

/// With those before it whom the mean lets be in time, as far as they endanger nobody.
FirstBatch BatchPlan::with_lucky(const StartedBatch& started, const FirstBatch& safe) const noexcept {
  std::uint32_t from = safe.n_skipped;
  const std::uint32_t end = from + safe.n_taken;
  const double limit_s = safe.n_taken > 0 ? std::min(started.limit_s, earliest_s(from, end)) : started.limit_s;
  for (; from > 0 && end - from < started.room; --from) {
    const double larger_s = curve_.service_s(joined(started, from - 1, end));
    if (larger_s * late_factor_ > limit_s || larger_s > deadline_s_[0][from - 1]) break;
  }
  return {from, end - from};
}

BatchPlan::Label BatchPlan::best(const StartedBatch& started, double price_per_s, double late_factor) noexcept {
  constexpr Label nowhere{none, 0.0, {0, 0}};
  std::fill_n(labels_.begin(), n_ + 1, nowhere);
  labels_[0].value = 0.0;
  Label best = nowhere;
  for (std::uint32_t layer = 0; layer < n_layers; ++layer) {
    std::fill_n(next_labels_.begin(), n_ + 1, nowhere);
    if (!extend(layer == 0 ? &started : nullptr, price_per_s, late_factor)) break;
    std::copy_n(next_labels_.begin(), n_ + 1, labels_.begin());
    for (std::uint32_t i = 0; i <= n_; ++i) {
      if (labels_[i].value > best.value) best = labels_[i];
    }
  }
  return best;
}

/// One batch more from every place reached; `started`: the first. False where none was possible.
bool BatchPlan::extend(const StartedBatch* started, double price_per_s, double late_factor) noexcept {
  const StartedBatch empty{.room = terms_.n_cap};
  const StartedBatch& begun = started != nullptr ? *started : empty;
  bool any = false;
  std::uint32_t guess = 1;
  for (std::uint32_t i = 0; i <= n_; ++i) {
    const Label label = labels_[i];
    if (label.value == none) continue;
    if (i < n_ && label.value > labels_[i + 1].value) labels_[i + 1] = label;  // this one is left out
    std::uint32_t end = i;
    if (i < n_) {
      end = last_in_time(i, std::max(guess, i + 1), std::min(n_, i + begun.room), [&](std::uint32_t last) {
        return label.start_s + curve_.service_s(joined(begun, i, last)) * late_factor <=
               std::min(begun.limit_s, earliest_s(i, last));
      });
      guess = end;
    }
    const contracts::BatchShape sent = joined(begun, i, end);
    if (sent.n_requests == 0) continue;
    // A request that is heavier than others costs no more: else the heavy ones would be served last of all.
    const double n = sent.n_requests;
    const double cost = price_per_s * curve_.service_s({sent.n_requests, n * work_mean_, work_mean_});
    const double value = label.value + (end - i) - cost;
    Label& to = next_labels_[end];
    if (value > to.value) {
      to = {value, label.start_s + curve_.service_s(sent) * terms_.next_start,
            started != nullptr ? FirstBatch{i, end - i} : label.first};
      any = true;
    }
  }
  return any;
}

/// The last end in [from, most] for which all are in time; from where there is none. `in_time` falls with its argument.
/// Looked for from `guess` on in growing steps, then by halves: most often it is the same as for the one before.
template <class InTime>
std::uint32_t BatchPlan::last_in_time(std::uint32_t from, std::uint32_t guess, std::uint32_t most,
                                      const InTime& in_time) noexcept {
  std::uint32_t least = from, beyond = most + 1, step = 1;
  for (std::uint32_t at = std::min(guess, most); beyond - least > 1;) {
    const bool can = in_time(at);
    (can ? least : beyond) = at;
    if (least == from) {
      at = beyond - from > step ? beyond - step : from + 1;
    } else if (beyond > most) {
      at = std::min(least + step, most);
    } else {
      at = (least + beyond) / 2;
    }
    step *= 2;
  }
  return least;
}

void BatchPlan::load(base::TimeNs now_ns, std::span<const Waiting> waiting) noexcept {
  n_ = static_cast<std::uint32_t>(waiting.size());
  sorted_ = alike_ = true;
  for (std::uint32_t i = 0; i < n_; ++i) {
    deadline_s_[0][i] = base::seconds(waiting[i].deadline_ns - now_ns);
    work_[0][i] = waiting[i].work;
    work_before_[i + 1] = work_before_[i] + waiting[i].work;
    if (i == 0) continue;
    sorted_ = sorted_ && deadline_s_[0][i] >= deadline_s_[0][i - 1];
    alike_ = alike_ && work_[0][i] == work_[0][i - 1];
  }
  work_mean_ = n_ > 0 ? work_before_[n_] / n_ : 0.0;
  for (std::uint32_t level = 1; level < n_levels && (1u << level) <= n_; ++level) {
    const std::uint32_t half = 1u << (level - 1);
    for (std::uint32_t i = 0; i + 2 * half <= n_; ++i) {
      if (!sorted_) deadline_s_[level][i] = std::min(deadline_s_[level - 1][i], deadline_s_[level - 1][i + half]);
      if (!alike_) work_[level][i] = std::max(work_[level - 1][i], work_[level - 1][i + half]);
    }
  }
}

double BatchPlan::earliest_s(std::uint32_t from, std::uint32_t end) const noexcept {
  if (sorted_) return deadline_s_[0][from];
  const auto level = static_cast<std::uint32_t>(std::bit_width(end - from)) - 1;
  return std::min(deadline_s_[level][from], deadline_s_[level][end - (1u << level)]);
}

double BatchPlan::work_max(std::uint32_t from, std::uint32_t end) const noexcept {
  if (alike_) return work_[0][from];
  const auto level = static_cast<std::uint32_t>(std::bit_width(end - from)) - 1;
  return std::max(work_[level][from], work_[level][end - (1u << level)]);
}

contracts::BatchShape BatchPlan::joined(const StartedBatch& started, std::uint32_t from,
                                        std::uint32_t end) const noexcept {
  if (from == end) return started.shape;
  return {started.shape.n_requests + (end - from), started.shape.work_sum + (work_before_[end] - work_before_[from]),
          std::max(started.shape.work_max, work_max(from, end))};
}

}  // namespace infcore::batch
