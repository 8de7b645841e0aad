#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

namespace infcore::queue {

/// Bounded places, in all and by tier, and how many wait for one. Counts only: who waits sleeps elsewhere, and whoever
/// is told that somebody waits wakes him.
///
/// Threads    any.
/// Progress   lock-free.
/// Promise    no wake-up is lost: a place that is free after everything has come to rest was seen by whoever had called
///            want() before he looked, or is_wanted() said so after the call that freed it. Never counted beyond its
///            bound in all, not even for a moment, since who waits would take that for full; in a tier, where two race
///            for its last place, and the loser then says so. After close() no place is taken that n_taken() did not
///            count when close() returned. Model: tests/concurrency/places.cpp.
template <template <class> class Atom = std::atomic>
class Places {
 public:
  /// `tier_max`: one bound for each tier, or nothing where tiers are not bounded.
  Places(std::uint32_t n_max, std::span<const std::uint32_t> tier_max)
      : n_max_(n_max),
        tier_max_(tier_max),
        n_in_tier_(tier_max.empty() ? nullptr : std::make_unique<Atom<std::uint32_t>[]>(tier_max.size())) {}
  Places(const Places&) = delete;
  Places& operator=(const Places&) = delete;

  enum class Took : std::uint8_t {
    place,
    none,
    none_after_all  ///< another one was faster: is_wanted() is to be asked, as after give()
  };

  [[nodiscard]] Took take(std::uint32_t tier) noexcept {
    if (!has_room(tier)) return Took::none;
    std::uint32_t n = n_taken_.load(std::memory_order_relaxed);
    do {
      if (n >= n_max_) return Took::none;
      // [Q1] seq_cst: either this sees `closed_` below, or whoever set it sees this place in n_taken_.
    } while (!n_taken_.compare_exchange_weak(n, n + 1, std::memory_order_seq_cst, std::memory_order_relaxed));
    bool may = !is_closed();
    if (n_in_tier_) may = n_in_tier_[tier].fetch_add(1, std::memory_order_relaxed) < tier_max_[tier] && may;
    if (may) return Took::place;
    give(tier);
    return Took::none_after_all;
  }

  /// Then is_wanted() is to be asked.
  void give(std::uint32_t tier) noexcept {
    // [R2] seq_cst: either whoever wants a place sees this one, or is_wanted() sees him.
    if (n_in_tier_) n_in_tier_[tier].fetch_sub(1, std::memory_order_seq_cst);
    n_taken_.fetch_sub(1, std::memory_order_seq_cst);
  }

  [[nodiscard]] bool is_wanted() const noexcept { return n_want_.load(std::memory_order_seq_cst) > 0; }  // [R2]

  /// Before has_room() or take() is asked once more, by whoever then waits.
  void want() noexcept { n_want_.fetch_add(1, std::memory_order_seq_cst); }  // [R2]
  void want_no_more(std::uint32_t n = 1) noexcept { n_want_.fetch_sub(n, std::memory_order_relaxed); }

  [[nodiscard]] bool has_room(std::uint32_t tier) const noexcept {
    // [R2] seq_cst: see give().
    if (n_in_tier_ && n_in_tier_[tier].load(std::memory_order_seq_cst) >= tier_max_[tier]) return false;
    return n_taken_.load(std::memory_order_seq_cst) < n_max_;  // [R2]
  }

  void close() noexcept { closed_.store(true, std::memory_order_seq_cst); }                                  // [Q1]
  [[nodiscard]] bool is_closed() const noexcept { return closed_.load(std::memory_order_seq_cst); }          // [Q1]
  [[nodiscard]] std::uint32_t n_taken() const noexcept { return n_taken_.load(std::memory_order_seq_cst); }  // [Q1]

 private:
  const std::uint32_t n_max_;
  const std::span<const std::uint32_t> tier_max_;
  Atom<std::uint32_t> n_taken_{0}, n_want_{0};
  Atom<bool> closed_{false};
  const std::unique_ptr<Atom<std::uint32_t>[]> n_in_tier_;
};

}  // namespace infcore::queue
