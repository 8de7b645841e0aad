// What the joint choice weighs beside the time of finishing, where its policy says so (route::JointWeights). Money: a
// cheaper device is taken, or waited for, as long as the request surely stays well inside its goal and does not take
// longer than what others take anyway, so that the tail of all does not grow. Work: of those that wait for unlike
// devices, each device gets those for which it is the better one, the small for a device that is slow by the unit of
// work and the large for the others (comparative advantage): so the largest, which make the tail, go where they are
// done soonest. And a device of which nothing is known but what others of its class are like is tried.
#include <infcore/engine/state_machine.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <utility>

namespace infcore::engine {
namespace {

/// Requests that go to nodes only so that these are known: so many at first, then one in so many.
constexpr std::uint64_t n_tries_free = 16, n_taken_a_try = 128;
/// Of the time that its deadline leaves a request, what a node may be believed to take for it to be tried.
constexpr double try_share = 0.25;
/// Nodes that are looked at in vain before it is left for another time.
constexpr std::uint32_t n_passed_max = 4;
/// What the running quantile moves by, as a share of itself, and for how many that came one may tell.
constexpr double tail_step = 0.01;
constexpr std::uint32_t n_told_max = 64;
/// What a busy device still takes, and what a request has waited already, count so many times where money is the only
/// reason to wait: a queue is known worse than a run, and who has waited in vain goes to the first to finish after it.
constexpr float wait_slack = 1.5f;
/// Devices that are looked at one after another, the cheapest first, for one that is surely in time.
constexpr std::uint32_t n_looks_max = 8;
/// Devices whose seconds for a unit of work are within this factor are alike: who gets what does not matter there.
constexpr float unlike = 1.25f;
/// What the largest of those that wait must gain or lose over the smallest by who gets whom, as a share of a run: less
/// is what curves are unsure of.
constexpr float worth_sorting = 0.1f;
/// Of those that wait, how many are sorted by work.
constexpr std::uint32_t n_sorted_max = 256;

}  // namespace

/// So many more requests that would take so long on whatever is fastest for them as they come: moves the quantile that
/// money may not push anybody beyond (stochastic approximation, Robbins and Monro 1951, in steps that are a share of
/// the value).
void StateMachine::note_fastest(double latency_s, std::uint32_t n_requests) noexcept {
  if (tail_s_ <= 0.0) tail_s_ = latency_s;
  for (std::uint32_t i = 0; i < n_requests; ++i) {
    if (latency_s > tail_s_) {
      tail_s_ += tail_s_ * (tail_step * weights_.tail);
    } else {
      tail_s_ -= tail_s_ * (tail_step * (1.0 - weights_.tail));
    }
  }
}

/// What money may let the request wait and take, from its arrival on.
double StateMachine::goal_s(const contracts::Request& r) const noexcept {
  if (r.deadline_ns == base::never_ns) return tail_s_;
  return std::min(tail_s_, weights_.goal_share * base::seconds(r.deadline_ns - r.arrival_ns));
}

/// Where all of the lane that waits costs least in one batch, of the devices that would be done while the first of them
/// has time left.
LeastCost StateMachine::least_costly(TimeNs now_ns, const Lane& lane, std::uint32_t n_requests,
                                     float work_mean) noexcept {
  const contracts::Request& head = slots_[lane.queue.front(now_ns)].request;
  const double waited_s = base::seconds(now_ns - head.arrival_ns);
  const auto n = static_cast<float>(n_requests);
  return least_cost({free_at_s_.data(), latency_.batch(lane.model)}, usd_per_s_.data(), others_.data(),
                    fleet_.n_nodes(),
                    {.now_s = base::seconds(now_ns),
                     .work_mean = work_mean,
                     .n_requests = n,
                     .by_s = static_cast<float>(goal_s(head) - static_cast<double>(wait_slack) * waited_s),
                     .s_per_usd = static_cast<float>(weights_.price_us_per_usd * 1e-6) / n,
                     .wait_slack = wait_slack});
}

/// Whether so many of the lane would be done there in the time that money may cost the first of them, also if the
/// largest of them are together and the run takes longer than nearly all.
bool StateMachine::surely_by(TimeNs now_ns, const Lane& lane, std::uint32_t n_requests, NodeId node) const noexcept {
  const contracts::Request& head = slots_[lane.queue.front(now_ns)].request;
  const double waited_s = base::seconds(now_ns - head.arrival_ns);
  const auto free_in_s = static_cast<double>(NodeFinish::free_in(free_at_s_[node.value], base::seconds(now_ns)));
  const contracts::BatchShape shape{n_requests, lane.work_mean() * n_requests, lane.work_most};
  const double run_s = latency_.at(lane.model, node).upper_s(shape);
  return static_cast<double>(wait_slack) * (free_in_s + waited_s) + run_s <= goal_s(head);
}

/// A node that was never given anything of the model is only believed to be as the best of its class is: it gets one
/// request while it is free and that is believed to leave most of its time, as long as few requests go so. False: there
/// is none, or it is not worth it.
bool StateMachine::dispatch_untried(TimeNs now_ns, std::uint32_t index, bool& sent) {
  Lane& lane = *lanes_[index];
  ModelState& model = models_[lane.model.value];
  if (model.n_tries > n_tries_free + model.n_taken / n_taken_a_try) return false;
  const contracts::Request& head = slots_[lane.queue.front(now_ns)].request;
  const contracts::BatchColumns curves = latency_.batch(lane.model);
  std::uint32_t n_passed = 0;
  for (std::uint32_t word = 0; word < (fleet_.n_nodes() + 63) / 64; ++word) {
    for (std::uint64_t left = free_candidates_[word] & ~model.tried[word]; left != 0; left &= left - 1) {
      const NodeId id{word * 64 + static_cast<std::uint32_t>(std::countr_zero(left))};
      if (latency_.at(lane.model, id).has_prior()) {
        model.tried[word] |= left & (~left + 1);
        continue;
      }
      const double alone_s = NodeFinish::of(0.0f, curves, id.value, static_cast<float>(head.work)).batch_s(1.0f);
      if (head.deadline_ns != base::never_ns && alone_s > try_share * base::seconds(head.deadline_ns - now_ns)) {
        if (++n_passed == n_passed_max) return false;
        continue;
      }
      suited_.clear();
      sources_.assign(1, {.lane = index, .left = 1});
      ++model.n_tries;
      sent = serve(now_ns, index, id, 1) == Served::sent;
      return true;
    }
  }
  return false;
}

/// The choice with money in it. False: nobody is cheap enough and surely in time, and the first to finish is to be
/// asked.
bool StateMachine::dispatch_costly(TimeNs now_ns, std::uint32_t index, float work_mean, bool& sent) {
  constexpr float none = std::numeric_limits<float>::infinity();
  Lane& lane = *lanes_[index];
  const std::uint32_t n = std::min(lane.queue.size(), models_[lane.model.value].config.max_batch_size);
  if (n < lane.queue.size()) return false;  // each would wait for the same cheap one, as if it were the only one
  LeastCost least = least_costly(now_ns, lane, n, work_mean);
  const double first_s = static_cast<double>(least.first_s);
  // Only who has just come and is alone tells: those who wait do so for money, and would move the bound that holds
  // them. He tells for all of his lane that came since, else the rare models, whose requests always come alone, would
  // say what all take.
  if (lane.queue.size() == 1 && slots_[lane.queue.front(now_ns)].request.arrival_ns == now_ns) {
    note_fastest(first_s, std::clamp(lane.n_untold, 1u, n_told_max));
    lane.n_untold = 0;
  }
  std::array<NodeId, n_looks_max> passed;
  std::uint32_t n_passed = 0;
  while (least.cost_s != none && !surely_by(now_ns, lane, n, NodeId{least.node})) {
    passed[n_passed++] = NodeId{least.node};
    others_[least.node / 64] &= ~(std::uint64_t{1} << (least.node % 64));
    least.cost_s = none;
    if (n_passed < n_looks_max) least = least_costly(now_ns, lane, n, work_mean);
  }
  for (std::uint32_t i = 0; i < n_passed; ++i) {
    others_[passed[i].value / 64] |= std::uint64_t{1} << (passed[i].value % 64);
  }
  if (least.cost_s == none) return false;
  const NodeId node{least.node};
  if ((free_candidates_[node.value / 64] >> (node.value % 64) & 1u) == 0) {
    set_lane_timer(index, base::add_ns(base::add_ns(now_ns, base::to_ns(look_again * first_s)), 1));
    sent = false;
    return true;
  }
  suited_.clear();
  sources_.assign(1, {.lane = index, .left = n});
  if (models_[lane.model.value].lanes.size() > 1) {
    const NodeFinish finish = NodeFinish::of(0.0f, latency_.batch(lane.model), node.value, work_mean);
    add_riders(now_ns, index, {.node = node, .first_s = finish.batch_s(1.0f)});
  }
  sent = serve(now_ns, index, node, n) == Served::sent;
  return true;
}

/// Of those that wait, those who stand where the first does (tier, aged or not), in the order in which the device
/// should have them; empty where it does not matter. The first comes first once it has waited for as long as the device
/// would take for it.
void StateMachine::list_by_work(TimeNs now_ns, std::uint32_t index, NodeId id) {
  Lane& lane = *lanes_[index];
  suited_.clear();
  const std::uint32_t head = lane.queue.front(now_ns);
  const std::uint32_t n_max = std::max(64u, models_[lane.model.value].config.max_batch_size);
  if (lane.queue.size() < 2 || lane.work_least == lane.work_most || slots_[head].solo || n_max > n_sorted_max) return;
  const FinishColumns columns{free_at_s_.data(), latency_.batch(lane.model)};
  const auto work_mean = static_cast<float>(lane.work_mean());
  const LeastCost rest = least_cost(columns, usd_per_s_.data(), others_.data(), fleet_.n_nodes(),
                                    {.now_s = base::seconds(now_ns),
                                     .work_mean = work_mean,
                                     .n_requests = 1.0f,
                                     .by_s = std::numeric_limits<float>::max(),
                                     .s_per_usd = 0.0f,
                                     .wait_slack = 1.0f});
  if (rest.cost_s == std::numeric_limits<float>::infinity()) return;
  const float here_s = columns.curves.per_work_s[id.value], there_s = columns.curves.per_work_s[rest.node];
  if (here_s <= there_s * unlike && there_s <= here_s * unlike) return;
  const auto works = static_cast<float>(lane.work_most - lane.work_least);
  const float apart_s = (here_s > there_s ? here_s - there_s : there_s - here_s) * works;
  if (apart_s < worth_sorting * NodeFinish::of(0.0f, columns.curves, id.value, work_mean).batch_s(1.0f)) return;
  // Where a batch is padded, small ones beside the first of them are no faster than it is: like goes with like there.
  const contracts::Curve& curve = latency_.at(lane.model, id).curve();
  if (models_[lane.model.value].config.max_batch_size > 1 && curve.per_padded_work_s > curve.per_work_s) return;
  const bool aged = is_aged(head, now_ns);
  lane.queue.in_order(now_ns, order_scratch_, [&](std::uint32_t slot) {
    if (slots_[slot].request.tier != slots_[head].request.tier || is_aged(slot, now_ns) != aged) return false;
    suited_.push_back(slot);
    return suited_.size() < n_max;
  });
  if (suited_.empty()) return;
  const contracts::Request& first = slots_[head].request;
  const auto waited_s = static_cast<float>(base::seconds(now_ns - first.arrival_ns));
  const auto left_s = static_cast<float>(base::seconds(first.deadline_ns - now_ns));
  const float alone_s =
      NodeFinish::of(0.0f, columns.curves, id.value, static_cast<float>(first.work)).batch_s(1.0f) * strictly;
  const bool keeps_first = alone_s <= waited_s && alone_s <= left_s;
  std::stable_sort(suited_.begin() + (keeps_first ? 1 : 0), suited_.end(), [&](std::uint32_t a, std::uint32_t b) {
    const double work_a = slots_[a].request.work, work_b = slots_[b].request.work;
    return here_s > there_s ? work_a < work_b : work_b < work_a;
  });
}

/// As share_of(), where who gets how many depends on who it is: suited_ then holds them, else it is empty.
std::uint32_t StateMachine::share_by_work(TimeNs now_ns, std::uint32_t index, const Taker& taker, float work_mean) {
  Lane& lane = *lanes_[index];
  std::uint64_t& word = others_[taker.node.value / 64];
  const std::uint64_t was = std::exchange(word, word & ~(std::uint64_t{1} << (taker.node.value % 64)));
  list_by_work(now_ns, index, taker.node);
  if (suited_.empty()) {
    word = was;
    return share_of(now_ns, index, taker, work_mean);
  }
  works_before_.assign(1, 0.0);
  for (const std::uint32_t slot : suited_) works_before_.push_back(works_before_.back() + slots_[slot].request.work);
  const FinishColumns columns{free_at_s_.data(), latency_.batch(lane.model)};
  const std::uint32_t n_requests = lane.queue.size();
  const std::uint32_t max_batch_size = models_[lane.model.value].config.max_batch_size;
  const contracts::Request& head = slots_[lane.queue.front(now_ns)].request;
  const auto waited_s = static_cast<float>(base::seconds(now_ns - head.arrival_ns));
  const auto left_s = static_cast<float>(base::seconds(head.deadline_ns - now_ns));
  const float base_s = columns.curves.base_s[taker.node.value];
  const float per_request_s = columns.curves.per_request_s[taker.node.value];
  const float per_work_s = columns.curves.per_work_s[taker.node.value];
  const auto can_have = [&](std::uint32_t n) {
    const float slope_s = per_request_s * static_cast<float>(n) + per_work_s * static_cast<float>(works_before_[n]);
    const float t_s = (base_s + slope_s) * strictly;
    if (t_s <= waited_s && t_s <= left_s) return true;
    const std::uint32_t n_enough = n_requests - n + 1;
    const double rest = std::max(0.0, lane.work_pending - works_before_[n - 1]) / n_enough;
    const double least_work = slots_[suited_[n - 1]].request.work;
    const FinishQuery query{base::seconds(now_ns), static_cast<float>(std::max(rest, least_work)),
                            static_cast<float>(max_batch_size), static_cast<float>(n_requests)};
    const std::uint32_t n_further = n_in_further_slots(lane.model, query, t_s, n_enough);
    return n_further < n_enough &&
           finish_fewer(columns, others_.data(), fleet_.n_nodes(), query, t_s, n_enough - n_further);
  };
  std::uint32_t least = 0, beyond = std::min(static_cast<std::uint32_t>(suited_.size()), max_batch_size) + 1;
  while (beyond - least > 1) {
    const std::uint32_t n = (least + beyond) / 2;
    (can_have(n) ? least : beyond) = n;
  }
  word = was;
  return least;
}

/// Opens the batch with the first of suited_, as far as they are in time there and go together. False: they would not
/// be in time.
bool StateMachine::fill_suited(TimeNs now_ns, std::uint32_t index, NodeId id, Batch& b, std::uint32_t n_max) {
  Lane& lane = *lanes_[index];
  TimeNs earliest_ns = base::never_ns;
  std::size_t n = 0;
  for (const std::uint32_t slot : suited_) {
    if (n == n_max) break;
    const contracts::Request& r = slots_[slot].request;
    if (slots_[slot].solo || late_on(now_ns, lane.model, r, id)) continue;
    if (n > 0 && !is_like(b, r.work, id)) continue;
    b.shape.add(r.work);
    earliest_ns = std::min(earliest_ns, r.deadline_ns);
    suited_[n++] = slot;
  }
  const double upper_s = latency_.at(lane.model, id).upper_s(b.shape);
  b.shape = {};
  if (n == 0 || base::add_ns(now_ns, base::to_ns(upper_s)) > earliest_ns) return false;
  Filling filling = filling_of(lane, id);
  sources_.front().left -= static_cast<std::uint32_t>(n);
  for (std::size_t i = 0; i < n; ++i) take(now_ns, suited_[i], id, b, filling);
  if (filling.credit.inflight != 0 || filling.credit.reserved_ns != 0) fleet_.change_credit(id, filling.credit);
  return true;
}

}  // namespace infcore::engine
