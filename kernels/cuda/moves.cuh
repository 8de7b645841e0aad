#pragma once

/// Reads and writes of global memory, 16 bytes at once where asked. Every byte that a kernel moves goes through these
/// functions, so that the host build (tests/gpu/shim) can count bytes and check alignment.
/// Compiled by NVRTC without any system header, and by a C++ compiler behind the shim, which defines
/// INFCORE_HOST_SHIM.
namespace infcore::kernels {

/// Bytes of a thread's widest load or store.
constexpr int wide_bytes = 16;

template <typename T>
__device__ __forceinline__ T read(const T* from) {
#ifdef INFCORE_HOST_SHIM
  return shim::read(from);
#else
  return *from;
#endif
}

/// A value that every thread of the block reads, such as an entry of a table: it comes from memory once, and the host
/// build counts it so. (What the threads of one warp read alike in one read() it counts once a warp.)
template <typename T>
__device__ __forceinline__ T read_by_all(const T* from) {
#ifdef INFCORE_HOST_SHIM
  return shim::read(from, threadIdx.x + threadIdx.y + threadIdx.z == 0);
#else
  return *from;
#endif
}

template <typename T>
__device__ __forceinline__ void write(T* to, T value) {
#ifdef INFCORE_HOST_SHIM
  shim::write(to, value);
#else
  *to = value;
#endif
}

#ifndef INFCORE_HOST_SHIM
// 128 bits by name. Left to itself NVRTC 13.5 stores four copies of a word one by one, and of a 64-bit integer that is
// cast to 32 bits it loads one half.
__device__ __forceinline__ uint4 read(const uint4* from) {
  uint4 value;
  asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(__cvta_generic_to_global(from)));
  return value;
}

__device__ __forceinline__ void write(uint4* to, uint4 value) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(value.x),
               "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}
#endif

/// n items from an address that is a multiple of 16 bytes, in loads of 128 bits.
template <typename T, int n>
__device__ __forceinline__ void read_wide(const T* from, T (&items)[n]) {
  constexpr int n_words = n * int(sizeof(T)) / wide_bytes;
  static_assert(n_words * wide_bytes == n * int(sizeof(T)), "items fill whole words");
  const uint4* words = reinterpret_cast<const uint4*>(from);
#pragma unroll
  for (int k = 0; k < n_words; ++k) {
    const uint4 word = read(words + k);
    memcpy(items + k * (n / n_words), &word, wide_bytes);
  }
}

/// n items to an address that is a multiple of 16 bytes, in stores of 128 bits.
template <typename T, int n>
__device__ __forceinline__ void write_wide(T* to, const T (&items)[n]) {
  constexpr int n_words = n * int(sizeof(T)) / wide_bytes;
  static_assert(n_words * wide_bytes == n * int(sizeof(T)), "items fill whole words");
  uint4* words = reinterpret_cast<uint4*>(to);
#pragma unroll
  for (int k = 0; k < n_words; ++k) {
    uint4 word;
    memcpy(&word, items + k * (n / n_words), wide_bytes);
    write(words + k, word);
  }
}

}  // namespace infcore::kernels
