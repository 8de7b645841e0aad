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

/// The same item over and over.
class Fill {
 public:
  /// item_bytes is at least 1; the item is borrowed
  Fill(const std::byte* item, std::size_t item_bytes) noexcept : item_(item), item_bytes_(item_bytes) {
    for (std::size_t at = 1; at < item_bytes; ++at) one_byte_ = one_byte_ && item[at] == *item;
  }

  /// n bytes, a multiple of the item's. dst may be null for n = 0.
  void operator()(std::byte* dst, std::size_t n) const noexcept {
    if (n == 0) return;
    if (one_byte_) {
      std::memset(dst, static_cast<int>(*item_), n);
      return;
    }
    std::memcpy(dst, item_, item_bytes_);
    for (std::size_t done = item_bytes_; done < n; done *= 2)
      std::memcpy(dst + done, dst, done < n - done ? done : n - done);
  }

 private:
  const std::byte* item_;
  std::size_t item_bytes_;
  bool one_byte_{true};  ///< repeated, as zero is
};

}  // namespace infcore::device
