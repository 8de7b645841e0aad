#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace infcore::cache {

/// What is known of a key in seven bits, so that it can outlive its entry: how often it was asked for, and how long
/// before the last time, roughly; of what was asked for once, whether it is worth more than others.
class ReuseHistory {
 public:
  static constexpr std::uint32_t n_classes = 24;

  ReuseHistory() = default;
  /// Asked for once; `worth_class` < 3.
  explicit ReuseHistory(std::uint32_t worth_class) noexcept : bits_(static_cast<std::uint8_t>(1u << 2 | worth_class)) {}

  [[nodiscard]] static ReuseHistory of_bits(std::uint32_t bits) noexcept {
    ReuseHistory history;
    history.bits_ = static_cast<std::uint8_t>(bits);
    return history;
  }
  [[nodiscard]] std::uint8_t bits() const noexcept { return bits_; }

  /// No history of a key is empty.
  [[nodiscard]] bool empty() const noexcept { return bits_ == 0; }
  /// Those of one class are taken to behave alike: 1, 2, 3-4, 5-8, 9-16 or more uses, by four lengths of the last gap.
  [[nodiscard]] std::uint32_t of_class() const noexcept { return classes[bits_]; }
  /// Asked for again; `gap_class` < 4.
  [[nodiscard]] ReuseHistory used_again(std::uint32_t gap_class) const noexcept {
    ReuseHistory next;
    next.bits_ = static_cast<std::uint8_t>(std::min((bits_ >> 2) + 1u, 31u) << 2 | gap_class);
    return next;
  }

 private:
  static constexpr std::array<std::uint8_t, 128> classes = [] {
    std::array<std::uint8_t, 128> classes{};
    for (std::uint32_t bits = 4; bits < classes.size(); ++bits) {
      const std::uint32_t n_doublings = static_cast<std::uint32_t>(std::bit_width((bits >> 2) - 1));
      classes[bits] = static_cast<std::uint8_t>(std::min(n_doublings, 5u) * 4 + (bits & 3u));
    }
    return classes;
  }();

  std::uint8_t bits_{};
};

/// Learns, for each class of history and each age, how soon a key is asked for again: uses against those that were not
/// seen again until that age, as in estimates of survival (Kaplan and Meier, JASA 1958). Time is counted in insertions:
/// while all is found, nothing ages. Old counts fade; a prior of a few uses stands in where little was seen.
///
/// rate() is uses to expect in a time, over that time, for the time from now where it is best (Gittins, J. R. Stat.
/// Soc. B 1979): what is about to come back after a pause is worth its wait. O(1); learn() O(classes * ages).
class ReuseRates {
 public:
  static constexpr std::uint32_t n_ages = 64;

  ReuseRates() noexcept {
    for (std::uint32_t of_class = 0; of_class < ReuseHistory::n_classes; ++of_class) learn(of_class, n_ages, 0.0);
  }

  /// Two for each doubling: 0, 1, 2-3, 4-5, 6-9, 10-13, ..., the last few stay empty; ages wrap after 2^30.
  [[nodiscard]] static std::uint32_t age_class(std::uint32_t age) noexcept {
    // A float's exponent and the first bit after it are these classes; above 2^24 it rounds.
    const std::int32_t from_two = static_cast<std::int32_t>(age & 0x3FFF'FFFFu) + 2;
    const std::int32_t bits = std::bit_cast<std::int32_t>(static_cast<float>(from_two));
    return static_cast<std::uint32_t>((bits >> 22) - (128 << 1));
  }

  /// A key of this class was asked for when it was so old.
  void used(std::uint32_t of_class, std::uint32_t age) noexcept { ++used_[of_class][age_class(age)]; }
  /// It was so old and not asked for yet, and will not be heard of again.
  void lost(std::uint32_t of_class, std::uint32_t age) noexcept { ++lost_[of_class][age_class(age)]; }
  /// It is so old now and was not asked for yet: one of a sample, taken anew for each learn().
  void waits(std::uint32_t of_class, std::uint32_t age) noexcept { ++waiting_[of_class][age_class(age)]; }

  [[nodiscard]] float rate(std::uint32_t of_class, std::uint32_t age) const noexcept {
    return rate(of_class * n_ages + age_class(age));
  }
  /// The same by one index, class * n_ages + age class.
  [[nodiscard]] float rate(std::uint32_t at) const noexcept { return rates_[at]; }

  /// Makes the rates anew. `n_each` entries wait for each one in the sample.
  void learn(double n_each) noexcept {
    for (std::uint32_t of_class = 0; of_class < ReuseHistory::n_classes; ++of_class) {
      std::array<double, n_ages>&of_used = faded_used_[of_class], &of_lost = faded_lost_[of_class];
      for (std::uint32_t age = 0; age < n_ages; ++age) {
        of_used[age] += used_[of_class][age];
        of_lost[age] += lost_[of_class][age];
      }
      // Behind the oldest that was ever seen the prior stands, as it did from the first.
      std::uint32_t n_seen = n_ages;
      while (n_seen > 0 && of_used[n_seen - 1] + of_lost[n_seen - 1] + waiting_[of_class][n_seen - 1] == 0.0) --n_seen;
      n_seen_[of_class] = std::max(n_seen_[of_class], n_seen);
      if (n_seen_[of_class] == 0) continue;
      learn(of_class, n_seen_[of_class], n_each);
      for (std::uint32_t age = 0; age < n_ages; ++age) {
        of_used[age] *= kept;
        of_lost[age] *= kept;
      }
    }
    used_ = lost_ = waiting_ = {};
  }

 private:
  /// Of what was counted, at each learn(): half is gone after 34 of them, seven times the entries.
  static constexpr double kept = 0.98;
  /// The prior counts as much as so many keys seen.
  static constexpr double prior_weight = 16.0;
  /// Of those that reach an age, so many are asked for before the next, by the doublings of uses: a fifth, and for each
  /// doubling a fifth of the rest, half at most.
  static constexpr std::array<double, 6> prior_share{0.2, 0.36, 0.488, 0.5, 0.5, 0.5};

  struct Stretch {
    double uses;   ///< to expect in it
    double time;   ///< to expect until the use or its end
    double alive;  ///< part that reaches its end unused
  };
  template <class T>
  using Table = std::array<std::array<T, n_ages>, ReuseHistory::n_classes>;

  /// Insertions from each age class to the next.
  static constexpr std::array<double, n_ages> widths = [] {
    std::array<double, n_ages> widths{1.0, 1.0};
    for (std::uint32_t age = 2; age < n_ages; ++age) widths[age] = 2.0 * widths[age - 2];
    return widths;
  }();

  /// Of the classes of age below n_seen; what is above was never seen.
  void learn(std::uint32_t of_class, std::uint32_t n_seen, double n_each) noexcept {
    const double prior = prior_share[of_class / 4], prior_uses = prior_weight * prior;
    std::array<Stretch, n_ages> ahead;  // of falling rates, the nearest last
    std::uint32_t n_ahead = 0;
    for (std::uint32_t age = n_ages; age-- > n_seen;)
      ahead[n_ahead++] = {prior, widths[age] * (1.0 - 0.5 * prior), 1.0 - prior};
    double n_reached = 0.0;
    for (std::uint32_t age = n_seen; age-- > 0;) {
      const double n_used = faded_used_[of_class][age];
      const double n_ended = faded_lost_[of_class][age] + waiting_[of_class][age] * n_each;
      n_reached += n_used + n_ended;
      // Who left the sight in here did so half way through.
      const double share = (n_used + prior_uses) / (n_reached - 0.5 * n_ended + prior_weight);
      Stretch next{share, widths[age] * (1.0 - 0.5 * share), 1.0 - share};
      // It pays to wait on for as long as what follows is better.
      while (n_ahead > 0 && ahead[n_ahead - 1].uses * next.time > next.uses * ahead[n_ahead - 1].time) {
        const Stretch& then = ahead[--n_ahead];
        next.uses += next.alive * then.uses;
        next.time += next.alive * then.time;
        next.alive *= then.alive;
      }
      ahead[n_ahead++] = next;
      rates_[of_class * n_ages + age] = static_cast<float>(next.uses / next.time);
    }
  }

  // Since the last learn(): small, since every lookup writes into them.
  Table<std::uint32_t> used_{};
  Table<std::uint32_t> lost_{};
  Table<std::uint32_t> waiting_{};
  std::array<float, ReuseHistory::n_classes * n_ages> rates_{};
  Table<double> faded_used_{};  ///< until then
  Table<double> faded_lost_{};
  std::array<std::uint32_t, ReuseHistory::n_classes> n_seen_{};  ///< classes of age up to the oldest ever seen
};

}  // namespace infcore::cache
