#include <infcore/base/isa.hpp>
#include <infcore/device/row_casts.hpp>

#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>

namespace infcore::device {
namespace {

constexpr std::uint32_t float_infinity = 0x7f800000;
constexpr std::uint32_t half_infinity = 0x7c00;

// One struct for each type: as it is stored, and from or to a value that arithmetic knows. Selections instead of
// branches, so that the loops vectorise; no libm and no conversion instructions of one CPU, so that all agree.

template <class Number>
struct Plain {
  using Stored = Number;
  [[gnu::always_inline]] static Number value(Stored stored) noexcept { return stored; }
};

struct Half {
  using Stored = std::uint16_t;

  [[gnu::always_inline]] static float value(Stored stored) noexcept {
    const std::uint32_t sign = (stored & 0x8000u) << 16;
    const std::uint32_t magnitude = (stored & 0x7fffu) << 13;  // exponent and fraction where a float has them
    const std::uint32_t exponent = magnitude & 0x0f800000u;
    // A subnormal is its fraction times 2**-24, exactly. Of the others the exponent's bias is another, twice for inf.
    const float fraction = static_cast<float>(static_cast<std::int32_t>(stored & 0x3ffu));
    const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(fraction * 0x1p-24f);
    const std::uint32_t bias = exponent == 0x0f800000u ? 0x70000000u : 0x38000000u;
    return std::bit_cast<float>(sign | (exponent == 0 ? subnormal : magnitude + bias));
  }

  [[gnu::always_inline]] static Stored of(float number) noexcept {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(number);
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    // Half a unit, less one bit unless the last kept bit is odd: ties to even. A carry goes on into the exponent.
    const std::uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    // Below 2**-14 one unit is 2**-24, as it is of a float in [.5, 1): the addition rounds.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u;
    const std::uint32_t payload = (magnitude >> 13) & 0x3ffu;
    const std::uint32_t nan = half_infinity + (payload == 0 ? 1u : payload);
    std::uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
    half = magnitude >= 0x47800000u ? half_infinity : half;  // from 2**16 on
    half = magnitude > float_infinity ? nan : half;
    return static_cast<Stored>((bits >> 16 & 0x8000u) | half);
  }
};

struct Brain {
  using Stored = std::uint16_t;

  [[gnu::always_inline]] static float value(Stored stored) noexcept {
    return std::bit_cast<float>(std::uint32_t{stored} << 16);
  }

  [[gnu::always_inline]] static Stored of(float number) noexcept {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(number);
    const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const std::uint32_t nan = (bits >> 16 & 0x8000u) | 0x7fc0u;
    return static_cast<Stored>((bits & 0x7fffffffu) > float_infinity ? nan : rounded);
  }
};

/// The largest float that is not above the integer type's largest number.
template <class Integer>
constexpr float float_max_of() {
  constexpr int digits = std::numeric_limits<Integer>::digits;
  if constexpr (digits <= 24) return static_cast<float>(std::numeric_limits<Integer>::max());
  return digits == 31 ? 0x1.fffffep30f : 0x1.fffffep62f;
}

template <class Integer>
[[gnu::always_inline]] inline Integer cut(float number) noexcept {
  constexpr float least = static_cast<float>(std::numeric_limits<Integer>::min());
  constexpr float most = float_max_of<Integer>();
  float inside = number == number ? number : 0.0f;
  inside = inside < least ? least : inside;
  inside = inside > most ? most : inside;
  using Wide = std::conditional_t<sizeof(Integer) == 8, std::int64_t, std::int32_t>;
  return static_cast<Integer>(static_cast<Wide>(inside));
}

template <class To, class Value>
[[gnu::always_inline]] inline typename To::Stored stored_as(Value value) noexcept {
  using Stored = typename To::Stored;
  if constexpr (std::is_same_v<To, Half> || std::is_same_v<To, Brain>) {
    return To::of(static_cast<float>(value));  // an integer beyond 2**24 is rounded twice, as NumPy and ml_dtypes do
  } else if constexpr (std::is_floating_point_v<Value> && std::is_integral_v<Stored>) {
    return cut<Stored>(value);
  } else {
    return static_cast<Stored>(value);
  }
}

template <class From, class To>
[[gnu::always_inline]] inline void cast_body(const std::byte* __restrict src, std::byte* __restrict dst,
                                             std::size_t n) noexcept {
#pragma omp simd
  for (std::size_t i = 0; i < n; ++i) {
    typename From::Stored in;
    std::memcpy(&in, src + i * sizeof in, sizeof in);  // any address
    const typename To::Stored out = stored_as<To>(From::value(in));
    std::memcpy(dst + i * sizeof out, &out, sizeof out);
  }
}

// In the order of Item.
using Float32 = Plain<float>;
using Int64 = Plain<std::int64_t>;
using Int32 = Plain<std::int32_t>;
using Int8 = Plain<std::int8_t>;
using Uint8 = Plain<std::uint8_t>;
using Row = std::array<RowCast, n_items>;
using Table = std::array<Row, n_items>;

#define INFCORE_CASTS_FOR(isa, attributes)                                                             \
  template <class From, class To>                                                                      \
  attributes void cast_##isa(const std::byte* src, std::byte* dst, std::size_t n) noexcept {           \
    cast_body<From, To>(src, dst, n);                                                                  \
  }                                                                                                    \
  template <class From>                                                                                \
  constexpr Row row_##isa{cast_##isa<From, Float32>, cast_##isa<From, Half>,  cast_##isa<From, Brain>, \
                          cast_##isa<From, Int64>,   cast_##isa<From, Int32>, cast_##isa<From, Int8>,  \
                          cast_##isa<From, Uint8>};                                                    \
  constexpr Table table_##isa{row_##isa<Float32>, row_##isa<Half>, row_##isa<Brain>, row_##isa<Int64>, \
                              row_##isa<Int32>,   row_##isa<Int8>, row_##isa<Uint8>};

INFCORE_CASTS_FOR(baseline, )
#if defined(__x86_64__)
INFCORE_CASTS_FOR(avx2, [[gnu::target("avx2")]])
#if defined(__clang__)  // which knows the preference as a flag of the whole file only
#define INFCORE_AVX512 "avx512f,avx512dq,avx512bw,avx512vl"
#else
#define INFCORE_AVX512 "avx512f,avx512dq,avx512bw,avx512vl,prefer-vector-width=512"
#endif
INFCORE_CASTS_FOR(avx512, [[gnu::target(INFCORE_AVX512)]])
#undef INFCORE_AVX512
#endif
#undef INFCORE_CASTS_FOR

const Table& table() noexcept {
  switch (base::isa()) {
#if defined(__x86_64__)
    case base::Isa::avx512:
      return table_avx512;
    case base::Isa::avx2:
      return table_avx2;
#endif
    default:
      return table_baseline;
  }
}

}  // namespace

RowCast cast_of(Item from, Item to) noexcept {
  return table()[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)];
}

}  // namespace infcore::device
