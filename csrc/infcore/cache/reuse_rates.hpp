#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace infcore::cache {

/// What is known of a key in one byte, so that it can outlive its entry: how often it was asked for, and how long
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
  [[nodiscard]] std::uint32_t of_class() const noexcept {
    const std::uint32_t n_doublings = static_cast<std::uint32_t>(std::bit_width((bits_ >> 2) - 1u));
    return std::min(n_doublings, 5u) * 4 + (bits_ & 3u);
  }
  /// Asked for again; `gap_class` < 4.
  [[nodiscard]] ReuseHistory used_again(std::uint32_t gap_class) const noexcept {
    ReuseHistory next;
    next.bits_ = static_cast<std::uint8_t>(std::min((bits_ >> 2) + 1u, 63u) << 2 | gap_class);
    return next;
  }

 private:
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
  static constexpr std::uint32_t n_ages = 48;

  ReuseRates() noexcept { learn(0.0); }

  /// Two for each doubling: 0, 1, 2-3, 4-5, 6-9, 10-13, ...
  [[nodiscard]] static std::uint32_t age_class(std::uint32_t age) noexcept {
    // A float's exponent and the first bit after it are these classes; above 2^24 it rounds, which the last one holds.
    const std::uint32_t from_two = std::min(age, 1u << n_ages / 2) + 2;
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<std::int32_t>(from_two)));
    return std::min((bits >> 22) - (128u << 1), n_ages - 1);
  }

  /// A key of this history was asked for when it was so old.
  void used(ReuseHistory history, std::uint32_t age) noexcept { ++used_[history.of_class()][age_class(age)]; }
  /// It was so old and not asked for yet, and will not be heard of again.
  void lost(ReuseHistory history, std::uint32_t age) noexcept { ++lost_[history.of_class()][age_class(age)]; }
  /// It is so old now and was not asked for yet: one of a sample, taken anew for each learn().
  void waits(ReuseHistory history, std::uint32_t age) noexcept { ++waiting_[history.of_class()][age_class(age)]; }

  [[nodiscard]] float rate(std::uint32_t of_class, std::uint32_t age) const noexcept {
    return rates_[of_class][age_class(age)];
  }

  /// Makes the rates anew. `n_each` entries wait for each one in the sample.
  void learn(double n_each) noexcept {
    for (std::uint32_t of_class = 0; of_class < ReuseHistory::n_classes; ++of_class) {
      learn(of_class, n_each);
      for (std::uint32_t age = 0; age < n_ages; ++age) {
        used_[of_class][age] *= kept;
        lost_[of_class][age] *= kept;
        waiting_[of_class][age] = 0.0;
      }
    }
  }

 private:
  /// Of what was counted, at each learn(): half is gone after 69 of them, seven times the entries.
  static constexpr double kept = 0.99;
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
  using Counts = std::array<std::array<double, n_ages>, ReuseHistory::n_classes>;

  /// Insertions from this age class to the next.
  [[nodiscard]] static double width(std::uint32_t age) noexcept {
    return static_cast<double>(age < 2 ? 1u : 1u << (age / 2));
  }

  void learn(std::uint32_t of_class, double n_each) noexcept {
    const double prior_uses = prior_weight * prior_share[of_class / 4];
    std::array<Stretch, n_ages> ahead;  // of falling rates, the nearest last
    std::uint32_t n_ahead = 0;
    double n_reached = 0.0;
    for (std::uint32_t age = n_ages; age-- > 0;) {
      const double n_ended = lost_[of_class][age] + waiting_[of_class][age] * n_each;
      n_reached += used_[of_class][age] + n_ended;
      // Who left the sight in here did so half way through.
      const double share = (used_[of_class][age] + prior_uses) / (n_reached - 0.5 * n_ended + prior_weight);
      Stretch next{share, width(age) * (1.0 - 0.5 * share), 1.0 - share};
      // It pays to wait on for as long as what follows is better.
      while (n_ahead > 0 && ahead[n_ahead - 1].uses * next.time > next.uses * ahead[n_ahead - 1].time) {
        const Stretch& then = ahead[--n_ahead];
        next.uses += next.alive * then.uses;
        next.time += next.alive * then.time;
        next.alive *= then.alive;
      }
      ahead[n_ahead++] = next;
      rates_[of_class][age] = static_cast<float>(next.uses / next.time);
    }
  }

  Counts used_{};
  Counts lost_{};
  Counts waiting_{};
  std::array<std::array<float, n_ages>, ReuseHistory::n_classes> rates_{};
};

}  // namespace infcore::cache
