#include <infcore/sim/arrivals.hpp>

#include <algorithm>
#include <limits>

namespace infcore::sim {
namespace {

/// Which stream of the seed a workload's draws come from: four for each workload.
constexpr std::uint64_t consumer(std::uint32_t workload, std::uint64_t what) noexcept {
  return (std::uint64_t{1} << 32) + 4 * std::uint64_t{workload} + what;
}

}  // namespace

ArrivalStream::ArrivalStream(const WorkloadConfig& config, std::uint32_t index, double seconds, std::uint64_t seed)
    : config_(config),
      rate_(config.rate),
      work_(config.work),
      prompts_(config, index, base::Draw(seed, consumer(index, 3))),
      gaps_(seed, consumer(index, 0)),
      works_(seed, consumer(index, 1)),
      turns_(seed, consumer(index, 2)),
      starts_per_s_(config.turns_mean > 1.0 ? config.rate_rps / config.turns_mean : config.rate_rps),
      end_s_(config.end_s > 0.0 ? std::min(config.end_s, seconds) : seconds),
      session_tag_(std::uint64_t{index + 1} << 40) {
  next_.workload = index;
  next_.tier = config.tier;
  next_.deadline_ns = config.deadline_s > 0.0 ? base::to_ns(config.deadline_s) : base::never_ns;
  if (config.gaps == WorkloadConfig::Gaps::rows || config.rate_rps <= 0.0) return;
  rate_.start_at(config.start_s);
  draw_start();
  choose_next();
}

double ArrivalStream::gap() noexcept {
  switch (config_.gaps) {
    case WorkloadConfig::Gaps::gamma:
      return config_.gap_cv > 0.0 ? gaps_.gamma(config_.gap_cv) : 1.0;
    case WorkloadConfig::Gaps::regular:
      return 1.0;
    default:
      return gaps_.exponential();
  }
}

void ArrivalStream::draw_start() {
  const double at_s = rate_.advance(gap() / starts_per_s_);
  start_ns_ = at_s < end_s_ ? base::to_ns(at_s) : base::never_ns;
}

/// Geometric: after each turn there is another with probability 1 - 1 / mean.
void ArrivalStream::plan_turn(const Arrival& arrival) {
  if (turns_.uniform() < 1.0 / config_.turns_mean) return;
  const TimeNs at_ns = base::add_ns(arrival.at_ns, base::to_ns(config_.think_s_mean * turns_.exponential()));
  if (base::seconds(at_ns) >= end_s_) return;
  waiting_.push_back({at_ns, arrival.session, n_turns_++, arrival.tokens});
  std::push_heap(waiting_.begin(), waiting_.end());
}

void ArrivalStream::choose_next() {
  next_.at_ns = waiting_.empty() ? start_ns_ : std::min(start_ns_, waiting_.front().at_ns);
}

Arrival ArrivalStream::pop() {
  Arrival arrival = next_;
  const bool makes_tokens = config_.context_tokens_max > 0;
  if (!makes_tokens) arrival.work = work_.draw(works_);
  if (arrival.at_ns == start_ns_) {
    if (config_.turns_mean > 0.0) arrival.session = session_tag_ | ++n_sessions_;
    if (makes_tokens) arrival.tokens = prompts_.begin();
    draw_start();
  } else {
    arrival.session = waiting_.front().session;
    if (makes_tokens) arrival.tokens = prompts_.follow(waiting_.front().before);
    std::pop_heap(waiting_.begin(), waiting_.end());
    waiting_.pop_back();
  }
  if (makes_tokens) arrival.work = static_cast<double>(arrival.tokens.prompt) + arrival.tokens.output;
  if (config_.turns_mean > 1.0) plan_turn(arrival);
  choose_next();
  return arrival;
}

}  // namespace infcore::sim
