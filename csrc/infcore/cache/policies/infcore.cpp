// What goes is the entry that saves least: its cost to make again, per byte it takes, times the rate at which keys with
// its history (how often asked for, how long apart) and age were asked for again so far. Rates are learned on the way,
// from entries and from what is remembered of those that left; so one rule serves frequency, recency, loops and drift.
//
// Source: hit density by class and age, learned, over a sample: LHD, Beckmann, Chen, Cidon, NSDI 2018. Cost and size:
// GDSF, Cherkasova, HP Labs TR-98-69R1. The best of a sample are kept for the next choice: Psounis and Prabhakar,
// INFOCOM 2001. The rate over the time where it is best: Gittins, J. R. Stat. Soc. B 1979.
//
// We differ: LHD takes what it evicts for never used again, and so believes in its own choices; we remember four keys
// an entry, count their returns, and count those that still wait. Time is insertions: a hit is two counts, nothing is
// filed. A sample is 16 entries that stand side by side, block after block, not drawn: who leaves is replaced by
// whoever came last, so neighbours have little in common, and a block is valued in one go. The newest entry is always
// looked at: what would push out more than it brings is not admitted. All that leaves is remembered, also what expires
// or is replaced.
//
// O(1): a hit two counts; an insertion an entry looked at and, every fifth of the entries, all rates anew; a choice a
// block valued, the newest, and the least of those kept. Up to 16 evictable entries all are compared, and ties go to
// the lowest id of all; else of those kept. 34 bytes an entry, ghosts included, and 57 KB. Tunables: the constants
// below, ReuseRates' prior and fading.
#include <infcore/cache/entry_blocks.hpp>
#include <infcore/cache/ghost_histories.hpp>
#include <infcore/cache/reuse_rates.hpp>
#include <infcore/contracts/eviction.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <memory>

namespace infcore::cache {
namespace {

using contracts::EntryId;
using contracts::no_entry;

/// Places of a table spread evenly, however many are asked for: multiples of the golden ratio, modulo one.
class EvenPlaces {
 public:
  [[nodiscard]] std::uint32_t next(std::uint32_t n_places) noexcept {
    at_ += 0x9E37'79B9u;
    return static_cast<std::uint32_t>((std::uint64_t{at_} * n_places) >> 32);
  }

 private:
  std::uint32_t at_{};
};

class Infcore final : public contracts::EvictionPolicy {
  static constexpr std::uint32_t n_sampled = EntryBlocks::block_size;
  static constexpr std::uint32_t n_kept = 3;
  /// Neighbours looked at every so many insertions, so that the rates know of those that wait.
  static constexpr std::uint32_t n_seen_at_once = 4;
  static constexpr std::uint32_t learn_every_min = 512;
  static constexpr std::uint32_t learn_every_part = 5;
  /// A nanosecond's tenth: where nothing costs anything, likely uses count alone.
  static constexpr double cost_us_min = 1e-4;

  /// Value in the upper half, id in the lower: values are not negative, so their bits are in their order.
  using Candidate = std::uint64_t;
  static constexpr Candidate nobody = ~Candidate{0};

  void attach(const contracts::EvictionView& view, const contracts::EvictionLimits& limits) override {
    view_ = &view;
    best_.fill(nobody);
    grow(limits.n_entries_max);
  }
  void grow(std::uint32_t n_entries_max) override {
    entries_.grow(n_entries_max);
    ghosts_.grow(n_entries_max);
  }

  void on_insert(EntryId id) noexcept override {
    is_named_ = false;
    ++now_;
    look_around();
    const contracts::EvictionEntry shown = view_->entry(id);
    const double cost_by_bytes = std::max(shown.cost_us, cost_us_min) * shown.reuse / static_cast<double>(shown.bytes);
    const float worth = static_cast<float>(std::clamp(cost_by_bytes, 1e-30, 1e30));
    const std::uint32_t worth_class = class_of(worth);
    const GhostHistories::Ghost ghost = ghosts_.take(shown.key, now_);
    entries_.add(id, worth, ghost.history.empty() ? ReuseHistory(worth_class) : ghost.history, now_);
    if (!ghost.history.empty()) use(id, now_ - ghost.used);
    newest_ = id;
  }
  void on_hit(std::span<const EntryId> ids) noexcept override {
    is_named_ = false;
    for (const EntryId id : ids) {
      const std::uint32_t place = entries_.place(id);
      use(id, now_ - entries_.block(place).used[place % n_sampled]);
    }
  }
  void on_release(std::span<const EntryId> ids) noexcept override {
    is_named_ = false;
    for (const EntryId id : ids) {
      const std::uint32_t place = entries_.place(id);
      entries_.block(place).used[place % n_sampled] = now_;
    }
  }
  void on_evictable(EntryId id) noexcept override {
    is_named_ = false;
    entries_.make_evictable(id);
  }
  void on_held(EntryId id) noexcept override {
    is_named_ = false;
    entries_.make_held(id);
  }
  void on_remove(EntryId id) noexcept override {
    is_named_ = false;
    const std::uint32_t place = entries_.place(id), at = place % n_sampled;
    const EntryBlocks::Block& block = entries_.block(place);
    ghosts_.remember(view_->key(id), {block.history[at], block.used[at]}, now_, rates_);
    entries_.remove(id);
    if (id == newest_) newest_ = no_entry;
  }

  EntryId victim() noexcept override {
    if (is_named_) return id_of(best_[0]);
    const std::uint32_t n_evictable = entries_.n_evictable();
    if (n_evictable == 0) return no_entry;
    if (n_evictable <= n_sampled) {
      best_.fill(nobody);
      for (std::uint32_t place = 0; place < n_evictable; ++place) consider(candidate(place));
    } else {
      choose(n_evictable);
    }
    is_named_ = true;
    return id_of(best_[0]);
  }

  void choose(std::uint32_t n_evictable) noexcept {
    if (hand_ >= n_evictable) hand_ = 0;
    const std::array<Candidate, 2> least = two_least(hand_);
    hand_ += n_sampled;
    entries_.prefetch(hand_ < n_evictable ? hand_ : 0);
    if (newest_ != no_entry && entries_.is_evictable(newest_)) consider(candidate(entries_.place(newest_)));
    for (const Candidate& each : least) consider(each);
    // Those kept from choices before may have been found or have left since then.
    for (;;) {
      if (best_[0] == nobody)
        for (const Candidate& each : least) consider(each);
      const EntryId id = id_of(best_[0]);
      const bool is_evictable = entries_.is_evictable(id);
      const Candidate now = is_evictable ? candidate(entries_.place(id)) : nobody;
      if (now == best_[0]) return;
      for (std::uint32_t i = 0; i < n_kept; ++i) best_[i] = best_[i + 1];
      best_.back() = nobody;
      if (is_evictable) consider(now);
    }
  }

  /// Of a block, by all but the last four bits of their values, then by place; nobody for the second where there is but
  /// one.
  [[nodiscard]] std::array<Candidate, 2> two_least(std::uint32_t first_place) const noexcept {
    const EntryBlocks::Values values = entries_.values(first_place, rates_, now_);
    // Where they stand takes the place of the last bits; the bits of what is not negative are in its order.
    std::array<std::int32_t, n_sampled> ranks;
    for (std::uint32_t i = 0; i < n_sampled; ++i)
      ranks[i] = static_cast<std::int32_t>((std::bit_cast<std::uint32_t>(values[i]) & ~(n_sampled - 1)) | i);
    constexpr std::int32_t behind_all = std::numeric_limits<std::int32_t>::max();
    std::int32_t first = behind_all, second = behind_all;
#pragma omp simd reduction(min : first)
    for (std::uint32_t i = 0; i < n_sampled; ++i) first = ranks[i] < first ? ranks[i] : first;
    for (std::uint32_t i = 0; i < n_sampled; ++i) ranks[i] = ranks[i] == first ? behind_all : ranks[i];
#pragma omp simd reduction(min : second)
    for (std::uint32_t i = 0; i < n_sampled; ++i) second = ranks[i] < second ? ranks[i] : second;
    const EntryBlocks::Block& block = entries_.block(first_place);
    const auto candidate_at = [&](std::int32_t rank) {
      const std::uint32_t at = static_cast<std::uint32_t>(rank) % n_sampled;
      return values[at] == EntryBlocks::no_value ? nobody : candidate(values[at], block.id[at]);
    };
    return {candidate_at(first), candidate_at(second)};
  }

  void use(EntryId id, std::uint32_t gap) noexcept {
    const std::uint32_t place = entries_.place(id), at = place % n_sampled;
    EntryBlocks::Block& block = entries_.block(place);
    rates_.used(block.rate_class[at], gap);
    const ReuseHistory history = block.history[at].used_again(std::min(ReuseRates::age_class(gap) / 8, 3u));
    block.history[at] = history;
    block.rate_class[at] = static_cast<std::uint8_t>(history.of_class());
    block.used[at] = now_;
  }

  /// 0, 1, 2: about as much as others lately, at least 1.4 times less, more. A float's bits are its logarithm, nearly.
  [[nodiscard]] std::uint32_t class_of(float worth) noexcept {
    const double bits = static_cast<double>(std::bit_cast<std::int32_t>(worth));
    n_worths_ = std::min(n_worths_ + 1.0, 1000.0);
    mean_bits_ += (bits - mean_bits_) / n_worths_;
    constexpr double half_a_doubling = 1 << 22;
    if (bits < mean_bits_ - half_a_doubling) return 1;
    return bits > mean_bits_ + half_a_doubling ? 2 : 0;
  }

  void look_around() noexcept {
    if (now_ % n_seen_at_once == 0 && entries_.size() > 0) {
      const std::uint32_t first = to_see_.next(entries_.size()) / n_seen_at_once * n_seen_at_once;
      const std::uint32_t end = std::min(first + n_seen_at_once, entries_.size());
      const EntryBlocks::Block& block = entries_.block(first);
      for (std::uint32_t place = first; place < end; ++place)
        rates_.waits(block.rate_class[place % n_sampled], now_ - block.used[place % n_sampled]);
      n_seen_ += end - first;
    }
    if (++n_unlearned_ < std::max(learn_every_min, entries_.size() / learn_every_part)) return;
    rates_.learn(n_seen_ > 0 ? static_cast<double>(entries_.size()) / n_seen_ : 0.0);
    n_unlearned_ = 0;
    n_seen_ = 0;
  }

  [[nodiscard]] static Candidate candidate(float value, EntryId id) noexcept {
    return Candidate{std::bit_cast<std::uint32_t>(value)} << 32 | id;
  }
  [[nodiscard]] Candidate candidate(std::uint32_t place) const noexcept {
    const EntryBlocks::Block& block = entries_.block(place);
    const std::uint32_t at = place % n_sampled;
    return candidate(rates_.rate(block.rate_class[at], now_ - block.used[at]) * block.worth[at], block.id[at]);
  }
  [[nodiscard]] static EntryId id_of(Candidate candidate) noexcept { return static_cast<EntryId>(candidate); }

  /// Into best_, the least first, if it is among the least and not in. Without a branch: none could be foretold.
  void consider(Candidate next) noexcept {
    bool is_in = false;
    for (const Candidate& each : best_) is_in |= each == next;
    Candidate behind = is_in ? nobody : next;
    for (std::size_t i = 0; i < best_.size(); ++i) {
      const Candidate here = best_[i];
      best_[i] = behind < here ? behind : here;
      behind = behind < here ? here : behind;
    }
  }

  const contracts::EvictionView* view_{};
  std::uint32_t now_{};  ///< insertions so far; wraps
  EntryId newest_{no_entry};
  EntryBlocks entries_;
  GhostHistories ghosts_;
  ReuseRates rates_;
  EvenPlaces to_see_;
  std::uint32_t hand_{};                    ///< where the block begins that the next choice looks at
  std::array<Candidate, n_kept + 1> best_;  ///< of the last choice, what it named first; nobody behind them
  bool is_named_{};
  double mean_bits_{};
  double n_worths_{};
  std::uint32_t n_unlearned_{};
  std::uint32_t n_seen_{};
};

}  // namespace

std::unique_ptr<contracts::EvictionPolicy> make_infcore() { return std::make_unique<Infcore>(); }

}  // namespace infcore::cache
