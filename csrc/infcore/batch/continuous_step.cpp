// The decisions of one step, in the order in which they are taken.
#include <infcore/batch/continuous_batcher.hpp>

#include <algorithm>

namespace infcore::batch {

const TokenStep& ContinuousBatcher::step(base::TimeNs now_ns) noexcept {
  step_.rows.clear();
  step_.swap_outs.clear();
  step_.copies.clear();
  step_.swap_ins.clear();
  step_.preempted.clear();
  step_.expired.clear();
  step_.work = {};
  step_.n_prefill_rows = step_.n_matched_tokens = 0;
  ended_.clear();
  ++n_steps_;
  kv_.host_free(host_leaving_);
  host_leaving_.clear();
  budget_left_ = config_.token_budget;

  pass_time(now_ns);
  make_way();
  run_decodes();
  run_prefills();
  let_in();
  step_is_out_ = !step_.rows.empty();
  return step_;
}

void ContinuousBatcher::pass_time(base::TimeNs now_ns) noexcept {
  now_ns_ = std::max(now_ns_, now_ns);
  while (!events_.empty() && events_.top_key().at_ns <= now_ns_) {
    const Slot slot = events_.top();
    Sequence& s = sequences_[slot];
    const bool expires = s.deadline_ns == events_.top_key().at_ns;
    leave_queue(slot);
    if (expires) {
      step_.expired.push_back({s.id, s.cookie});
      forget(slot);
    } else {
      s.aged = true;
      push_turn(slot);
      push_event(slot);
    }
  }
}

/// Lets in what is more urgent than something that runs, before that gets tokens.
void ContinuousBatcher::make_way() noexcept {
  std::uint64_t n_tokens = 0;
  while (!turns_.empty() && !running_.empty() && n_tokens < config_.token_budget) {
    const Slot slot = turns_.top();
    const Sequence& s = sequences_[slot];
    const Sequence& last = sequences_[running_.back()];
    if (s.preempted_in == n_steps_ || last.aged || last.tier <= s.tier) return;
    const std::uint32_t n_victims = n_victims_for(s);
    if (n_victims > running_.size()) return;
    for (std::uint32_t i = 0; i < n_victims; ++i) preempt(running_.back());
    start(slot);
    n_tokens += s.n_known - s.n_computed;
  }
}

/// How many running sequences, from the last rank on, have to go so that it fits; more than there are: it would not.
std::uint32_t ContinuousBatcher::n_victims_for(const Sequence& s) noexcept {
  const KVBlocks::Match found = kv_.peek(names_to_match(s), found_);
  const std::uint64_t n_wanted = std::uint64_t{n_blocks_of(s.n_known)} - found.n_blocks + found.n_unheld;
  std::uint64_t n_had = kv_.n_available();
  const auto n_running = static_cast<std::uint32_t>(running_.size());
  std::uint32_t n_victims = 0;
  // What it would find is not to be had, whoever lets it go: one use more than there is.
  for (std::uint32_t i = 0; i < found.n_blocks; ++i) --n_let_go_[found_[i]];
  for (;; ++n_victims) {
    const bool has_place = n_victims > 0 || !free_places_.empty();
    if (has_place && n_had >= n_wanted + (n_running - n_victims)) break;
    const Sequence* const victim = n_victims < n_running ? &sequences_[running_[n_running - 1 - n_victims]] : nullptr;
    if (victim == nullptr || victim->aged || victim->tier <= s.tier) {
      n_victims = n_running + 1;
      break;
    }
    for (const BlockId block : table(*victim)) n_had += ++n_let_go_[block] == kv_.n_uses(block) ? 1 : 0;
  }
  for (std::uint32_t i = 0; i < found.n_blocks; ++i) n_let_go_[found_[i]] = 0;
  for (std::uint32_t i = 0; i < std::min(n_victims, n_running); ++i) {
    for (const BlockId block : table(sequences_[running_[n_running - 1 - i]])) n_let_go_[block] = 0;
  }
  return n_victims;
}

void ContinuousBatcher::run_decodes() noexcept {
  for (std::size_t i = 0; i < running_.size() && budget_left_ > 0; ++i) {
    const Slot slot = running_[i];
    if (!sequences_[slot].decodes()) continue;
    if (!own_last_block(slot)) return;
    schedule(slot, 1);
  }
}

void ContinuousBatcher::run_prefills() noexcept {
  for (std::size_t i = 0; i < running_.size() && budget_left_ > 0; ++i) {
    const Sequence& s = sequences_[running_[i]];
    if (!s.in_step && !s.decodes()) schedule(running_[i], std::min(budget_left_, s.n_known - s.n_computed));
  }
}

void ContinuousBatcher::let_in() noexcept {
  if (!step_.preempted.empty()) return;  // what was just taken from them would be given to them again
  while (budget_left_ > 0 && !turns_.empty() && !free_places_.empty()) {
    const Slot slot = turns_.top();
    if (!fits(sequences_[slot])) return;
    start(slot);
    schedule(slot, std::min(budget_left_, sequences_[slot].n_known - sequences_[slot].n_computed));
  }
}

bool ContinuousBatcher::fits(const Sequence& s) const noexcept {
  const std::uint64_t n_others = running_.size();  // each may need a block before long
  const std::uint64_t n_all = n_blocks_of(s.n_known);
  if (n_all + n_others <= kv_.n_available()) return true;
  const KVBlocks::Match found = kv_.peek(names_to_match(s));
  return n_all - found.n_blocks + found.n_unheld + n_others <= kv_.n_available();
}

/// Precondition: a place is free, and so are blocks.
void ContinuousBatcher::start(Slot slot) noexcept {
  Sequence& s = sequences_[slot];
  leave_queue(slot);
  run(slot);
  const std::uint32_t n_all = n_blocks_of(s.n_known);
  BlockId* const blocks = table(s).data();
  const std::uint32_t n_found = kv_.match(names_to_match(s), {blocks, n_all});
  const bool has_blocks = kv_.alloc({blocks + n_found, n_all - n_found});
  static_cast<void>(has_blocks);
  s.n_blocks = n_all;
  s.n_stored = n_found;
  if (s.host.empty()) {
    s.n_computed = n_found * kv_.block_size();
    step_.n_matched_tokens += s.n_computed;
    return;
  }
  for (std::size_t i = n_found; i < s.host.size(); ++i) step_.swap_ins.push_back({s.host[i], blocks[i]});
  host_leaving_.insert(host_leaving_.end(), s.host.begin(), s.host.end());
  s.host.clear();
}

/// A block of its own for the token that comes next. False: there was none, and it was pre-empted itself.
bool ContinuousBatcher::own_last_block(Slot slot) noexcept {
  Sequence& s = sequences_[slot];
  const std::uint32_t at = s.n_computed / kv_.block_size();
  BlockId& place = tables_[std::size_t{s.place} * n_blocks_per_row_ + at];
  for (;;) {
    const bool grows = at == s.n_blocks;
    if (!grows && kv_.n_uses(place) == 1) return true;
    BlockId block = no_block;
    if (kv_.alloc({&block, 1})) {
      if (grows) {
        ++s.n_blocks;
      } else {
        step_.copies.push_back({place, block});
        kv_.free({&place, 1});
      }
      place = block;
      return true;
    }
    const Slot victim = running_.back();
    preempt(victim);
    if (victim == slot) return false;
  }
}

void ContinuousBatcher::preempt(Slot slot) noexcept {
  Sequence& s = sequences_[slot];
  const std::uint32_t n_used = n_blocks_of(s.n_computed);
  const contracts::TokenCurve& curve = config_.curve;
  if (n_used > 0 && n_used <= kv_.n_host_free() && curve.swap_s(n_used) < curve.recompute_s(s.n_computed)) {
    s.host.resize(n_used);
    static_cast<void>(kv_.host_alloc(s.host));
    const std::span<const BlockId> blocks = table(s);
    for (std::uint32_t i = 0; i < n_used; ++i) step_.swap_outs.push_back({blocks[i], s.host[i]});
    ++n_swapped_out_;
  } else {
    s.n_computed = 0;
  }
  stop(slot);
  s.preempted = true;
  s.preempted_in = n_steps_;
  ++n_preempted_;
  step_.preempted.push_back(s.id);
  wait(slot);
}

void ContinuousBatcher::schedule(Slot slot, std::uint32_t n_tokens) noexcept {
  Sequence& s = sequences_[slot];
  const bool decodes = s.decodes();
  const bool emits = s.n_computed + n_tokens == s.n_known && s.n_known - s.n_prompt < s.n_output_max;
  step_.rows.push_back({s.id, s.cookie, s.n_computed, n_tokens, s.place, s.n_blocks, emits, decodes, {}});
  s.in_step = true;
  budget_left_ -= n_tokens;
  if (decodes) {
    ++step_.work.n_decode_rows;
    step_.work.n_context_tokens += s.n_computed + 1;
  } else {
    step_.work.n_prefill_tokens += n_tokens;
    ++step_.n_prefill_rows;
  }
}

}  // namespace infcore::batch
