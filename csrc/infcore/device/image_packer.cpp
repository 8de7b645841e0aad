#include <infcore/base/isa.hpp>
#include <infcore/device/image_packer.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace infcore::device {
namespace {

/// Pixels normalised before they are narrowed: three channels of floats take 6 KiB of the first-level cache.
constexpr std::size_t narrowed_at_once = 512;

/// What becomes of each channel of the image, in the order of the image's channels.
struct Normal {
  float mean[image_channels_max];
  float scale[image_channels_max];
};

/// n pixels of C interleaved bytes into C planes. GCC separates the channels by byte shuffles once they may be assumed
/// not to overlap, for which each needs a name of its own.
template <std::uint32_t C>
[[gnu::always_inline]] inline void normalise_body(const std::uint8_t* __restrict src, std::size_t n,
                                                  const Normal& normal, float* const* planes) noexcept {
  const Normal of = normal;
  float* __restrict const p0 = planes[0];
  float* __restrict const p1 = C > 1 ? planes[1] : nullptr;
  float* __restrict const p2 = C > 1 ? planes[2] : nullptr;
  float* __restrict const p3 = C > 3 ? planes[3] : nullptr;
  for (std::size_t i = 0; i < n; ++i) {
    p0[i] = (static_cast<float>(src[C * i]) - of.mean[0]) * of.scale[0];
    if constexpr (C > 1) {
      p1[i] = (static_cast<float>(src[C * i + 1]) - of.mean[1]) * of.scale[1];
      p2[i] = (static_cast<float>(src[C * i + 2]) - of.mean[2]) * of.scale[2];
    }
    if constexpr (C > 3) p3[i] = (static_cast<float>(src[C * i + 3]) - of.mean[3]) * of.scale[3];
  }
}

/// Round to nearest even in integers and one float addition, so that any compiler makes vectors of it.
[[gnu::always_inline]] inline std::uint16_t float16_of(float value) noexcept {
  const auto bits = std::bit_cast<std::int32_t>(value);  // signed: the oldest vector units compare nothing else
  const std::int32_t sign = (bits >> 16) & 0x8000;
  const std::int32_t magnitude = bits & 0x7FFFFFFF;
  // From 2**-14 on: half of the 13 dropped bits, less one where the last kept bit is 0; the carry may move the
  // exponent.
  const std::int32_t normal = (magnitude - (112 << 23) + 0xFFF + ((magnitude >> 13) & 1)) >> 13;
  // Below: beside 0.5, one unit in the last place of a float is 2**-24, the smallest binary16, so the addition rounds.
  const std::int32_t subnormal = std::bit_cast<std::int32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3F000000;
  const std::int32_t finite = magnitude < (113 << 23) ? subnormal : normal;
  const std::int32_t infinite = magnitude < 0x477FF000 ? finite : 0x7C00;  // from 65520 on
  return static_cast<std::uint16_t>(sign | (magnitude > (255 << 23) ? 0x7E00 : infinite));
}

/// Round to nearest even: half of what is dropped, less one where the last kept bit is 0; the carry may become
/// infinity.
[[gnu::always_inline]] inline std::uint16_t bfloat16_of(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
  return static_cast<std::uint16_t>((value != value ? bits | 0x400000u : rounded) >> 16);
}

void float16_baseline(const float* __restrict src, std::size_t n, std::uint16_t* __restrict dst) noexcept {
  for (std::size_t i = 0; i < n; ++i) dst[i] = float16_of(src[i]);
}

using Narrow = void (*)(const float*, std::size_t, std::uint16_t*) noexcept;
using Normalise = void (*)(const std::uint8_t*, std::size_t, const Normal&, float* const*) noexcept;

/// One set of loops for each ISA, by channels. None has fma among its targets, so all agree to the bit.
struct Loops {
  Normalise normalise[image_channels_max + 1];
  Narrow to_float16;
  Narrow to_bfloat16;
};

#define INFCORE_LOOPS_FOR(isa, attributes)                                                                             \
  template <std::uint32_t C>                                                                                           \
  attributes void normalise_##isa(const std::uint8_t* src, std::size_t n, const Normal& normal,                        \
                                  float* const* planes) noexcept {                                                     \
    normalise_body<C>(src, n, normal, planes);                                                                         \
  }                                                                                                                    \
  attributes void bfloat16_##isa(const float* __restrict src, std::size_t n, std::uint16_t* __restrict dst) noexcept { \
    for (std::size_t i = 0; i < n; ++i) dst[i] = bfloat16_of(src[i]);                                                  \
  }                                                                                                                    \
  constexpr Loops loops_##isa{                                                                                         \
      {nullptr, normalise_##isa<1>, nullptr, normalise_##isa<3>, normalise_##isa<4>}, float16_##isa, bfloat16_##isa};

INFCORE_LOOPS_FOR(baseline, )
#if defined(__x86_64__)
#if defined(__clang__)  // which knows the preference as a flag of the whole file only
#define INFCORE_AVX512 "avx512f,avx512dq,avx512bw,avx512vl"
#else
#define INFCORE_AVX512 "avx512f,avx512dq,avx512bw,avx512vl,prefer-vector-width=512"
#endif
[[gnu::target("avx2,f16c")]] void float16_avx2(const float* src, std::size_t n, std::uint16_t* dst) noexcept {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
  for (; i < n; ++i) dst[i] = float16_of(src[i]);
}

[[gnu::target(INFCORE_AVX512)]] void float16_avx512(const float* src, std::size_t n, std::uint16_t* dst) noexcept {
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + i),
                        // All lanes, by mask: GCC 12 warns of its own header's unmasked form.
                        _mm512_maskz_cvtps_ph(0xFFFF, _mm512_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
  for (; i < n; ++i) dst[i] = float16_of(src[i]);
}

INFCORE_LOOPS_FOR(avx2, [[gnu::target("avx2")]])
INFCORE_LOOPS_FOR(avx512, [[gnu::target(INFCORE_AVX512)]])
#undef INFCORE_AVX512

bool has_f16c() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif
#undef INFCORE_LOOPS_FOR

const Loops& loops() noexcept {
  static const Loops& best = []() -> const Loops& {
    switch (base::isa()) {
#if defined(__x86_64__)
      case base::Isa::avx512:
        return loops_avx512;
      case base::Isa::avx2:
        return has_f16c() ? loops_avx2 : loops_baseline;
#endif
      default:
        return loops_baseline;
    }
  }();
  return best;
}

/// n pixels into the planes that begin at `planes`, as floats.
struct ToFloat32 {
  const Loops& loop;
  std::uint32_t channels;
  void operator()(const std::uint8_t* src, std::size_t n, const Normal& normal, float* const* planes) const noexcept {
    loop.normalise[channels](src, n, normal, planes);
  }
};

/// The same in 16 bits, by way of a piece of floats that stays in the cache.
struct ToNarrow {
  const Loops& loop;
  std::uint32_t channels;
  Narrow narrow;
  void operator()(const std::uint8_t* src, std::size_t n, const Normal& normal,
                  std::uint16_t* const* planes) const noexcept {
    alignas(64) float piece[image_channels_max][narrowed_at_once];
    float* const pieces[image_channels_max] = {piece[0], piece[1], piece[2], piece[3]};
    for (std::size_t from = 0; from < n; from += narrowed_at_once) {
      const std::size_t here = std::min(narrowed_at_once, n - from);
      loop.normalise[channels](src + from * channels, here, normal, pieces);
      for (std::uint32_t c = 0; c < channels; ++c) narrow(pieces[c], here, planes[c] + from);
    }
  }
};

template <class Out, class Convert>
void pack_body(std::span<const ImageSource> images, const ImageLayout& layout, const Convert& convert, Out pad,
               Out* dst) noexcept {
  const auto height = static_cast<std::size_t>(layout.height), width = static_cast<std::size_t>(layout.width);
  const std::size_t plane = height * width;
  Normal normal{};
  for (std::uint32_t c = 0; c < layout.channels; ++c) {
    normal.mean[layout.from[c]] = layout.mean[c];
    normal.scale[layout.from[c]] = layout.scale[c];
  }
  for (const ImageSource& image : images) {
    Out* planes[image_channels_max] = {dst, dst, dst, dst};
    for (std::uint32_t c = 0; c < layout.channels; ++c) planes[layout.from[c]] = dst + c * plane;
    dst += layout.channels * plane;
    const auto image_width = static_cast<std::size_t>(image.width);
    const auto used = image_width == 0 ? 0 : static_cast<std::size_t>(image.height);
    if (image_width == width) {  // rows lie end to end in the batch as in the image: one run
      convert(image.data, used * width, normal, planes);
      for (std::uint32_t c = 0; c < layout.channels; ++c)
        std::fill_n(planes[c] + used * width, plane - used * width, pad);
      continue;
    }
    for (std::size_t y = 0; y < used; ++y) {
      convert(image.data + y * image_width * layout.channels, image_width, normal, planes);
      for (std::uint32_t c = 0; c < layout.channels; ++c) {
        std::fill_n(planes[c] + image_width, width - image_width, pad);
        planes[c] += width;
      }
    }
    for (std::uint32_t c = 0; c < layout.channels; ++c) std::fill_n(planes[c], (height - used) * width, pad);
  }
}

}  // namespace

void pack_images(std::span<const ImageSource> images, const ImageLayout& layout, float* dst) noexcept {
  pack_body(images, layout, ToFloat32{loops(), layout.channels}, layout.pad_value, dst);
}

void pack_images_float16(std::span<const ImageSource> images, const ImageLayout& layout, std::uint16_t* dst) noexcept {
  const ToNarrow convert{loops(), layout.channels, loops().to_float16};
  pack_body(images, layout, convert, float16_of(layout.pad_value), dst);
}

void pack_images_bfloat16(std::span<const ImageSource> images, const ImageLayout& layout, std::uint16_t* dst) noexcept {
  const ToNarrow convert{loops(), layout.channels, loops().to_bfloat16};
  pack_body(images, layout, convert, bfloat16_of(layout.pad_value), dst);
}

}  // namespace infcore::device
