#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

// What a .cuh of kernels/ needs to compile as plain C++ and to run thread by thread. Threads of a block run one after
// another, so a kernel that waits for its block has no place here: __syncthreads is not defined and does not compile.
#define INFCORE_HOST_SHIM 1
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct alignas(16) uint4 {
  unsigned int x, y, z, w;
};

namespace shim {

struct Index3 {
  unsigned int x, y, z;
};

/// Memory of the pretended device. Every access of a kernel is inside one buffer, aligned, and counted.
struct Buffer {
  unsigned char* data{};
  std::uint64_t n_bytes{};
  std::uint64_t read_bytes{};
  std::uint64_t written_bytes{};
  std::uint64_t wide_reads{};           ///< of 16 bytes
  std::uint64_t wide_writes{};          ///< of 16 bytes
  std::vector<unsigned char> n_writes;  ///< of each byte; stays at 255
};

inline std::vector<Buffer> buffers;
inline std::size_t last_used = 0;

[[noreturn]] inline void fail(const char* what, std::uintptr_t address, std::size_t n_bytes);

inline Buffer& buffer_of(const void* address, std::size_t n_bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  if (at % n_bytes != 0) fail("is not aligned", at, n_bytes);
  for (std::size_t tried = 0; tried < buffers.size(); ++tried) {
    Buffer& buffer = buffers[last_used];
    const auto begin = reinterpret_cast<std::uintptr_t>(buffer.data);
    if (begin <= at && at + n_bytes <= begin + buffer.n_bytes) return buffer;
    last_used = (last_used + 1) % buffers.size();
  }
  fail("is outside every buffer", at, n_bytes);
}

template <typename T>
T read(const T* from, bool counted = true) {
  Buffer& buffer = buffer_of(from, sizeof(T));
  if (counted) buffer.read_bytes += sizeof(T);
  if constexpr (sizeof(T) == 16) buffer.wide_reads += counted;
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <typename T>
void write(T* to, const T& value) {
  Buffer& buffer = buffer_of(to, sizeof(T));
  buffer.written_bytes += sizeof(T);
  if constexpr (sizeof(T) == 16) ++buffer.wide_writes;
  const std::size_t offset = static_cast<std::size_t>(reinterpret_cast<unsigned char*>(to) - buffer.data);
  for (std::size_t k = 0; k < sizeof(T); ++k) {
    unsigned char& count = buffer.n_writes[offset + k];
    if (count < 255) ++count;
  }
  std::memcpy(to, &value, sizeof(T));
}

}  // namespace shim

inline shim::Index3 threadIdx{}, blockIdx{}, blockDim{}, gridDim{};

inline void shim::fail(const char* what, std::uintptr_t address, std::size_t n_bytes) {
  std::fprintf(stderr, "an access of %zu bytes %s: block (%u, %u, %u), thread (%u, %u, %u)", n_bytes, what, blockIdx.x,
               blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  for (std::size_t k = 0; k < buffers.size(); ++k) {
    const auto begin = reinterpret_cast<std::uintptr_t>(buffers[k].data);
    std::fprintf(stderr, "; buffer %zu of %llu bytes: byte %lld", k,
                 static_cast<unsigned long long>(buffers[k].n_bytes), static_cast<long long>(address - begin));
  }
  std::fprintf(stderr, "\n");
  std::exit(3);
}
