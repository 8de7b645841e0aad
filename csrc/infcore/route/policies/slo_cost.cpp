// The node of least cost, all of it in microseconds: waiting + service + pressure + model load + network - what it
// holds of the prompt already + its money + the risk of missing the deadline.
//
// Source: greedy list scheduling on predicted finish times, as fastest_finish. Risk: Cantelli's inequality
//   (F. P. Cantelli, "Sui confini della probabilita", 1928), a bound of the probability to be late that needs a mean
//   and a deviation alone. Two at random of those that are alike, where figures are stale: M. Mitzenmacher, "How useful
//   is old information?", IEEE TPDS 11(1), 2000, sections 3 and 4 (doi:10.1109/71.824633).
// Differs: money is a cost beside time, not a bound. Nodes that the costs would never choose get their turn as bandits
//   give it, but under a budget in both of its currencies: a share of the requests, and the same share of the cost.
// Cost: one pass of float32 columns, O(nodes); where nodes signal, a second one over one column, that finds who is
//   alike. A bit per model and node.
// Tunables:
//   price_us_per_usd  what a US dollar counts for. 1e8: an hour of a request's time is worth 36 $, an hour of
//   somebody's
//                     work; a device of 3 $ an hour then adds a twelfth of its service time. Money so decides between
//                     devices of about the same speed, and slow ones get no more than they are cheaper.
//   risk              what missing the deadline costs, as a share of the time that was left. 1: as if the answer came
//                     after twice the time.
//   explore           share of requests, and of the cost, that goes to nodes which had no request for longest.
//   block_size        work that a block of `blocks` stands for. 16 tokens: vLLM's.
//   picker            "least"; "power_of_two": of two at random the cheaper; "softmax": at random, the likelier the
//                     cheaper, e times less for each `temperature` times the least cost more.
//   herd_margin       with "least", where nodes signal: how much dearer than the best, but for its queue, a node may be
//                     to count as alike. Of those, two are drawn and the cheaper chosen, so that routers which see the
//                     same old signal do not all run to one node. 0: never.
//   joint_*           of an engine's joint choice (engine/weighing.cpp), which is bounded where this is not:
//     price           microseconds that a US dollar of a device's time counts for. 1e12: an hour of a request's time is
//                     worth a third of a cent; within what the two below allow, the cheaper device is taken.
//     goal_share, tail  how late a request may be for money: this share of what its deadline leaves it, and not later
//                     than this quantile of what all requests take on whatever is fastest for them.
//     by_work         1: who goes where by its work, and devices that were never tried are; 0: first come, first served
// Ties go to the lowest id.
#include <infcore/base/draw.hpp>
#include <infcore/base/errors.hpp>
#include <infcore/route/routing_policy.hpp>
#include <infcore/route/two_choices.hpp>

#include <algorithm>
#include <bit>
#include <limits>

namespace infcore::route {
namespace {

constexpr float none = std::numeric_limits<float>::infinity();
/// How many requests later a turn that could not be afforded is looked at again: who gets it takes a second pass over
/// the nodes, which most requests would go through for nothing.
constexpr double put_off_requests = 8.0;

enum class Picker : std::uint8_t { least, power_of_two, softmax };

struct Tunables {
  CostWeights weights;
  JointWeights joint;
  double explore;
  Picker picker;
  double temperature;
  double herd_margin;
};

/// The next float32 below. Precondition: x >= 0, as costs are, and finite.
float below(float x) noexcept {
  return x == 0.0f ? -std::numeric_limits<float>::denorm_min()
                   : std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) - 1);
}

class SloCost final : public RoutingPolicy {
 public:
  SloCost(std::uint64_t seed, const Tunables& tunables) noexcept : is_(tunables), choices_(seed), draw_(seed, 1) {}
  const char* name() const noexcept override { return "slo_cost"; }
  bool binds_on_arrival() const noexcept override { return false; }
  JointWeights joint() const noexcept override { return is_.joint; }
  bool reads_blocks() const noexcept override { return true; }
  CostWeights weights() const noexcept override { return is_.weights; }

  void attach(const Fleet& fleet) override {
    n_words_ = fleet.columns().n_words();
    turns_.resize(fleet.max_models());
    had_.resize(std::size_t{fleet.max_models()} * n_words_);
  }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    const Choice choice = choose(query, view);
    if (choice.node == base::no_node) return base::no_node;
    choices_ = choice.choices;
    draw_ = choice.draw;
    take_turn(query.model, choice);
    nudge_ = choice.nudge();
    return choice.node;
  }

  Nudge nudge(const RouteQuery& query, RouteView& view) noexcept override { return choose(query, view).nudge(); }

  CostTerms terms(const RouteQuery& /*query*/, RouteView& view, NodeId node) noexcept override {
    CostTerms terms = view.terms_of(node);
    terms.explore_us = nudge_.explore_us;
    terms.cost_us += nudge_.explore_us;
    return terms;
  }

 private:
  /// What is due to the nodes that a model's requests pass by.
  struct Turns {
    double requests{};  ///< at most one
    double cost_us{};
  };
  /// A choice, and the generators behind it.
  struct Choice {
    NodeId node{base::no_node};
    float cost_us{};   ///< its own
    float least_us{};  ///< the least of all
    bool explored{};
    bool all_had_one{};
    bool put_off{};  ///< a turn was due that could not be afforded
    bool drawn{};    ///< it is not by its own cost that it was chosen
    TwoChoices choices;
    base::Draw draw;
    [[nodiscard]] Nudge nudge() const noexcept {
      if (node == base::no_node || !drawn) return {};
      return {node, static_cast<double>(below(least_us)) - static_cast<double>(cost_us)};
    }
  };

  /// Changes nothing but the view's preparation.
  Choice choose(const RouteQuery& query, RouteView& view) const noexcept {
    Choice choice{.choices = choices_, .draw = draw_};
    if (!view.prepare(query, is_.weights)) return choice;
    const bool shares = is_.picker == Picker::least && is_.herd_margin > 0.0 && view.signalled();
    const bool may_explore = is_.picker == Picker::least && turns_[query.model.value].requests >= 1.0;
    const Least least = shares || may_explore ? view.least_cost_noting() : view.least_cost();
    if (least.value == none) return choice;
    choice.node = NodeId{least.node};
    choice.cost_us = choice.least_us = least.value;
    switch (is_.picker) {
      case Picker::softmax:
        draw_by_cost(view, choice);
        break;
      case Picker::power_of_two:
        view.keep_within(none);
        draw_two(view, choice);
        break;
      case Picker::least:
        if (may_explore && give_turn(query, view, choice)) break;
        if (shares) {
          view.keep_noted(view.score(choice.node).standing_us * static_cast<float>(1.0 + is_.herd_margin));
          draw_two(view, choice);
        }
        break;
    }
    choice.drawn = choice.node.value != least.node;
    return choice;
  }

  static void draw_two(RouteView& view, Choice& choice) noexcept {
    const auto [low, high] = choice.choices.draw(view);
    const float cost_of_low = view.score(low).cost_us, cost_of_high = view.score(high).cost_us;
    choice.node = cost_of_high < cost_of_low ? high : low;
    choice.cost_us = cost_of_high < cost_of_low ? cost_of_high : cost_of_low;
  }

  void draw_by_cost(RouteView& view, Choice& choice) const noexcept {
    const std::span<const float> costs = view.costs();
    const double scale = -1.0 / (is_.temperature * std::max(static_cast<double>(choice.least_us), 1e-3));
    const auto weight = [&](float cost_us) {
      const double x = (static_cast<double>(cost_us) - static_cast<double>(choice.least_us)) * scale;
      return x > -40.0 ? base::exp(x) : 0.0;
    };
    double sum = 0.0;
    for (const float cost_us : costs) sum += weight(cost_us);
    double left = choice.draw.uniform() * sum;
    for (std::uint32_t i = 0; i < costs.size(); ++i) {
      const double here = weight(costs[i]);
      if (here == 0.0) continue;
      choice.node = NodeId{i};  // the last one that has a weight, if rounding leaves something over
      choice.cost_us = costs[i];
      if (left < here) return;
      left -= here;
    }
  }

  /// The cheapest of the nodes that had no request of the model since all had one, if that can be afforded. One request
  /// is due.
  bool give_turn(const RouteQuery& query, RouteView& view, Choice& choice) const noexcept {
    const Turns& due = turns_[query.model.value];
    const Least other = view.least_noted_outside(&had_[std::size_t{query.model.value} * n_words_]);
    const NodeId node{other.node};
    if (other.value == none || view.score(node).load_us > 0.0f) {  // nobody loads a model to give a node its turn
      choice.all_had_one = true;
      return false;
    }
    const double dearer_us = static_cast<double>(other.value) - static_cast<double>(choice.least_us);
    if (dearer_us > due.cost_us || endangers(query, view, node)) {
      choice.put_off = true;
      return false;
    }
    choice.node = node;
    choice.cost_us = other.value;
    choice.explored = true;
    return true;
  }

  /// A deadline is safe where the node may take twice as long as is predicted; ten times, where nothing is known of it.
  static bool endangers(const RouteQuery& query, const RouteView& view, NodeId node) noexcept {
    if (query.deadline_ns == base::never_ns) return false;
    const contracts::LatencyModel& known = view.latency().at(query.model, node);
    const float spare = known.n_observed() > 0 || known.has_prior() ? 1.0f : 9.0f;
    const NodeScore score = view.score(node);
    const double budget_us = static_cast<double>(query.deadline_ns - query.now_ns) * 1e-3;
    return static_cast<double>(score.upper_us + spare * (score.wait_us + score.service_us)) > budget_us;
  }

  void take_turn(ModelId model, const Choice& choice) noexcept {
    if (is_.explore == 0.0 || is_.picker != Picker::least) return;
    Turns& due = turns_[model.value];
    std::uint64_t* const had = &had_[std::size_t{model.value} * n_words_];
    if (choice.all_had_one) std::fill_n(had, n_words_, 0);
    had[choice.node.value / 64] |= std::uint64_t{1} << (choice.node.value % 64);
    if (choice.explored) {
      due.requests -= 1.0;
      due.cost_us -= static_cast<double>(choice.cost_us) - static_cast<double>(choice.least_us);
    }
    if (choice.put_off) due.requests = std::max(0.0, due.requests - put_off_requests * is_.explore);
    due.requests = std::min(due.requests + is_.explore, 1.0);
    due.cost_us += is_.explore * static_cast<double>(choice.least_us);
  }

  const Tunables is_;
  TwoChoices choices_;
  base::Draw draw_;
  Nudge nudge_;
  std::size_t n_words_{};
  std::vector<Turns> turns_;        // by model
  std::vector<std::uint64_t> had_;  // by model: nodes that had a request since all had one, 64 a word
};

Picker picker_of(const std::string& name) {
  if (name == "least") return Picker::least;
  if (name == "power_of_two") return Picker::power_of_two;
  if (name == "softmax") return Picker::softmax;
  throw UnknownName("picker", name, "least, power_of_two, softmax");
}

}  // namespace

std::unique_ptr<RoutingPolicy> make_slo_cost(std::uint64_t seed, RoutingOptions& options) {
  return std::make_unique<SloCost>(
      seed, Tunables{.weights = {.price_us_per_usd = options.number("price_us_per_usd", 1e8, 0.0, 1e15),
                                 .risk = options.number("risk", 1.0, 0.0, 1e6),
                                 .block_size = options.number("block_size", 16.0, 0.0, 1e6),
                                 .loads = true},
                     .joint = {.price_us_per_usd = options.number("joint_price", 1e12, 0.0, 1e15),
                               .goal_share = options.number("joint_goal_share", 0.03, 0.0, 1.0),
                               .tail = options.number("joint_tail", 0.99, 0.0, 1.0),
                               .by_work = options.number("joint_by_work", 1.0, 0.0, 1.0) > 0.0,
                               .beside = options.number("joint_beside", 0.3, 0.0, 1e3)},
                     .explore = options.number("explore", 0.01, 0.0, 1.0),
                     .picker = picker_of(options.text("picker", "least")),
                     .temperature = options.number("temperature", 0.1, 1e-6, 1e6),
                     .herd_margin = options.number("herd_margin", 0.25, 0.0, 1e6)});
}

}  // namespace infcore::route
