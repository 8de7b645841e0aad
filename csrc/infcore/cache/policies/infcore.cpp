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
// filed. A sample is spread evenly by a fixed sequence, not drawn. The newest entry is always looked at: what would
// push out more than it brings is not admitted. All that leaves is remembered, also what expires or is replaced.
//
// O(1): a hit two counts; an insertion two entries looked at and, every tenth of the entries, all rates anew; a choice
// 16 to 25 entries looked at. Up to 16 evictable entries all are, and ties go to the lowest id of all; else of those.
// 36 bytes an entry, ghosts included, and 32 KB. Tunables: the constants below, ReuseRates' prior and fading.
#include <infcore/base/column.hpp>
#include <infcore/cache/ghost_histories.hpp>
#include <infcore/cache/reuse_rates.hpp>
#include <infcore/contracts/eviction.hpp>

#include <algorithm>
#include <array>
#include <bit>
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
  static constexpr std::uint32_t n_sampled = 16;
  static constexpr std::uint32_t n_kept = 8;
  /// Entries looked at for each insertion, so that the rates know of those that wait.
  static constexpr std::uint32_t n_seen_each = 2;
  static constexpr std::uint32_t n_remembered_each = 4;
  static constexpr std::uint32_t learn_every_min = 256;
  static constexpr std::uint32_t learn_every_part = 10;
  /// A nanosecond's tenth: where nothing costs anything, likely uses count alone.
  static constexpr double cost_us_min = 1e-4;

  struct Entry {
    std::uint32_t used;       ///< when last
    float worth;              ///< cost by bytes
    std::uint32_t behind;     ///< its place among the evictable; 0: it is not one of them
    ReuseHistory history;     ///< empty: it is not in
    std::uint8_t rate_class;  ///< of history
    [[nodiscard]] bool is_evictable() const noexcept { return behind != 0; }
  };
  /// Value in the upper half, id in the lower: values are not negative, so their bits are in their order.
  using Candidate = std::uint64_t;

  void attach(const contracts::EvictionView& view, const contracts::EvictionLimits& limits) override {
    view_ = &view;
    grow(limits.n_entries_max);
  }
  void grow(std::uint32_t n_entries_max) override {
    entries_.grow(n_entries_max);
    evictable_.grow(n_entries_max);
    ghosts_.grow(n_entries_max);
  }

  void on_insert(EntryId id) noexcept override {
    is_named_ = false;
    ++now_;
    look_around();
    const contracts::EvictionEntry shown = view_->entry(id);
    Entry& entry = entries_[id];
    const double worth = std::max(shown.cost_us, cost_us_min) * shown.reuse / static_cast<double>(shown.bytes);
    entry.worth = static_cast<float>(std::clamp(worth, 1e-30, 1e30));
    const std::uint32_t worth_class = class_of(entry.worth);
    const GhostHistories::Ghost ghost = ghosts_.take(shown.key, now_);
    if (ghost.history.empty()) {
      entry.history = ReuseHistory(worth_class);
      entry.rate_class = static_cast<std::uint8_t>(entry.history.of_class());
    } else {
      entry.used = ghost.used;
      entry.history = ghost.history;
      use(entry);
    }
    entry.used = now_;
    newest_ = id;
    n_ids_ = std::max(n_ids_, id + 1);
    ++n_entries_;
  }
  void on_hit(std::span<const EntryId> ids) noexcept override {
    is_named_ = false;
    for (const EntryId id : ids) use(entries_[id]);
  }
  void on_release(std::span<const EntryId> ids) noexcept override {
    is_named_ = false;
    for (const EntryId id : ids) entries_[id].used = now_;
  }
  void on_evictable(EntryId id) noexcept override {
    is_named_ = false;
    evictable_[n_evictable_++] = id;
    entries_[id].behind = n_evictable_;
  }
  void on_held(EntryId id) noexcept override {
    is_named_ = false;
    const EntryId last = evictable_[--n_evictable_];
    evictable_[entries_[id].behind - 1] = last;
    entries_[last].behind = entries_[id].behind;
    entries_[id].behind = 0;
  }
  void on_remove(EntryId id) noexcept override {
    Entry& entry = entries_[id];
    if (entry.is_evictable()) on_held(id);
    is_named_ = false;
    const GhostHistories::Life life{now_, n_remembered_each * n_entries_};
    ghosts_.remember(view_->entry(id).key, {entry.history, entry.used}, life,
                     [this](const GhostHistories::Ghost& lost) { rates_.lost(lost.history, now_ - lost.used); });
    entry.history = {};
    --n_entries_;
  }

  EntryId victim() noexcept override {
    if (is_named_) return id_of(best_[0]);
    if (n_evictable_ == 0) return no_entry;
    if (n_evictable_ <= n_sampled) {
      n_best_ = 0;
      for (std::uint32_t i = 0; i < n_evictable_; ++i) consider(candidate(evictable_[i]));
    } else {
      sample();
    }
    is_named_ = true;
    return id_of(best_[0]);
  }

  void sample() noexcept {
    std::array<Candidate, n_sampled> sampled;
    std::array<EntryId, n_sampled> ids;  // first, so that their entries are all on their way at once
    for (EntryId& id : ids) {
      id = evictable_[to_choose_.next(n_evictable_)];
      __builtin_prefetch(&entries_[id]);
    }
    for (std::uint32_t i = 0; i < n_sampled; ++i) sampled[i] = candidate(ids[i]);
    if (newest_ != no_entry && entries_[newest_].is_evictable()) consider(candidate(newest_));
    for (const Candidate& each : sampled) consider(each);
    // Those kept from choices before may have been found or have left since then.
    for (;;) {
      if (n_best_ == 0) {
        for (const Candidate& each : sampled) consider(each);
      }
      const EntryId id = id_of(best_[0]);
      const bool is_evictable = entries_[id].is_evictable();
      const Candidate now = candidate(id);
      if (is_evictable && now == best_[0]) return;
      std::copy(best_.begin() + 1, best_.begin() + n_best_, best_.begin());
      --n_best_;
      if (is_evictable) consider(now);
    }
  }

  void use(Entry& entry) noexcept {
    const std::uint32_t gap = now_ - entry.used;
    rates_.used(entry.history, gap);
    entry.history = entry.history.used_again(std::min(ReuseRates::age_class(gap) / 8, 3u));
    entry.rate_class = static_cast<std::uint8_t>(entry.history.of_class());
    entry.used = now_;
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
    for (std::uint32_t i = 0; i < n_seen_each && n_ids_ > 0; ++i) {
      const Entry& entry = entries_[to_see_.next(n_ids_)];
      if (!entry.history.empty()) rates_.waits(entry.history, now_ - entry.used);
      ++n_seen_;
    }
    if (++n_unlearned_ < std::max(learn_every_min, n_entries_ / learn_every_part)) return;
    rates_.learn(n_seen_ > 0 ? static_cast<double>(n_ids_) / n_seen_ : 0.0);
    n_unlearned_ = 0;
    n_seen_ = 0;
  }

  [[nodiscard]] Candidate candidate(EntryId id) const noexcept {
    const Entry& entry = entries_[id];
    const float value = rates_.rate(entry.rate_class, now_ - entry.used) * entry.worth;
    return Candidate{std::bit_cast<std::uint32_t>(value)} << 32 | id;
  }
  [[nodiscard]] static EntryId id_of(Candidate candidate) noexcept { return static_cast<EntryId>(candidate); }

  /// Into best_, the least first, if it is among the least and not in.
  void consider(Candidate next) noexcept {
    if (n_best_ == best_.size() && next >= best_[n_best_ - 1]) return;
    std::uint32_t at = n_best_;
    while (at > 0 && next < best_[at - 1]) --at;
    if (at > 0 && best_[at - 1] == next) return;
    if (n_best_ < best_.size()) ++n_best_;
    for (std::uint32_t i = n_best_ - 1; i > at; --i) best_[i] = best_[i - 1];
    best_[at] = next;
  }

  const contracts::EvictionView* view_{};
  std::uint32_t now_{};    ///< insertions so far; wraps
  std::uint32_t n_ids_{};  ///< ids seen are below it
  std::uint32_t n_entries_{};
  EntryId newest_{no_entry};
  std::uint32_t n_evictable_{};
  base::Column<Entry> entries_;
  base::Column<EntryId> evictable_;
  GhostHistories ghosts_;
  ReuseRates rates_;
  EvenPlaces to_choose_;
  EvenPlaces to_see_;
  std::array<Candidate, n_kept + 1> best_{};  ///< of the last choice, what it named first
  std::uint32_t n_best_{};
  bool is_named_{};
  double mean_bits_{};
  double n_worths_{};
  std::uint32_t n_unlearned_{};
  std::uint32_t n_seen_{};
};

}  // namespace

std::unique_ptr<contracts::EvictionPolicy> make_infcore() { return std::make_unique<Infcore>(); }

}  // namespace infcore::cache
