#include <infcore/base/errors.hpp>
#include <infcore/cache/eviction_policy.hpp>
#include <infcore/contracts/block_hash.hpp>
#include <infcore/engine/token_run.hpp>

#include <algorithm>
#include <string>
#include <utility>

namespace infcore::engine {

TokenRun::TokenRun(const TokenRunConfig& config)
    : blocks_(config.blocks, cache::make_eviction_policy("lru")), batcher_(blocks_, config.batcher) {
  blocks_.set_curve(config.batcher.curve);
}

TokenRun::Place TokenRun::take_place() {
  if (!free_.empty()) return free_.back();
  sequences_.emplace_back();
  free_.reserve(sequences_.size());  // forget() does not allocate
  free_.push_back(static_cast<Place>(sequences_.size() - 1));
  return free_.back();
}

TokenRun::Place TokenRun::add(std::span<const std::int64_t> tokens, const Request& request) {
  const std::uint32_t block_size = blocks_.block_size();
  const std::size_t n_full = tokens.size() / block_size;
  names_.resize(n_full);
  contracts::hash_blocks(tokens.data(), block_size, 0, names_);
  const Place place = take_place();
  Sequence& sequence = sequences_[place];
  sequence.tokens.assign(tokens.begin(), tokens.end());
  sequence.id = batcher_.add({.cookie = place,
                              .arrival_ns = request.arrival_ns,
                              .deadline_ns = request.deadline_ns,
                              .tier = request.tier,
                              .tenant = request.tenant,
                              .n_prompt_tokens = static_cast<std::uint32_t>(tokens.size()),
                              .n_output_tokens_max = request.n_new_max,
                              .salt = 0,
                              .prompt_hashes = names_,
                              .prompt_tail = tokens.subspan(n_full * block_size)});
  free_.pop_back();
  ++n_sequences_;
  return place;
}

TokenRun::Place TokenRun::fork(Place from) {
  if (!is_taken(from)) throw InvalidArgument("place", std::to_string(from), "one that a sequence has");
  const Place place = take_place();
  sequences_[place].tokens = sequences_[from].tokens;
  sequences_[place].id = batcher_.fork(sequences_[from].id, place);
  free_.pop_back();
  ++n_sequences_;
  return place;
}

void TokenRun::cancel(Place place) noexcept {
  if (!is_taken(place)) return;
  batcher_.cancel(sequences_[place].id);
  forget(place);
}

void TokenRun::forget(Place place) noexcept {
  sequences_[place].id = 0;
  free_.push_back(place);
  --n_sequences_;
}

bool TokenRun::step(base::TimeNs now_ns) {
  if (batcher_.step_is_out()) throw InvalidArgument("step", "out", "advance() first");
  const batch::TokenStep& step = batcher_.step(now_ns);
  for (const batch::EndedSequence& expired : step.expired) forget(static_cast<Place>(expired.cookie));
  n_tokens_ = table_width_ = 0;
  rows_.clear();
  emitting_.clear();
  for (const batch::TokenRow& row : step.rows) {
    rows_.push_back(static_cast<Place>(row.cookie));
    if (row.emits != 0) emitting_.push_back(rows_.back());
    n_tokens_ += row.n_tokens;
    table_width_ = std::max(table_width_, row.n_blocks);
  }
  if (!step.rows.empty() || !step.swap_outs.empty() || !step.swap_ins.empty() || !step.copies.empty()) return true;
  batcher_.advance({}, {});
  return false;
}

void TokenRun::write(const Arrays& to) const noexcept {
  const std::uint32_t block_size = blocks_.block_size();
  std::uint32_t at = 0;
  std::size_t r = 0;
  to.cu_seqlens[0] = 0;
  for (const batch::TokenRow& row : current().rows) {
    const std::span<const batch::BlockId> blocks = batcher_.blocks(row);
    const std::int64_t* const tokens = sequences_[row.cookie].tokens.data();
    for (std::uint32_t i = 0; i < row.n_tokens; ++i, ++at) {
      const std::uint32_t position = row.first_position + i;
      to.tokens[at] = tokens[position];
      to.positions[at] = static_cast<std::int32_t>(position);
      to.slot_mapping[at] = std::int64_t{blocks[position / block_size]} * block_size + position % block_size;
    }
    std::int32_t* const table = to.block_tables + r * table_width_;
    std::fill(std::copy(blocks.begin(), blocks.end(), table), table + table_width_, 0);
    to.context_lens[r] = static_cast<std::int32_t>(row.first_position + row.n_tokens);
    to.emits[r] = row.emits;
    to.cu_seqlens[++r] = static_cast<std::int32_t>(at);
  }
}

void TokenRun::write_moves(std::span<const batch::BlockMove> moves, std::int32_t* pairs) noexcept {
  for (const batch::BlockMove& move : moves) {
    *pairs++ = static_cast<std::int32_t>(move.from);
    *pairs++ = static_cast<std::int32_t>(move.to);
  }
}

void TokenRun::advance(std::span<const std::int64_t> made, std::span<const std::uint8_t> ended) {
  if (!batcher_.step_is_out()) return;
  const std::vector<batch::TokenRow>& rows = current().rows;
  row_tokens_.assign(rows.size(), 0);
  row_ended_.assign(rows.size(), 0);
  std::size_t i = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (rows[r].emits == 0) continue;
    Sequence& sequence = sequences_[rows[r].cookie];
    row_tokens_[r] = made[i];
    row_ended_[r] = ended[i];
    if (sequence.id == rows[r].id) sequence.tokens.push_back(made[i]);  // not cancelled meanwhile
    ++i;
  }
  batcher_.advance(row_tokens_, row_ended_);
  for (const batch::TokenRow& row : batcher_.ended()) forget(static_cast<Place>(row.cookie));
}

}  // namespace infcore::engine
