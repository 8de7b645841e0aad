#include <infcore/cache/eviction_policy.hpp>
#include <infcore/sim/token_node.hpp>

#include <algorithm>
#include <string_view>
#include <utility>

namespace infcore::sim {
namespace {

constexpr std::string_view eviction = "lru";

}  // namespace

TokenNode::TokenNode(const TokenService& service, std::uint32_t n_runs, base::Draw draw)
    : service_(service), draw_(draw), spread_(service.cv), sequences_(n_runs) {
  make();
}

TokenNode::~TokenNode() = default;
TokenNode::TokenNode(TokenNode&&) noexcept = default;
TokenNode& TokenNode::operator=(TokenNode&&) noexcept = default;

void TokenNode::make() {
  batcher_.reset();  // it uses the blocks to its end
  blocks_ = std::make_unique<batch::KVBlocks>(
      batch::KVBlocksConfig{service_.n_blocks, service_.block_size, service_.host_blocks},
      cache::make_eviction_policy(eviction));
  blocks_->set_curve(service_.curve);
  batch::ContinuousBatcherConfig config;
  config.token_budget = service_.token_budget;
  config.max_running = service_.max_running;
  config.max_sequences = std::max(service_.max_running, static_cast<std::uint32_t>(sequences_.size()));
  config.max_sequence_tokens = service_.context_tokens_max;
  config.curve = service_.curve;
  batcher_ = std::make_unique<batch::ContinuousBatcher>(*blocks_, config);
}

void TokenNode::expect(std::uint32_t run, const TokenWork& work, std::span<const std::uint64_t> recorded,
                       TimeNs deadline_ns, std::uint16_t tier) {
  Sequence& s = sequences_[run];
  if (s.active) broken_ = "a request came in on a slot that another one has";
  s.work = work;
  s.recorded.assign(recorded.begin(), recorded.end());
  s.deadline_ns = deadline_ns;
  s.tier = tier;
}

void TokenNode::add(std::uint32_t run, TimeNs now_ns) {
  Sequence& s = sequences_[run];
  s.last_ns = now_ns;
  s.n_tokens = s.n_cached = 0;
  s.began = false;
  TokenContent(s.work, s.recorded).prompt(service_.block_size, tokens_, names_);
  const std::size_t n_named = names_.size() * service_.block_size;
  batcher_->add({.cookie = run,
                 .arrival_ns = now_ns,
                 .deadline_ns = s.deadline_ns,
                 .tier = s.tier,
                 .n_prompt_tokens = s.work.prompt,
                 .n_output_tokens_max = s.work.output,
                 .prompt_hashes = names_,
                 .prompt_tail = std::span<const std::int64_t>(tokens_).subspan(n_named)});
  s.active = true;
  ++n_sequences_;
}

void TokenNode::begin_step(TimeNs now_ns, double factor, double more_s) {
  if (step_is_out_ || n_sequences_ == 0) return;
  const batch::TokenStep& step = batcher_->step(now_ns);
  step_is_out_ = true;
  step_begin_ns_ = now_ns;
  for (const batch::TokenRow& row : step.rows) {
    Sequence& s = sequences_[row.cookie];
    if (std::exchange(s.began, true)) continue;
    s.n_cached = row.first_position;  // its first row begins behind what was found
  }
  double step_s = 0.0;
  if (!step.rows.empty()) step_s = service_.curve.step_s(step.work) * spread_.draw(draw_) * factor + more_s;
  step_s += service_.curve.swap_block_s * static_cast<double>(step.swap_outs.size() + step.swap_ins.size());
  if (step.rows.empty() && step.expired.empty()) broken_ = "sequences wait and nothing runs";
  // Time goes on, or a step that costs nothing would be repeated at one moment for ever.
  step_end_ns_ = base::add_ns(now_ns, std::max<TimeNs>(1, base::to_ns(step_s)));
  ++totals_.steps;
  totals_.prefill_tokens += step.work.n_prefill_tokens;
  totals_.preempted += step.preempted.size();
}

std::span<const TokenNode::Event> TokenNode::end_step(TimeNs now_ns) {
  events_.clear();
  const batch::TokenStep& step = batcher_->last_step();
  tokens_.assign(step.rows.size(), 0);
  for (std::size_t i = 0; i < step.rows.size(); ++i) {
    const batch::TokenRow& row = step.rows[i];
    if (row.emits == 0) continue;
    Sequence& s = sequences_[row.cookie];
    tokens_[i] = TokenContent(s.work, s.recorded).at(s.work.prompt + s.n_tokens);
    ++s.n_tokens;
    ++totals_.output_tokens;
    events_.push_back({.run = static_cast<std::uint32_t>(row.cookie),
                       .n_tokens = s.n_tokens,
                       .ends = s.n_tokens == s.work.output,
                       .before_ns = std::exchange(s.last_ns, now_ns),
                       .n_cached = s.n_cached});
  }
  for (const batch::EndedSequence& late : step.expired) {
    events_.push_back({.run = static_cast<std::uint32_t>(late.cookie), .ends = true, .expired = true});
  }
  batcher_->advance(tokens_, {});
  step_is_out_ = false;
  step_end_ns_ = base::never_ns;
  std::size_t n_ended = 0;
  for (const Event& event : events_) {
    if (!event.ends) continue;
    n_ended += event.expired ? 0u : 1u;
    sequences_[event.run].active = false;
    --n_sequences_;
  }
  if (n_ended != batcher_->ended().size()) broken_ = "the batcher ended other sequences than those that are complete";
  return events_;
}

void TokenNode::delay(TimeNs by_ns) noexcept {
  if (step_is_out_) step_end_ns_ = base::add_ns(step_end_ns_, by_ns);
}

const char* TokenNode::broken() const noexcept {
  if (*broken_ != 0 || step_is_out_) return broken_;
  if (batcher_->n_running() + batcher_->n_waiting() != n_sequences_)
    return "the batcher has other sequences than the node";
  if (n_sequences_ == 0 && blocks_->n_available() != blocks_->n_blocks()) return "KV blocks leaked";
  return "";
}

void TokenNode::crash() {
  make();
  for (Sequence& s : sequences_) s.active = false;
  n_sequences_ = 0;
  step_is_out_ = false;
  step_end_ns_ = base::never_ns;
}

}  // namespace infcore::sim
