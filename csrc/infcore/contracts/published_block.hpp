#pragma once
#include <infcore/base/align.hpp>

#include <array>
#include <atomic>
#include <cstdint>

namespace infcore::contracts {

/// A block of rows that some threads write and others keep a copy of. A reader asks one counter whether anything has
/// changed since it last looked, and copies the rows only if so; it never waits, and no change is lost on it.
///
/// Any number of writers and readers; readers are wait-free. Who writes a word that others write too gives put_latest()
/// what to work it out from: it is lock-free, and of two that write at once the one that is announced last has seen
/// what the other had done before. A copy made while a writer is at work may mix a row's old and new words; the counter
/// then moves again, so the next look copies it whole. Words are 64 bits, all relaxed: order comes from the counter
/// alone, which also names the rows of the last changes, so that who looks often copies those alone.
template <std::uint32_t n_rows, std::uint32_t n_words, template <class> class Atom = std::atomic>
class alignas(base::false_sharing_bytes) PublishedBlock {
 public:
  void put(std::uint32_t row, std::uint32_t word, std::uint64_t value) noexcept {
    words_[word][row].store(value, std::memory_order_relaxed);  // relaxed: announce() orders it
  }
  /// After the stores of a change.
  void announce() noexcept {
    // release [F1]: whoever sees this count sees the stores before it. A read-modify-write, so that it also carries on
    // what other writers released.
    changes_.fetch_add(any_change, std::memory_order_release);
  }

  /// Puts what `value_of()` makes of figures that other writers of the word change too, and announces it; again, where
  /// somebody announced something meanwhile. Once all writers are done, the word is as if all changes came before the
  /// last value_of().
  template <class ValueOf>
  void put_latest(std::uint32_t row, std::uint32_t word, ValueOf value_of) noexcept {
    // acquire [F1]: what others did before their announcements is in the value.
    std::uint64_t count = changes_.load(std::memory_order_acquire);
    do {
      put(row, word, value_of());
      // release [F1]: as announce(). acquire: where somebody was before it, the next value has what that one did.
    } while (!changes_.compare_exchange_strong(count, with_latest(count, row), std::memory_order_acq_rel,
                                               std::memory_order_acquire));
  }

  /// What a reader who saw `seen` has not: nothing, the put_latest() word of some rows or of any, or words of any rows.
  struct Changes {
    enum class What : std::uint8_t { nothing, latest_of_some, latest, any };
    What what;
    std::uint32_t n_rows_named;  ///< of `latest_of_some`; a row may be named twice
    std::uint64_t count;
    [[nodiscard]] std::uint32_t row(std::uint32_t k) const noexcept {
      return static_cast<std::uint32_t>(count >> (k * row_bits)) & row_mask;
    }
  };
  /// The words may be read then, and `seen` is moved.
  [[nodiscard]] Changes changed(std::uint64_t& seen) const noexcept {
    using What = typename Changes::What;
    const std::uint64_t now = changes_.load(std::memory_order_acquire);  // acquire [F1]
    const std::uint64_t before = seen;
    if (now == before) return {What::nothing, 0, now};
    seen = now;
    const std::uint64_t n = (now >> names_bits) - (before >> names_bits);
    if (n <= n_named) return {What::latest_of_some, static_cast<std::uint32_t>(n), now};
    return {now / any_change == before / any_change ? What::latest : What::any, 0, now};
  }
  [[nodiscard]] std::uint64_t get(std::uint32_t row, std::uint32_t word) const noexcept {
    return words_[word][row].load(std::memory_order_relaxed);  // relaxed: changed() orders it
  }

 private:
  // The count, from its low end: the rows of the last three put_latest(), the newest first; how many of those there
  // were; how many others. Should the former carry over into the latter, a reader copies more than it need.
  static constexpr std::uint32_t row_bits = 6, row_mask = 63, n_named = 3, names_bits = n_named * row_bits;
  static constexpr std::uint64_t latest_change = std::uint64_t{1} << names_bits, any_change = std::uint64_t{1} << 32;
  static_assert(n_rows <= row_mask + 1);

  static std::uint64_t with_latest(std::uint64_t count, std::uint32_t row) noexcept {
    const std::uint64_t names = (count << row_bits | row) & (latest_change - 1);
    return (count & ~(latest_change - 1)) + latest_change + names;
  }

  Atom<std::uint64_t> changes_{};
  std::array<std::array<Atom<std::uint64_t>, n_rows>, n_words> words_{};
};

}  // namespace infcore::contracts
