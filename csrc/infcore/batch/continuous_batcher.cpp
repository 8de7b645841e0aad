#include <infcore/base/errors.hpp>
#include <infcore/batch/continuous_batcher.hpp>
#include <infcore/contracts/block_hash.hpp>

#include <algorithm>
#include <bit>
#include <string>

namespace infcore::batch {
namespace {

void check_range(const char* field, std::uint64_t value, std::uint64_t least, std::uint64_t most) {
  if (value < least || value > most) {
    throw InvalidArgument(field, std::to_string(value), std::to_string(least) + " to " + std::to_string(most));
  }
}

ContinuousBatcherConfig checked(ContinuousBatcherConfig config, const KVBlocks& kv) {
  constexpr std::uint32_t most = ContinuousBatcher::n_sequences_max;
  check_range("token_budget", config.token_budget, 1, 0xFFFF'FFFFu);
  check_range("max_running", config.max_running, 1, most);
  check_range("max_sequences", config.max_sequences, config.max_running, most);
  const auto n_tokens_held = std::min<std::uint64_t>(std::uint64_t{kv.n_blocks()} * kv.block_size(), 0x7FFF'FFFFu);
  if (config.max_sequence_tokens == 0) config.max_sequence_tokens = static_cast<std::uint32_t>(n_tokens_held);
  check_range("max_sequence_tokens", config.max_sequence_tokens, 1, n_tokens_held);
  return config;
}

}  // namespace

ContinuousBatcher::ContinuousBatcher(KVBlocks& kv, const ContinuousBatcherConfig& config)
    : kv_(kv),
      config_(checked(config, kv)),
      n_blocks_per_row_(n_blocks_of(config_.max_sequence_tokens)),
      id_bits_(static_cast<std::uint32_t>(std::bit_width(config_.max_sequences - 1))),
      sequences_(config_.max_sequences),
      tables_(std::make_unique_for_overwrite<BlockId[]>(std::size_t{config_.max_running} * n_blocks_per_row_)),
      turns_(config_.max_sequences),
      events_(config_.max_sequences),
      n_let_go_(kv.n_blocks()),
      found_(n_blocks_per_row_),
      now_ns_(std::numeric_limits<base::TimeNs>::min()) {
  if (kv.n_available() != kv.n_blocks()) {
    throw InvalidArgument("kv", "in use: " + std::to_string(kv.n_available()) + " of its blocks can be had",
                          "one whose blocks nobody else uses");
  }
  kv_.set_curve(config_.curve);
  for (std::uint32_t i = config_.max_sequences; i-- > 0;) free_slots_.push_back(i);
  for (std::uint32_t i = config_.max_running; i-- > 0;) free_places_.push_back(i);
  running_.reserve(config_.max_running);
  host_leaving_.reserve(kv.n_host_blocks());
  step_.rows.reserve(config_.max_running);
  step_.copies.reserve(config_.max_running);
  step_.swap_outs.reserve(kv.n_host_blocks());
  step_.swap_ins.reserve(kv.n_host_blocks());
  step_.preempted.reserve(config_.max_running);
  step_.expired.reserve(config_.max_sequences);
  ended_.reserve(config_.max_running);
}

ContinuousBatcher::~ContinuousBatcher() {
  for (const Slot slot : running_) kv_.free(table(sequences_[slot]));
  for (const Sequence& s : sequences_) kv_.host_free(s.host);
  kv_.host_free(host_leaving_);
}

ContinuousBatcher::Slot ContinuousBatcher::slot_of(SequenceId id) const noexcept {
  const auto slot = static_cast<Slot>(id & ((SequenceId{1} << id_bits_) - 1));
  if (id == 0 || slot >= sequences_.size()) return config_.max_sequences;
  return sequences_[slot].id == id && !sequences_[slot].cancelled ? slot : config_.max_sequences;
}

std::uint32_t ContinuousBatcher::n_blocks_of(std::uint64_t n_tokens) const noexcept {
  return static_cast<std::uint32_t>((n_tokens + kv_.block_size() - 1) / kv_.block_size());
}

std::span<BlockId> ContinuousBatcher::table(const Sequence& s) noexcept {
  return {tables_.get() + std::size_t{s.place} * n_blocks_per_row_, s.n_blocks};
}

std::span<const std::uint64_t> ContinuousBatcher::names_to_match(const Sequence& s) const noexcept {
  // What lies in host blocks is all computed; else at least one token is left to compute, since its output is wanted.
  const std::uint32_t n_tokens = s.host.empty() ? s.n_known - 1 : s.n_computed;
  return {s.names.data(), std::min<std::size_t>(s.names.size(), n_tokens / kv_.block_size())};
}

bool ContinuousBatcher::ranks_before(Slot a, Slot b) const noexcept {
  const Sequence& x = sequences_[a];
  const Sequence& y = sequences_[b];
  if (x.aged != y.aged) return x.aged;
  if (!x.aged && x.tier != y.tier) return x.tier < y.tier;
  if (x.arrival_ns != y.arrival_ns) return x.arrival_ns < y.arrival_ns;
  return x.id < y.id;
}

void ContinuousBatcher::check(const SequenceSpec& spec) const {
  check_range("n_prompt_tokens", spec.n_prompt_tokens, 1, config_.max_sequence_tokens);
  // The last token that it emits is not computed.
  check_range("n_output_tokens_max", spec.n_output_tokens_max, 0,
              std::uint64_t{config_.max_sequence_tokens} - spec.n_prompt_tokens + 1);
  const std::uint32_t n_full = spec.n_prompt_tokens / kv_.block_size();
  if (!spec.prompt_hashes.empty() && spec.prompt_hashes.size() != n_full) {
    throw InvalidArgument("prompt_hashes", std::to_string(spec.prompt_hashes.size()) + " long",
                          "none, or one for each of the prompt's " + std::to_string(n_full) + " full blocks");
  }
  const std::uint32_t n_tail = spec.n_prompt_tokens % kv_.block_size();
  if (!spec.prompt_tail.empty() && (spec.prompt_tail.size() != n_tail || spec.prompt_hashes.size() != n_full)) {
    throw InvalidArgument("prompt_tail", std::to_string(spec.prompt_tail.size()) + " long",
                          "none, or the prompt's last " + std::to_string(n_tail) + " tokens, beside prompt_hashes");
  }
}

ContinuousBatcher::Slot ContinuousBatcher::take_slot() {
  if (free_slots_.empty()) {
    throw QueueFull("the batcher holds max_sequences = " + std::to_string(config_.max_sequences) + " sequences");
  }
  const Slot slot = free_slots_.back();
  Sequence& s = sequences_[slot];
  s.n_known = s.n_computed = s.n_blocks = s.n_stored = 0;
  s.preempted_in = 0;
  s.aged = s.preempted = s.in_step = s.cancelled = false;
  return slot;
}

SequenceId ContinuousBatcher::add(const SequenceSpec& spec) {
  check(spec);
  const Slot slot = take_slot();
  Sequence& s = sequences_[slot];
  s.cookie = spec.cookie;
  s.arrival_ns = spec.arrival_ns;
  s.deadline_ns = spec.deadline_ns;
  s.salt = spec.salt;
  s.tier = spec.tier;
  s.n_prompt = s.n_known = spec.n_prompt_tokens;
  s.n_output_max = spec.n_output_tokens_max;
  const std::uint32_t block_size = kv_.block_size();
  s.names_outputs = spec.prompt_hashes.size() == s.n_prompt / block_size &&
                    spec.prompt_tail.size() == s.n_prompt % block_size && s.n_output_max > 0;
  const std::uint64_t n_tokens_max = std::uint64_t{s.n_prompt} + s.n_output_max;
  const auto n_names_max = static_cast<std::size_t>(n_tokens_max / block_size);
  s.names.reserve(s.names_outputs ? n_names_max : spec.prompt_hashes.size());
  s.names.assign(spec.prompt_hashes.begin(), spec.prompt_hashes.end());
  s.tail.reserve(s.names_outputs ? block_size : 0);
  s.tail.assign(spec.prompt_tail.begin(), spec.prompt_tail.end());
  s.host.reserve(std::min(n_blocks_of(n_tokens_max), kv_.n_host_blocks()));
  free_slots_.pop_back();
  s.id = (++n_added_ << id_bits_) | slot;
  wait(slot);
  return s.id;
}

void ContinuousBatcher::wait(Slot slot) noexcept {
  sequences_[slot].state = State::waiting;
  push_turn(slot);
  push_event(slot);
}

void ContinuousBatcher::push_turn(Slot slot) noexcept {
  const Sequence& s = sequences_[slot];
  if (s.aged) {
    turns_.push(slot, {false, 0, false, 0, s.arrival_ns, s.id});
  } else {
    turns_.push(slot, {true, s.tier, !s.preempted, s.preempted ? 0 : s.deadline_ns, s.arrival_ns, s.id});
  }
}

void ContinuousBatcher::push_event(Slot slot) noexcept {
  const Sequence& s = sequences_[slot];
  const base::TimeNs ages_ns = s.aged ? base::never_ns : base::add_ns(s.arrival_ns, config_.ageing_ns);
  const base::TimeNs at_ns = std::min(s.deadline_ns, ages_ns);
  if (at_ns != base::never_ns) events_.push(slot, {at_ns, s.id});
}

void ContinuousBatcher::leave_queue(Slot slot) noexcept {
  turns_.remove(slot);
  if (events_.contains(slot)) events_.remove(slot);
}

void ContinuousBatcher::run(Slot slot) noexcept {
  const auto before = [this](Slot a, Slot b) { return ranks_before(a, b); };
  sequences_[slot].state = State::running;
  sequences_[slot].place = free_places_.back();
  free_places_.pop_back();
  running_.insert(std::lower_bound(running_.begin(), running_.end(), slot, before), slot);
}

/// Gives its place and its blocks back.
void ContinuousBatcher::stop(Slot slot) noexcept {
  const auto before = [this](Slot a, Slot b) { return ranks_before(a, b); };
  Sequence& s = sequences_[slot];
  running_.erase(std::lower_bound(running_.begin(), running_.end(), slot, before));
  kv_.free(table(s));
  s.n_blocks = s.n_stored = 0;
  free_places_.push_back(s.place);
}

void ContinuousBatcher::forget(Slot slot) noexcept {
  Sequence& s = sequences_[slot];
  kv_.host_free(s.host);
  s.host.clear();
  s.state = State::none;
  s.id = 0;
  free_slots_.push_back(slot);
}

bool ContinuousBatcher::cancel(SequenceId id) noexcept {
  const Slot slot = slot_of(id);
  if (slot == config_.max_sequences) return false;
  Sequence& s = sequences_[slot];
  if (s.in_step) {  // the device writes into its blocks
    s.cancelled = true;
    return true;
  }
  if (s.state == State::waiting) {
    leave_queue(slot);
  } else {
    stop(slot);
  }
  forget(slot);
  return true;
}

SequenceId ContinuousBatcher::fork(SequenceId id, std::uint64_t cookie) {
  const Slot from = slot_of(id);
  if (from == config_.max_sequences) {
    throw InvalidArgument("id", std::to_string(id), "a sequence that has not ended");
  }
  if (step_is_out_) throw InvalidArgument("id", std::to_string(id) + " while a step is out", "after its advance()");
  const Slot slot = take_slot();
  const Sequence& first = sequences_[from];
  Sequence& s = sequences_[slot];
  s.names.reserve(first.names.capacity());
  s.names.assign(first.names.begin(), first.names.end());
  s.tail.reserve(first.tail.capacity());
  s.tail.assign(first.tail.begin(), first.tail.end());
  s.host.reserve(first.host.capacity());
  s.cookie = cookie;
  s.arrival_ns = first.arrival_ns;
  s.deadline_ns = first.deadline_ns;
  s.salt = first.salt;
  s.n_prompt = first.n_prompt;
  s.n_output_max = first.n_output_max;
  s.n_known = first.n_known;
  s.tier = first.tier;
  s.aged = first.aged;
  s.names_outputs = first.names_outputs;
  free_slots_.pop_back();
  s.id = (++n_added_ << id_bits_) | slot;
  if (first.state == State::running && first.decodes() && !free_places_.empty()) {
    run(slot);
    s.n_computed = first.n_computed;
    s.n_blocks = first.n_blocks;
    s.n_stored = first.n_stored;
    std::ranges::copy(table(first), table(s).begin());
    kv_.share(table(s));
  } else {
    s.preempted = first.state == State::running || first.preempted;
    wait(slot);
  }
  return s.id;
}

void ContinuousBatcher::note_token(Sequence& s, std::span<const std::int64_t> tokens, std::size_t row) noexcept {
  ++s.n_known;
  if (!s.names_outputs) return;
  if (tokens.empty()) {
    s.names_outputs = false;
    return;
  }
  s.tail.push_back(tokens[row]);
  if (s.tail.size() < kv_.block_size()) return;
  const std::uint64_t before = s.names.empty() ? contracts::chain_start(kv_.block_size(), s.salt) : s.names.back();
  s.names.push_back(contracts::chain(before, s.tail.data(), kv_.block_size()));
  s.tail.clear();
}

void ContinuousBatcher::store_full_blocks(Sequence& s) noexcept {
  const auto n_full =
      std::min<std::uint32_t>(s.n_computed / kv_.block_size(), static_cast<std::uint32_t>(s.names.size()));
  const std::span<BlockId> blocks = table(s);
  for (; s.n_stored < n_full; ++s.n_stored) {
    const BlockId parent = s.n_stored == 0 ? no_block : blocks[s.n_stored - 1];
    blocks[s.n_stored] = kv_.keep(blocks[s.n_stored], s.names[s.n_stored], parent);
  }
}

void ContinuousBatcher::advance(std::span<const std::int64_t> tokens, std::span<const std::uint8_t> ended) noexcept {
  ended_.clear();
  if (!step_is_out_) return;
  step_is_out_ = false;
  for (std::size_t i = 0; i < step_.rows.size(); ++i) {
    const TokenRow& row = step_.rows[i];
    const auto slot = static_cast<Slot>(row.id & ((SequenceId{1} << id_bits_) - 1));
    Sequence& s = sequences_[slot];
    s.in_step = false;
    bool over = s.cancelled;
    if (!over) {
      s.n_computed += row.n_tokens;
      if (row.emits != 0) note_token(s, tokens, i);
      store_full_blocks(s);
      const bool has_all = s.n_computed >= s.n_prompt && s.n_known - s.n_prompt >= s.n_output_max;
      over = has_all || (!ended.empty() && ended[i] != 0);
      if (over) ended_.push_back(row);
    }
    if (over) {
      stop(slot);
      forget(slot);
    }
  }
}

}  // namespace infcore::batch
