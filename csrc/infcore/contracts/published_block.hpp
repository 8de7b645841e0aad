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
/// alone.
template <std::uint32_t n_rows, std::uint32_t n_words, template <class> class Atom = std::atomic>
class alignas(base::false_sharing_bytes) PublishedBlock {
 public:
  void put(std::uint32_t row, std::uint32_t word, std::uint64_t value) noexcept {
    words_[word][row].store(value, std::memory_order_relaxed);  // relaxed: announce() orders it
  }
  /// After the stores of a change.
  void announce() noexcept { announce_since(any_word); }

  /// Puts what `value_of()` makes of figures that other writers of the word change too, and announces it; again, where
  /// somebody announced something meanwhile. Once all writers are done, the word is as if all changes came before the
  /// last value_of().
  template <class ValueOf>
  void put_latest(std::uint32_t row, std::uint32_t word, ValueOf value_of) noexcept {
    // acquire [F1]: what others did before their announcements is in the value.
    std::uint64_t count = changes_.load(std::memory_order_acquire);
    for (;;) {
      put(row, word, value_of());
      const std::uint64_t before = announce_since(latest_word);
      if (before == count) return;
      count = before + latest_word;
    }
  }

  /// What a reader who saw `seen` has not: nothing, words of put_latest() alone, or any. The words may be read then,
  /// and `seen` is moved.
  enum class Changed : std::uint8_t { nothing, latest_only, any };
  [[nodiscard]] Changed changed(std::uint64_t& seen) const noexcept {
    const std::uint64_t now = changes_.load(std::memory_order_acquire);  // acquire [F1]
    if (now == seen) return Changed::nothing;
    const bool latest_only = now / any_word == seen / any_word;
    seen = now;
    return latest_only ? Changed::latest_only : Changed::any;
  }
  [[nodiscard]] std::uint64_t get(std::uint32_t row, std::uint32_t word) const noexcept {
    return words_[word][row].load(std::memory_order_relaxed);  // relaxed: changed() orders it
  }

 private:
  /// What a change counts for: the halves of the count. Should the lower one carry over, a reader copies more than it
  /// need.
  static constexpr std::uint64_t latest_word = 1, any_word = std::uint64_t{1} << 32;

  std::uint64_t announce_since(std::uint64_t by) noexcept {
    // release [F1]: whoever sees this count sees the stores before it; and acquire: put_latest(), where somebody was
    // before it, sees what that one did. A read-modify-write, so that it also carries on what other writers released.
    return changes_.fetch_add(by, std::memory_order_acq_rel);
  }

  Atom<std::uint64_t> changes_{};
  std::array<std::array<Atom<std::uint64_t>, n_rows>, n_words> words_{};
};

}  // namespace infcore::contracts
