#include <infcore/batch/batch_plan.hpp>

#include <algorithm>
#include <bit>

namespace infcore::batch {

FirstBatch BatchPlan::first(base::TimeNs now_ns, std::span<const Waiting> waiting,
                            const contracts::BatchShape& started, double limit_s, std::uint32_t room) noexcept {
  load(now_ns, waiting);
  for (auto& layer : labels_) std::fill_n(layer.begin(), n_ + 1, Label{none, 0.0, {0, 0}});
  labels_[0][0].value = 0.0;
  Label best{none, 0.0, {0, 0}};
  for (std::uint32_t layer = 0; layer < n_layers; ++layer) {
    if (!extend(layer, started, limit_s, room)) break;
    auto& reached = labels_[(layer + 1) % 2];
    for (std::uint32_t i = 0; i <= n_; ++i) {
      if (reached[i].value > best.value) best = reached[i];
    }
    std::fill_n(labels_[layer % 2].begin(), n_ + 1, Label{none, 0.0, {0, 0}});
  }
  return best.first;
}

/// One batch more from every place reached. False where none was possible.
bool BatchPlan::extend(std::uint32_t layer, const contracts::BatchShape& started, double limit_s,
                       std::uint32_t room) noexcept {
  auto& labels = labels_[layer % 2];
  auto& next = labels_[(layer + 1) % 2];
  const bool is_first = layer == 0;
  const std::uint32_t most = is_first ? room : price_.n_cap;
  const std::uint32_t n_started = is_first ? started.n_requests : 0;
  bool any = false;
  std::uint32_t guess = 1;
  for (std::uint32_t i = 0; i <= n_; ++i) {
    const Label label = labels[i];
    if (label.value == none) continue;
    if (i < n_ && label.value > labels[i + 1].value) labels[i + 1] = label;  // this one is left out
    const auto batch = [&](std::uint32_t end) {
      contracts::BatchShape s = shape(i, end);
      if (is_first) {
        s.n_requests += started.n_requests;
        s.work_sum += started.work_sum;
        s.work_max = std::max(s.work_max, started.work_max);
      }
      return s;
    };
    std::uint32_t end = i;
    if (i < n_) {
      end = last_in_time(i, std::max(guess, i + 1), std::min(n_, i + most), [&](std::uint32_t last) {
        const double by_s = is_first ? std::min(limit_s, earliest_s(i, last)) : earliest_s(i, last);
        return label.start_s + late_s(batch(last)) <= by_s;
      });
      guess = end;
    }
    if (end == i && n_started == 0) continue;
    const contracts::BatchShape sent = batch(end);
    // A request that is heavier than others costs no more: else the heavy ones would be served last of all.
    const double n = sent.n_requests;
    const double value =
        label.value + (end - i) - price_.per_s * curve_.service_s({sent.n_requests, n * work_mean_, work_mean_});
    Label& to = next[end];
    if (value > to.value) {
      to.value = value;
      to.start_s = label.start_s + curve_.service_s(sent) * price_.next_start;
      to.first = is_first ? FirstBatch{i, end - i} : label.first;
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

contracts::BatchShape BatchPlan::shape(std::uint32_t from, std::uint32_t end) const noexcept {
  if (from == end) return {};
  return {end - from, work_before_[end] - work_before_[from], work_max(from, end)};
}

}  // namespace infcore::batch
