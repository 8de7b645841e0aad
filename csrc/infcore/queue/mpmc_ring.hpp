#pragma once
#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <infcore/base/align.hpp>
#include <memory>
#include <span>
#include <type_traits>

namespace infcore::queue {

/// What a ring may carry: small plain values (indices, pointers, pairs of them). A popped cell keeps its bytes until it
/// is written again, so an item must not own anything.
template <class T>
concept QueueItem = std::is_nothrow_default_constructible_v<T> && std::is_nothrow_copy_assignable_v<T>;

/// Bounded multi-producer multi-consumer ring: a turn number per cell says whose move it is.
///
/// Threads    any number on both sides.
/// Progress   lock-free among running peers; a peer stalled between claim and hand-over blocks its cell: items behind
///            it wait, none is lost.
/// Ordering   FIFO by claim. Linearizable but for this: a pop may find the ring empty, or a push find it full, while an
///            earlier peer stalls.
/// Capacity   rounded up to a power of two, at least 2 (in a single cell "filled" and "free again" would look alike).
/// Full       try_push returns false, try_push_bulk takes what fits; nothing is overwritten.
///
/// A cell's turn is `position` while it waits for that push, `position + 1` while it waits for that pop, then
/// `position + capacity` for the next lap. Bulk calls look at a run of cells first and then claim it with one exchange:
/// a cell that is ready for a position can only change through the very counter that the exchange guards.
/// Source: D. Vyukov's bounded queue (1024cores.net, 2008); the range claim is ours.
template <QueueItem T, template <class> class Atom = std::atomic>
class MpmcRing {
 public:
  /// Allocates everything there will ever be.
  explicit MpmcRing(std::size_t capacity)
      : mask_(std::bit_ceil(std::max<std::size_t>(capacity, 2)) - 1), cells_(std::make_unique<Cell[]>(mask_ + 1)) {
    for (std::size_t i = 0; i <= mask_; ++i) cells_[i].turn.store(i, std::memory_order_relaxed);
  }
  MpmcRing(const MpmcRing&) = delete;
  MpmcRing& operator=(const MpmcRing&) = delete;

  [[nodiscard]] std::size_t capacity() const noexcept { return mask_ + 1; }

  /// True where try_pop would have found nothing. A consumer's hint: what is pushed meanwhile is not seen.
  [[nodiscard]] bool empty() const noexcept {
    const std::size_t at = head_.load(std::memory_order_relaxed);
    const std::size_t turn = cells_[at & mask_].turn.load(std::memory_order_relaxed);
    return static_cast<std::ptrdiff_t>(turn - (at + 1)) < 0;
  }

  [[nodiscard]] bool try_push(const T& item) noexcept {
    std::size_t at = tail_.load(std::memory_order_relaxed);
    for (;;) {
      Cell& cell = cells_[at & mask_];
      // [R2] acquire: the pop of the lap before has read the cell; pairs with the release [R2] in try_pop*.
      const std::size_t turn = cell.turn.load(std::memory_order_acquire);
      const auto lead = static_cast<std::ptrdiff_t>(turn - at);
      if (lead == 0) {
        if (tail_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed, std::memory_order_relaxed)) {
          cell.item = item;
          // [R1] release: publishes the item; pairs with the acquire [R1] in try_pop*.
          cell.turn.store(at + 1, std::memory_order_release);
          return true;
        }
      } else if (lead < 0) {
        return false;
      } else {
        at = tail_.load(std::memory_order_relaxed);
      }
    }
  }

  [[nodiscard]] bool try_pop(T& item) noexcept {
    std::size_t at = head_.load(std::memory_order_relaxed);
    for (;;) {
      Cell& cell = cells_[at & mask_];
      // [R1] acquire: the item is readable; pairs with the release [R1] in try_push*.
      const std::size_t turn = cell.turn.load(std::memory_order_acquire);
      const auto lead = static_cast<std::ptrdiff_t>(turn - (at + 1));
      if (lead == 0) {
        if (head_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed, std::memory_order_relaxed)) {
          item = cell.item;
          // [R2] release: the item has been read, the cell may be written; pairs with the acquire [R2] in try_push*.
          cell.turn.store(at + mask_ + 1, std::memory_order_release);
          return true;
        }
      } else if (lead < 0) {
        return false;
      } else {
        at = head_.load(std::memory_order_relaxed);
      }
    }
  }

  /// Pushes as long a prefix of `items` as fits, without a gap; returns its length.
  [[nodiscard]] std::size_t try_push_bulk(std::span<const T> items) noexcept {
    std::size_t at = tail_.load(std::memory_order_relaxed);
    const std::size_t n = claim(tail_, at, 0, items.size());
    const T* item = items.data();
    for_each_cell(at, n, [&item](Cell& cell, std::size_t position) {
      cell.item = *item++;
      // [R1] release: publishes the item; pairs with the acquire [R1] in try_pop and claim.
      cell.turn.store(position + 1, std::memory_order_release);
    });
    return n;
  }

  /// Pops up to items.size() items into a prefix of `items`; returns its length.
  [[nodiscard]] std::size_t try_pop_bulk(std::span<T> items) noexcept {
    std::size_t at = head_.load(std::memory_order_relaxed);
    const std::size_t n = claim(head_, at, 1, items.size());
    T* item = items.data();
    for_each_cell(at, n, [&item, lap = mask_ + 1](Cell& cell, std::size_t position) {
      *item++ = cell.item;
      // [R2] release: the item has been read, the cell may be written; pairs with the acquire [R2] in try_push, claim.
      cell.turn.store(position + lap, std::memory_order_release);
    });
    return n;
  }

 private:
  struct Cell {
    Atom<std::size_t> turn{0};
    T item{};
  };

  /// work(cell, position) for n positions from `at`: two runs without a mask, so that the loops unroll.
  template <class Work>
  void for_each_cell(std::size_t at, std::size_t n, Work work) noexcept {
    const std::size_t n_before_wrap = std::min(n, mask_ + 1 - (at & mask_));
    Cell* cell = &cells_[at & mask_];
    for (std::size_t i = 0; i < n_before_wrap; ++i) work(*cell++, at++);
    cell = &cells_[0];
    for (std::size_t i = n_before_wrap; i < n; ++i) work(*cell++, at++);
  }

  /// Whose move the cell of `position` is, and by how much that is off the turn that is wanted: 0 is ready.
  std::size_t turns_off(std::size_t position, std::size_t offset) const noexcept {
    // [R1] [R2] acquire: as in try_pop and try_push, for each cell of a run.
    return cells_[position & mask_].turn.load(std::memory_order_acquire) - (position + offset);
  }

  /// How many cells in a row, at most n_max, have their position + `offset` as turn.
  std::size_t count_ready(std::size_t at, std::size_t offset, std::size_t n_max) const noexcept {
    std::size_t n = 0;
    for (; n + 4 <= n_max; n += 4) {  // one branch for four cells
      std::size_t off = turns_off(at + n, offset);
      off |= turns_off(at + n + 1, offset);
      off |= turns_off(at + n + 2, offset);
      off |= turns_off(at + n + 3, offset);
      if (off != 0) break;
    }
    while (n < n_max && turns_off(at + n, offset) == 0) ++n;
    return n;
  }

  /// Moves `counter` over the run of cells, at most n_max, whose turn is their position + `offset` (0: to push, 1: to
  /// pop). Returns how many, from `at`.
  std::size_t claim(Atom<std::size_t>& counter, std::size_t& at, std::size_t offset, std::size_t n_max) noexcept {
    n_max = std::min(n_max, mask_ + 1);
    while (n_max != 0) {
      const std::size_t n = count_ready(at, offset, n_max);
      if (n != 0) {
        if (counter.compare_exchange_weak(at, at + n, std::memory_order_relaxed, std::memory_order_relaxed)) return n;
      } else if (static_cast<std::ptrdiff_t>(turns_off(at, offset)) < 0) {
        return 0;
      } else {
        at = counter.load(std::memory_order_relaxed);
      }
    }
    return 0;
  }

  const std::size_t mask_;
  const std::unique_ptr<Cell[]> cells_;
  alignas(base::false_sharing_bytes) Atom<std::size_t> tail_{0};
  alignas(base::false_sharing_bytes) Atom<std::size_t> head_{0};
};

static_assert(alignof(MpmcRing<std::uint64_t>) == base::false_sharing_bytes);
static_assert(sizeof(MpmcRing<std::uint64_t>) == 3 * base::false_sharing_bytes);

}  // namespace infcore::queue
