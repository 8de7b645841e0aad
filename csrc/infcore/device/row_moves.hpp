#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

/// Copies and fills of host memory, which packing makes by the thousand and small, or few and large.
namespace infcore::device {

struct Move16 {
  std::uint64_t words[2];
};

/// As many bytes as Width has, any address: one load, one store.
template <class Width>
[[gnu::always_inline]] inline void move_fixed(std::byte* dst, const std::byte* src) noexcept {
  Width bytes;
  std::memcpy(&bytes, src, sizeof bytes);
  std::memcpy(dst, &bytes, sizeof bytes);
}

/// The first and the last Width bytes of n, which may overlap: all of them if n is at most twice that.
template <class Width>
[[gnu::always_inline]] inline void move_ends(std::byte* dst, const std::byte* src, std::size_t n) noexcept {
  move_fixed<Width>(dst, src);
  move_fixed<Width>(dst + n - sizeof(Width), src + n - sizeof(Width));
}

/// n bytes, src and dst at any address and apart. Up to 64 by a few moves of fixed width instead of a call. The
/// pointers may be null for n = 0.
[[gnu::always_inline]] inline void copy_bytes(std::byte* dst, const std::byte* src, std::size_t n) noexcept {
  if (n >= 16) {
    if (n > 64) {
      std::memcpy(dst, src, n);
      return;
    }
    move_ends<Move16>(dst, src, n);
    if (n > 32) move_ends<Move16>(dst + 16, src + 16, n - 32);
  } else if (n >= 8) {
    move_ends<std::uint64_t>(dst, src, n);
  } else if (n >= 4) {
    move_ends<std::uint32_t>(dst, src, n);
  } else if (n >= 2) {
    move_ends<std::uint16_t>(dst, src, n);
  } else if (n == 1) {
    *dst = *src;
  }
}

/// Whether the padding of a batch of n bytes at dst is to go past the caches: they would not keep it until it is read,
/// and its pages are no new ones, whose zeros the kernel has just left in the caches. Figures: DECISIONS.md, Packing.
[[nodiscard]] bool is_to_stream(const std::byte* dst, std::size_t n) noexcept;

/// The same item over and over.
class Fill {
 public:
  /// item_bytes is 1 to 32; the item is borrowed. `stream`: large fills go past the caches.
  Fill(const std::byte* item, std::size_t item_bytes, bool stream) noexcept;

  /// Others who are told of the bytes see them.
  ~Fill();
  Fill(const Fill&) = delete;
  Fill& operator=(const Fill&) = delete;

  /// n bytes, a multiple of the item's, from where an item begins. dst may be null for n = 0.
  void operator()(std::byte* dst, std::size_t n) const noexcept {
    if (n != 0) fill(dst, n);
  }

 private:
  void fill(std::byte* dst, std::size_t n) const noexcept;

  const std::byte* item_;
  std::size_t item_bytes_;
  bool one_byte_;     ///< repeated, as zero is
  bool stream_;       ///< and the item fits evenly into pattern_
  Move16 pattern_{};  ///< of items
};

}  // namespace infcore::device
