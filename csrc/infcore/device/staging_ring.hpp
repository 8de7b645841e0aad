#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace infcore::device {

/// Gives out regions of one block of memory, round and round: a batch's inputs live in one from the copy to the last
/// use. While one batch is read (by a run, by a copy to a GPU), the next is written behind it.
///
/// Threads    one owner calls reserve; anyone who holds a region releases it, once, in any order.
/// Progress   wait-free; reserve is O(regions released since).
/// Capacity   `bytes`, and regions_max at once. Full, also because of one old region that is kept: nothing, at once.
///
/// When nothing is out, the next region begins at the start again, so that a device which runs one batch at a time
/// keeps to memory that its cache has.
template <template <class> class Atom = std::atomic>
class StagingRing {
 public:
  static constexpr std::size_t alignment = 64;  ///< a cache line, and more than any tensor library asks of a pointer
  static constexpr std::uint32_t regions_max = 256;

  /// Where a region lies, in bytes from the block's start, and its ticket for release.
  struct Region {
    std::size_t at;
    std::uint64_t ticket;
  };

  explicit StagingRing(std::size_t bytes) noexcept : bytes_(bytes) {}
  StagingRing(const StagingRing&) = delete;
  StagingRing& operator=(const StagingRing&) = delete;

  /// What a region of so many bytes takes up: none is empty, so that two never begin at one place.
  [[nodiscard]] static constexpr std::size_t rounded(std::size_t bytes) noexcept {
    return bytes == 0 ? alignment : (bytes + alignment - 1) / alignment * alignment;
  }

  [[nodiscard]] std::optional<Region> reserve(std::size_t bytes) noexcept {
    collect();
    const std::size_t need = rounded(bytes);
    if (need > bytes_ || need < bytes || newest_ - oldest_ == regions_max) return std::nullopt;
    std::size_t at = 0;
    if (newest_ != oldest_) {
      const std::size_t tail = slot(oldest_).begin;
      const std::size_t head = slot(newest_ - 1).end;
      if (head > tail) {  // in use from tail to head
        if (bytes_ - head >= need) {
          at = head;
        } else if (tail < need) {
          return std::nullopt;
        }
      } else if (tail - head < need) {  // in use from tail to the block's end, and up to head
        return std::nullopt;
      } else {
        at = head;
      }
    }
    Slot& own = slot(newest_);
    own.begin = at;
    own.end = at + need;
    own.out.store(1, std::memory_order_relaxed);  // only release() reads it next, and it has the ticket from us
    return Region{at, newest_++};
  }

  void release(std::uint64_t ticket) noexcept {
    // [S1] release: our reads of the region are over; pairs with the acquire [S1] in collect().
    slot(ticket).out.store(0, std::memory_order_release);
  }

  /// Bytes of the regions that are out. The owner's, as n_out.
  [[nodiscard]] std::size_t bytes_out() const noexcept {
    std::size_t sum = 0;
    for (std::uint64_t ticket = oldest_; ticket != newest_; ++ticket) {
      const Slot& one = slots_[ticket % regions_max];
      if (one.out.load(std::memory_order_relaxed) != 0) sum += one.end - one.begin;
    }
    return sum;
  }
  /// Regions not yet found to be released.
  [[nodiscard]] std::uint64_t n_out() const noexcept { return newest_ - oldest_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

 private:
  struct Slot {
    std::size_t begin{}, end{};  // owner's
    Atom<std::uint32_t> out{0};
  };

  [[nodiscard]] Slot& slot(std::uint64_t ticket) noexcept { return slots_[ticket % regions_max]; }

  void collect() noexcept {
    // [S1] acquire: what is written into the region next comes after its reads; pairs with the release [S1].
    while (oldest_ != newest_ && slot(oldest_).out.load(std::memory_order_acquire) == 0) ++oldest_;
  }

  std::size_t bytes_;
  std::uint64_t oldest_{}, newest_{};  // tickets
  std::array<Slot, regions_max> slots_{};
};

}  // namespace infcore::device
