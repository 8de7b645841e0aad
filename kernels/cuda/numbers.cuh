#pragma once

/// Numbers of 16 bits and conversions between all element types, as NumPy's astype: to the nearest, ties to even;
/// float to integer truncates, and what is out of range is unspecified; integer to integer wraps. A NaN stays one.
/// Integers of 64 bits go to the 16-bit floats through float, as NumPy and ml_dtypes do. No system header is needed.
namespace infcore::kernels {

struct Half {
  unsigned short bits;
};
struct BFloat16 {
  unsigned short bits;
};

__device__ __forceinline__ unsigned int bits_of(float value) {
  unsigned int bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

__device__ __forceinline__ float float_of(unsigned int bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(long long value) { return static_cast<float>(value); }
__device__ __forceinline__ float to_float(int value) { return static_cast<float>(value); }
__device__ __forceinline__ float to_float(signed char value) { return static_cast<float>(value); }
__device__ __forceinline__ float to_float(unsigned char value) { return static_cast<float>(value); }

__device__ __forceinline__ float to_float(BFloat16 value) { return float_of(unsigned{value.bits} << 16); }

__device__ __forceinline__ float to_float(Half value) {
#ifdef __CUDA_ARCH__
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
#else
  const unsigned int sign = (value.bits & 0x8000u) << 16;
  const unsigned int exponent = (value.bits >> 10) & 0x1Fu;
  const unsigned int fraction = value.bits & 0x3FFu;
  if (exponent == 0) return float_of(sign | bits_of(static_cast<float>(fraction) * 0x1p-24f));
  const unsigned int rebiased = exponent == 31 ? 255 : exponent + 112;
  return float_of(sign | rebiased << 23 | fraction << 13);
#endif
}

template <typename To>
struct FromFloat {
  /// Out of range a GPU's conversion saturates at 32 bits; the host does the same, where C++ leaves it undefined.
  __device__ static __forceinline__ To of(float value) {
#ifdef __CUDA_ARCH__
    return static_cast<To>(__float2int_rz(value));
#else
    if (!(value < 0x1p31f)) return static_cast<To>(value >= 0x1p31f ? 0x7FFFFFFF : 0);
    return static_cast<To>(value < -0x1p31f ? -0x7FFFFFFF - 1 : static_cast<int>(value));
#endif
  }
};

template <>
struct FromFloat<long long> {
  __device__ static __forceinline__ long long of(float value) {
#ifdef __CUDA_ARCH__
    return __float2ll_rz(value);
#else
    constexpr long long largest = 0x7FFFFFFFFFFFFFFF;
    if (!(value < 0x1p63f)) return value >= 0x1p63f ? largest : 0;
    return value < -0x1p63f ? -largest - 1 : static_cast<long long>(value);
#endif
  }
};

template <>
struct FromFloat<float> {
  __device__ static __forceinline__ float of(float value) { return value; }
};

template <>
struct FromFloat<BFloat16> {
  __device__ static __forceinline__ BFloat16 of(float value) {
    const unsigned int bits = bits_of(value);
    const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
    const unsigned int rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
    return BFloat16{static_cast<unsigned short>((is_nan ? bits | 0x400000u : rounded) >> 16)};
  }
};

template <>
struct FromFloat<Half> {
  __device__ static __forceinline__ Half of(float value) {
#ifdef __CUDA_ARCH__
    Half narrow;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(value));
    return narrow;
#else
    const unsigned int sign = bits_of(value) >> 16 & 0x8000u;
    const unsigned int bits = bits_of(value) & 0x7FFFFFFFu;
    unsigned int magnitude;
    if (bits > 0x7F800000u) {
      magnitude = 0x7E00u;
    } else if (bits >= 0x477FF000u) {  // 65520, half way between the largest Half and the next power of two
      magnitude = 0x7C00u;
    } else if (bits < 0x38800000u) {  // below 2**-14: the sum's last place is 2**-24, a subnormal Half's
      magnitude = bits_of(float_of(bits) + 0.5f) - 0x3F000000u;
    } else {
      magnitude = (bits - (112u << 23) + 0xFFFu + ((bits >> 13) & 1u)) >> 13;
    }
    return Half{static_cast<unsigned short>(sign | magnitude)};
#endif
  }
};

template <typename T>
struct IsInteger {
  static constexpr bool value = true;
};
template <>
struct IsInteger<float> {
  static constexpr bool value = false;
};
template <>
struct IsInteger<Half> {
  static constexpr bool value = false;
};
template <>
struct IsInteger<BFloat16> {
  static constexpr bool value = false;
};

template <typename From, typename To>
struct Converted {
  __device__ static __forceinline__ To of(From value) {
    if constexpr (IsInteger<From>::value && IsInteger<To>::value) {
      return static_cast<To>(value);
    } else {
      return FromFloat<To>::of(to_float(value));
    }
  }
};

/// A move: no bit changes, whatever the number.
template <typename T>
struct Converted<T, T> {
  __device__ static __forceinline__ T of(T value) { return value; }
};

template <typename To, typename From>
__device__ __forceinline__ To converted(From value) {
  return Converted<From, To>::of(value);
}

}  // namespace infcore::kernels
