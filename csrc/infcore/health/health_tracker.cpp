#include <infcore/base/errors.hpp>
#include <infcore/health/health_tracker.hpp>

#include <algorithm>
#include <bit>
#include <limits>
#include <sstream>
#include <string>

namespace infcore::health {
namespace {

using base::NodeId;
using base::TimeNs;
using contracts::Answer;
using contracts::HealthConfig;

constexpr std::uint32_t nobody = 0xFFFF'FFFFu;
constexpr std::uint32_t ejections_counted_max = 16;
/// Peers' answers that a node's own are held against, at least.
constexpr std::uint32_t peer_answers_min = 8;
/// The same of those that came while it erred.
constexpr std::uint32_t peers_beside_min = 3;
/// How likely a node whose errors were its peers' might err so often in a row: less than this.
constexpr double by_chance_max = 1e-4;
/// Answers that a share of errors is taken of, errors in it, and how many times the peers' share it must be.
constexpr std::uint32_t rate_answers_min = 16, rate_errors_min = 5;
constexpr double times_the_peers = 3.0;
/// Of the last 16 answers: so many slow ones. Eight by chance of a node that is slow once in fifty: 1e-10.
constexpr std::uint32_t pace_answers = 16, slow_answers_min = 8, apart_answers_min = 12;
/// A class of which a quarter is slow now is slow as a class.
constexpr double peers_slow_max = 0.25;
constexpr std::uint32_t judged_peers_min = 3;
constexpr std::uint32_t apart_part = 4;
/// Answers of a node that may not be ejected, before it is asked again: the answer costs a pass over its class.
constexpr std::uint32_t ask_again_after = 16;
constexpr std::uint32_t slow_start_steps = 8;
constexpr TimeNs check_every_ns = 1'000'000'000;
/// A node that is not out is checked where it was idle for so long: its next request is to find it well.
constexpr TimeNs check_idle_ns = 10'000'000'000;

bool is_in(const std::vector<std::uint64_t>& set, std::uint32_t node) noexcept {
  return (set[node / 64] >> (node % 64) & 1) != 0;
}

void put(std::vector<std::uint64_t>& set, std::uint32_t node, bool in) noexcept {
  const std::uint64_t bit = std::uint64_t{1} << (node % 64);
  set[node / 64] = in ? set[node / 64] | bit : set[node / 64] & ~bit;
}

void check(const char* field, double value, double low, double high, const char* unit = "") {
  const auto text = [](double x) {
    std::ostringstream out;
    out << x;
    return out.str();
  };
  if (!(value >= low && value <= high))
    throw InvalidArgument(field, text(value), text(low) + " to " + text(high) + unit);
}

const HealthConfig& valid(const HealthConfig& config) {
  constexpr double year_s = 3.2e7;
  const auto time = [](const char* field, TimeNs value, double low_s) {
    check(field, base::seconds(value), low_s, year_s, " s");
  };
  check("errors_in_a_row", config.errors_in_a_row, 1, 64);
  check("error_rate", config.error_rate, 0.01, 1.0);
  check("slow_factor", config.slow_factor, 1.5, 1e6);
  check("ejected_share_max", config.ejected_share_max, 0.0, 1.0);
  check("probes", config.probes, 1, 1000);
  time("eject_s", config.eject_ns, 1e-3);
  time("eject_s_max", config.eject_ns_max, base::seconds(config.eject_ns));
  time("forgive_s", config.forgive_ns, 1e-3);
  time("slow_start_s", config.slow_start_ns, 0.0);
  time("forget_s", config.forget_ns, 1e-3);
  return config;
}

}  // namespace

HealthTracker::HealthTracker(const contracts::FleetColumns& columns, const HealthConfig& config)
    : columns_(columns),
      config_(valid(config)),
      rows_(columns.header().max_nodes),
      out_(columns.n_words()),
      bounded_(columns.n_words()),
      pace_(columns.header().max_nodes, columns.header().max_models, config.slow_factor) {}

std::unique_ptr<contracts::NodeHealth> make_health_tracker(const contracts::FleetColumns& columns,
                                                           const HealthConfig& config) {
  return std::make_unique<HealthTracker>(columns, config);
}

// ---- who is there

void HealthTracker::joined(NodeId node, std::uint64_t alike) {
  left(node);
  const auto found = std::find(alike_.begin(), alike_.end(), alike);
  auto device_class = static_cast<std::uint32_t>(found - alike_.begin());
  if (found == alike_.end() && alike_.size() < rows_.size()) {
    alike_.push_back(alike);
    slow_.emplace_back();
    n_of_class_.push_back(0);
  } else if (found == alike_.end()) {  // as many classes as nodes may be there: one is nobody's
    device_class =
        static_cast<std::uint32_t>(std::find(n_of_class_.begin(), n_of_class_.end(), 0u) - n_of_class_.begin());
    alike_[device_class] = alike;
    slow_[device_class] = {};
    pace_.forget_class(device_class);
  }
  ++n_of_class_[device_class];
  pace_.joined(node.value, device_class);
}

void HealthTracker::left(NodeId node) {
  enter(node.value, Stage::well, 0, base::never_ns);
  rows_[node.value] = {};
  const std::uint32_t device_class = pace_.class_of(node.value);
  if (device_class != ClassPace::no_class) --n_of_class_[device_class];
  pace_.left(node.value);
}

void HealthTracker::members_changed(TimeNs now_ns) {
  members_changed_ = true;
  next_ns_ = std::min(next_ns_, now_ns);
}

// ---- what they answer

void HealthTracker::answered(TimeNs now_ns, const Answer& answer, const contracts::LatencyTable& table) {
  const std::uint32_t node = answer.node.value;
  Row& row = rows_[node];
  if (row.stage == Stage::ejected || row.stage == Stage::lost) return;  // it was under way when the node was taken out
  if (now_ns - row.last_ns > config_.forget_ns) {
    row.errors = row.slow = row.apart = {};
    row.in_a_row = 0;
  }
  row.last_ns = now_ns;
  Pace pace{};
  if (answer.ok && answer.service_s > 0.0) {
    pace = pace_.judge(node, answer.model.value, answer.shape, answer.service_s, table);
    if (pace.judged) slow_[pace_.class_of(node)].add(node, pace.slow);
  }
  errors_.add(node, !answer.ok);
  if (row.stage == Stage::half_open) {
    return probed(now_ns, node, answer.ok && !pace.slow && !(row.why == Why::slower_than_class && pace.apart));
  }
  learn(now_ns, row, answer, pace);
}

void HealthTracker::learn(TimeNs now_ns, Row& row, const Answer& answer, const Pace& pace) {
  row.errors.add(!answer.ok);
  row.in_a_row = answer.ok ? 0 : row.in_a_row + 1;
  if (pace.judged) {
    row.slow.add(pace.slow);
    row.apart.add(pace.apart);
  }
  if (row.n_unasked > 0) {
    --row.n_unasked;
    return;
  }
  if (answer.ok && !pace.slow && !pace.apart) return;
  Why why{};
  const bool is_bad = answer.ok ? lags(answer.node.value, why) : errs(answer.node.value, why);
  if (!is_bad) return;
  if (may_eject(answer.node.value)) {
    count_ejection(now_ns, row);
    eject(now_ns, answer.node.value, why, ejection_ns(row.n_ejections));
  } else {
    row.n_unasked = ask_again_after;
  }
}

/// So many in a row that a node as bad as its peers would hardly have had; or a share of its answers.
bool HealthTracker::errs(std::uint32_t node, Why& why) const noexcept {
  const Row& row = rows_[node];
  const std::uint32_t n_errors = row.errors.count(64);
  const bool in_a_row = row.in_a_row >= config_.errors_in_a_row;
  const bool often =
      row.errors.n >= rate_answers_min && n_errors >= rate_errors_min && n_errors >= config_.error_rate * row.errors.n;
  if (!in_a_row && !often) return false;
  std::uint32_t n_peers = 0;
  double theirs = errors_.share_without(node, n_peers);
  if (n_peers < peer_answers_min) theirs = 0.0;
  // What has just begun to fail everywhere is a small share of the peers' answers yet, but not of those of this time.
  if (const double now = errors_.share_beside(node, row.in_a_row, n_peers); n_peers >= peers_beside_min) {
    theirs = std::max(theirs, now);
  }
  double by_chance = 1.0;
  for (std::uint32_t i = 0; i < std::min(row.in_a_row, 64u); ++i) by_chance *= theirs;
  if (in_a_row && by_chance <= by_chance_max) {
    why = Why::errors_in_a_row;
    return true;
  }
  why = Why::error_rate;
  return often && n_errors >= times_the_peers * theirs * row.errors.n;
}

bool HealthTracker::lags(std::uint32_t node, Why& why) const noexcept {
  const Row& row = rows_[node];
  const bool slowed_down = row.slow.count(pace_answers) >= slow_answers_min;
  if (!slowed_down && row.apart.count(pace_answers) < apart_answers_min) return false;
  std::uint32_t n_peers = 0;
  const double theirs = slow_[pace_.class_of(node)].share_without(node, n_peers);
  if (n_peers < peer_answers_min || theirs >= peers_slow_max) return false;
  why = slowed_down ? Why::slowed_down : Why::slower_than_class;
  return slowed_down || stands_alone(node);
}

/// Whether enough nodes of the class are otherwise, and few like this one.
bool HealthTracker::stands_alone(std::uint32_t node) const noexcept {
  std::uint32_t n_judged = 0, n_apart = 0;
  for (std::uint32_t peer = 0; peer < rows_.size(); ++peer) {
    const Row& row = rows_[peer];
    if (pace_.class_of(peer) != pace_.class_of(node) || row.stage == Stage::lost) continue;
    const bool is_out = row.stage == Stage::ejected && row.why == Why::slower_than_class;
    const bool is_apart = is_out || row.apart.count(pace_answers) >= slow_answers_min;
    n_judged += is_out || row.apart.n >= slow_answers_min ? 1 : 0;
    n_apart += is_apart ? 1 : 0;
  }
  return n_judged >= n_apart + judged_peers_min && n_apart * apart_part <= n_judged;
}

void HealthTracker::probed(TimeNs now_ns, std::uint32_t node, bool good) {
  Row& row = rows_[node];
  if (good) {
    if (++row.n_good < config_.probes) return;
    row.step = 0;
    if (config_.slow_start_ns == 0) return put_well(now_ns, node);
    return enter(node, Stage::slow_start, 2, base::add_ns(now_ns, config_.slow_start_ns / slow_start_steps));
  }
  row.n_good = 0;
  if (!may_eject(node)) return;
  count_ejection(now_ns, row);
  eject(now_ns, node, row.why == Why::nothing ? Why::losses : row.why, ejection_ns(row.n_ejections));
}

void HealthTracker::checked(TimeNs now_ns, NodeId id, bool ok) {
  Row& row = rows_[id.value];
  row.checked_ns = now_ns;
  if (row.stage == Stage::lost) return;
  if (row.stage == Stage::ejected) {
    row.n_good = ok ? row.n_good + 1 : 0;
    if (!ok) row.until_ns = std::max(row.until_ns, base::add_ns(now_ns, config_.eject_ns));
    if (row.n_good >= config_.probes) row.until_ns = now_ns;
    return set_next();
  }
  row.in_a_row = ok ? 0 : row.in_a_row + 1;
  if (ok || (row.stage != Stage::half_open && row.in_a_row < config_.errors_in_a_row) || !may_eject(id.value)) return;
  count_ejection(now_ns, row);
  eject(now_ns, id.value, Why::failed_check, ejection_ns(row.n_ejections));
}

void HealthTracker::check_due(TimeNs now_ns, std::vector<NodeId>& nodes) {
  nodes.clear();
  for (const std::uint32_t node : watched_) {
    Row& row = rows_[node];
    if (row.stage != Stage::ejected || now_ns < base::add_ns(row.checked_ns, check_every_ns)) continue;
    row.checked_ns = now_ns;
    nodes.push_back(NodeId{node});
  }
}

bool HealthTracker::wants_check(TimeNs now_ns, NodeId id) {
  Row& row = rows_[id.value];
  if (row.stage == Stage::lost) return false;
  const bool is_out = row.stage == Stage::ejected;
  const TimeNs heard_ns = is_out ? row.checked_ns : std::max(row.checked_ns, row.last_ns);
  if (now_ns < base::add_ns(heard_ns, is_out ? check_every_ns : check_idle_ns)) return false;
  row.checked_ns = now_ns;
  return true;
}

// ---- out and in

void HealthTracker::lost(TimeNs now_ns, NodeId id) {
  Row& row = rows_[id.value];
  if (row.stage == Stage::lost) return;
  errors_.add(id.value, true);
  count_ejection(now_ns, row);
  row.why = row.stage == Stage::well ? Why::nothing : Why::losses;  // before it had come back from what was before
  enter(id.value, Stage::lost, 0, base::never_ns);
  members_changed(now_ns);
}

void HealthTracker::back(TimeNs now_ns, NodeId id) {
  const Row& row = rows_[id.value];
  if (row.stage != Stage::lost) return;
  if (row.why == Why::losses && may_eject(id.value)) {
    eject(now_ns, id.value, Why::losses, ejection_ns(row.n_ejections - 1));
  } else {
    resume(now_ns, id.value);
  }
  members_changed(now_ns);
}

void HealthTracker::seen_elsewhere(TimeNs now_ns, NodeId id, bool ejected) {
  const Row& row = rows_[id.value];
  if (ejected == (row.stage == Stage::ejected)) return;
  if (ejected) {
    eject(now_ns, id.value, Why::elsewhere, config_.eject_ns_max);
  } else {
    enter(id.value, Stage::well, 0, base::never_ns);
  }
  changes_.pop_back();  // the fleet says so already
}

void HealthTracker::count_ejection(TimeNs now_ns, Row& row) noexcept {
  if (row.stage == Stage::well) {
    const auto n_forgiven = static_cast<std::uint64_t>(std::max<TimeNs>(0, now_ns - row.well_since_ns)) /
                            static_cast<std::uint64_t>(config_.forgive_ns);
    row.n_ejections -= static_cast<std::uint32_t>(std::min<std::uint64_t>(row.n_ejections, n_forgiven));
  }
  row.n_ejections = std::min(row.n_ejections + 1, ejections_counted_max);
}

TimeNs HealthTracker::ejection_ns(std::uint32_t n_ejections) const noexcept {
  TimeNs for_ns = config_.eject_ns;
  for (std::uint32_t i = 1; i < n_ejections && for_ns < config_.eject_ns_max; ++i) for_ns *= 2;
  return std::min(for_ns, config_.eject_ns_max);
}

void HealthTracker::eject(TimeNs now_ns, std::uint32_t node, Why why, TimeNs for_ns) {
  Row& row = rows_[node];
  row.why = why;
  row.n_good = 0;
  row.checked_ns = now_ns;
  enter(node, Stage::ejected, 0, base::add_ns(now_ns, for_ns));
}

/// Half open; or as if nothing had been, where too few others are well.
void HealthTracker::resume(TimeNs now_ns, std::uint32_t node) {
  Row& row = rows_[node];
  row.n_good = 0;
  if (is_needed(node)) return put_well(now_ns, node);
  enter(node, Stage::half_open, 1, base::never_ns);
}

void HealthTracker::put_well(TimeNs now_ns, std::uint32_t node) {
  rows_[node].well_since_ns = now_ns;
  enter(node, Stage::well, 0, base::never_ns);
}

void HealthTracker::enter(std::uint32_t node, Stage stage, std::uint32_t pending_max, TimeNs until_ns) {
  Row& row = rows_[node];
  if (row.stage == Stage::well && stage == Stage::well) return;
  const bool was_watched = row.stage != Stage::well && row.stage != Stage::lost;
  const bool is_watched = stage != Stage::well && stage != Stage::lost;
  const auto at = std::lower_bound(watched_.begin(), watched_.end(), node);
  if (is_watched && !was_watched) watched_.insert(at, node);
  if (was_watched && !is_watched) watched_.erase(at);
  if (stage != Stage::slow_start && !(row.stage == Stage::slow_start && stage == Stage::well)) {
    row.errors = row.slow = row.apart = {};
    row.in_a_row = row.n_unasked = 0;
  }
  row.stage = stage;
  row.until_ns = until_ns;
  put(out_, node, stage == Stage::ejected);
  put(bounded_, node, stage == Stage::half_open || stage == Stage::slow_start);
  pace_.count_in(node, stage == Stage::well || stage == Stage::slow_start);
  changes_.push_back({NodeId{node}, stage, pending_max});
  set_next();
}

void HealthTracker::tick(TimeNs now_ns) {
  if (members_changed_) {
    const std::uint32_t node = least_bad();
    members_changed_ = node != nobody;
    if (node != nobody) return put_well(now_ns, node);  // and asked again when its up bit is set
  }
  const auto due = std::find_if(watched_.begin(), watched_.end(),
                                [&](std::uint32_t node) { return rows_[node].until_ns <= now_ns; });
  if (due == watched_.end()) return set_next();
  // One at a time: whether the next one is needed depends on this one being up.
  const std::uint32_t node = *due;
  Row& row = rows_[node];
  if (row.stage == Stage::ejected) {
    resume(now_ns, node);
  } else if (++row.step < slow_start_steps) {
    enter(node, Stage::slow_start, 2u << row.step, base::add_ns(now_ns, config_.slow_start_ns / slow_start_steps));
  } else {
    put_well(now_ns, node);
  }
}

void HealthTracker::set_next() noexcept {
  next_ns_ = members_changed_ ? std::numeric_limits<TimeNs>::min() : base::never_ns;
  for (const std::uint32_t node : watched_) next_ns_ = std::min(next_ns_, rows_[node].until_ns);
}

// ---- how many may be out

std::uint32_t HealthTracker::share_of(std::uint32_t n) const noexcept {
  return static_cast<std::uint32_t>(config_.ejected_share_max * n);
}

/// Visits the fleet, and the holders of each model that the node holds: n_up of them, n_out, n_bounded. Until one of
/// the visits says so.
template <class Visit>
bool HealthTracker::any_set_of(std::uint32_t node, Visit visit) const noexcept {
  const std::uint32_t n_words = columns_.n_words();
  const auto asks = [&](auto member_word) {
    std::uint32_t n_up = 0, n_out = 0, n_bounded = 0;
    for (std::uint32_t word = 0; word < n_words; ++word) {
      const std::uint64_t members = member_word(word);
      // relaxed: whoever changes members tells us so, or they change a moment later
      const std::uint64_t up = columns_.up(word).load(std::memory_order_relaxed) & members;
      n_up += static_cast<std::uint32_t>(std::popcount(up & ~out_[word]));
      n_out += static_cast<std::uint32_t>(std::popcount(members & out_[word]));
      n_bounded += static_cast<std::uint32_t>(std::popcount(up & bounded_[word]));
    }
    return visit(n_up, n_out, n_bounded);
  };
  if (asks([](std::uint32_t) { return ~std::uint64_t{0}; })) return true;
  for (std::uint32_t model = 0; model < columns_.header().max_models; ++model) {
    const auto holders = [&](std::uint32_t word) {
      return columns_.resident(model, word).load(std::memory_order_relaxed);
    };
    if ((holders(node / 64) >> (node % 64) & 1) != 0 && asks(holders)) return true;
  }
  return false;
}

bool HealthTracker::may_eject(std::uint32_t node) const noexcept {
  return !any_set_of(
      node, [&](std::uint32_t n_up, std::uint32_t n_out, std::uint32_t) { return n_out + 1 > share_of(n_up + n_out); });
}

/// Whether of those that could stand in for the node too few are up and unbounded.
bool HealthTracker::is_needed(std::uint32_t node) const noexcept {
  const bool is_up =
      (columns_.up(node / 64).load(std::memory_order_relaxed) >> (node % 64) & 1) != 0 && !is_in(out_, node);
  return any_set_of(node, [&](std::uint32_t n_up, std::uint32_t, std::uint32_t n_bounded) {
    const std::uint32_t n_others_well = n_up - n_bounded - (is_up && !is_in(bounded_, node) ? 1 : 0);
    const std::uint32_t n_with_it = n_up + (is_up ? 0 : 1);
    return n_others_well < n_with_it - share_of(n_with_it);
  });
}

/// Of the nodes that are out, the one that comes back first where too many are; nobody: not too many are.
std::uint32_t HealthTracker::least_bad() const noexcept {
  std::uint32_t least = nobody;
  const auto rank = [&](std::uint32_t node) {
    const Why why = rows_[node].why;
    return why == Why::slowed_down || why == Why::slower_than_class ? 0 : why == Why::error_rate ? 1 : 2;
  };
  for (const std::uint32_t node : watched_) {
    if (rows_[node].stage != Stage::ejected) continue;
    const bool too_many = any_set_of(
        node, [&](std::uint32_t n_up, std::uint32_t n_out, std::uint32_t) { return n_out > share_of(n_up + n_out); });
    if (too_many && (least == nobody || rank(node) < rank(least))) least = node;
  }
  return least;
}

// ---- what others ask

contracts::HealthStatus HealthTracker::status(NodeId node) const noexcept {
  const Row& row = rows_[node.value];
  return {row.stage, row.why, row.until_ns, row.n_ejections};
}

bool HealthTracker::expected(base::ModelId model, NodeId node, contracts::Curve& curve) const noexcept {
  return pace_.expected(node.value, model.value, rows_[node.value].why != Why::slower_than_class, curve);
}

bool HealthTracker::suspect(NodeId node) const noexcept {
  const Row& row = rows_[node.value];
  if (row.stage == Stage::ejected || row.stage == Stage::half_open) return true;
  const std::uint32_t n_errors = row.errors.count(64);
  if (n_errors < 2) return false;
  std::uint32_t n_peers = 0;
  const double theirs = errors_.share_without(node.value, n_peers);
  return n_peers >= peer_answers_min && n_errors >= times_the_peers * theirs * row.errors.n;
}

}  // namespace infcore::health
