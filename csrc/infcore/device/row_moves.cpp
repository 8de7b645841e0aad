#include <infcore/device/row_moves.hpp>

#include <algorithm>

#if defined(__SSE2__)
#include <emmintrin.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace infcore::device {

#if defined(__SSE2__)

namespace {

/// Bytes of a batch, and of padding in one piece, from which stores past the caches pay: measured, DECISIONS.md.
constexpr std::size_t batch_bytes_min = std::size_t{16} << 20;
constexpr std::size_t piece_bytes_min = std::size_t{4} << 10;
constexpr std::size_t line_bytes = 64;

std::size_t past_boundary(const std::byte* at, std::size_t bytes) noexcept {
  return reinterpret_cast<std::uintptr_t>(at) % bytes;
}

}  // namespace

bool is_to_stream(const std::byte* dst, std::size_t n) noexcept {
  if (n < batch_bytes_min) return false;
  // One page in the middle stands for all. Only speed hangs on it: a page that was swapped out looks new.
  static const auto page_bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  std::byte* const middle = const_cast<std::byte*>(dst) + n / 2;
  unsigned char resident = 0;
  return mincore(middle - past_boundary(middle, page_bytes), 1, &resident) == 0 && (resident & 1u) != 0;
}

#else  // GCC has such stores for x86 alone

bool is_to_stream(const std::byte*, std::size_t) noexcept { return false; }

#endif

Fill::Fill(const std::byte* item, std::size_t item_bytes, bool stream) noexcept
    : item_(item),
      item_bytes_(item_bytes),
      one_byte_(std::all_of(item, item + item_bytes, [=](std::byte byte) { return byte == *item; })),
      stream_(stream && sizeof pattern_ % item_bytes == 0) {
  if (!stream_) return;
  std::byte items[sizeof pattern_];
  for (std::size_t at = 0; at < sizeof items; ++at) items[at] = item[at % item_bytes];
  std::memcpy(&pattern_, items, sizeof items);
}

Fill::~Fill() {
#if defined(__SSE2__)
  if (stream_) _mm_sfence();  // nothing else orders such stores
#endif
}

void Fill::fill(std::byte* dst, std::size_t n) const noexcept {
#if defined(__SSE2__)
  if (stream_ && n >= piece_bytes_min && past_boundary(dst, item_bytes_) == 0) {
    const __m128i items = _mm_loadu_si128(reinterpret_cast<const __m128i*>(&pattern_));
    for (; past_boundary(dst, line_bytes) != 0; dst += item_bytes_, n -= item_bytes_)
      std::memcpy(dst, item_, item_bytes_);
    for (; n >= line_bytes; dst += line_bytes, n -= line_bytes)
      for (std::size_t at = 0; at < line_bytes; at += sizeof items)
        _mm_stream_si128(reinterpret_cast<__m128i*>(dst + at), items);
    for (; n != 0; dst += item_bytes_, n -= item_bytes_) std::memcpy(dst, item_, item_bytes_);
    return;
  }
#endif
  if (one_byte_) {
    std::memset(dst, static_cast<int>(*item_), n);
    return;
  }
  std::memcpy(dst, item_, item_bytes_);
  for (std::size_t done = item_bytes_; done < n; done *= 2) std::memcpy(dst + done, dst, std::min(done, n - done));
}

}  // namespace infcore::device
