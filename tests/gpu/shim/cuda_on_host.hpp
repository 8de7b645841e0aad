#pragma once
#include <algorithm>
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

#ifdef __clang__
#define INFCORE_NOT_TRACED __attribute__((no_sanitize("coverage")))
#else
#define INFCORE_NOT_TRACED __attribute__((no_sanitize_coverage))
#endif

struct alignas(16) uint4 {
  unsigned int x, y, z, w;
};

namespace shim {

struct Index3 {
  unsigned int x, y, z;
};

constexpr unsigned int warp_threads = 32;

/// One thread's read: where it came from in the code and in memory, as one number.
struct Read {
  std::uint64_t key;
  std::uint64_t n_bytes;
};

/// Memory of the pretended device. Every access of a kernel is inside one buffer, aligned, and counted.
struct Buffer {
  unsigned char* data{};
  std::uint64_t n_bytes{};
  std::uint64_t read_bytes{};  ///< distinct ones of each load instruction of a warp
  std::uint64_t written_bytes{};
  std::uint64_t wide_reads{};           ///< of 16 bytes
  std::uint64_t wide_writes{};          ///< of 16 bytes
  std::vector<unsigned char> n_writes;  ///< of each byte; stays at 255
  std::vector<Read> warp_reads;         ///< of the warp that runs, until it has ended
};

inline std::vector<Buffer> buffers;
inline std::size_t last_used = 0;

/// The way that the running thread took through the code: a hash of every basic block that it entered, which the
/// compiler reports, and of every read. Threads of a warp share a load if they came to it by the very same way.
/// Assumed: the warp runs those together, as GPUs do. Threads that parted once share nothing any more, even where the
/// GPU brings them together again: divergence may be counted too high, never too low.
inline std::uint64_t way = 0;

INFCORE_NOT_TRACED inline std::uint64_t mixed(std::uint64_t hash, std::uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15U;
  return hash ^ (hash >> 29);
}

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
  // What happens in here is no part of the kernel's way; that it was here is.
  const std::uint64_t came = mixed(way, sizeof(T));
  Buffer& buffer = buffer_of(from, sizeof(T));
  // Accesses of one size, all aligned: two are of the same bytes or of none in common.
  if (counted) buffer.warp_reads.push_back({mixed(came, reinterpret_cast<std::uintptr_t>(from)), sizeof(T)});
  if constexpr (sizeof(T) == 16) buffer.wide_reads += counted;
  T value;
  std::memcpy(&value, from, sizeof(T));
  way = came;
  return value;
}

/// Called before each warp and after the last: counts what the warp before has read.
inline void end_warp() {
  for (Buffer& buffer : buffers) {
    auto& reads = buffer.warp_reads;
    std::sort(reads.begin(), reads.end(), [](const Read& a, const Read& b) { return a.key < b.key; });
    for (std::size_t k = 0; k < reads.size(); ++k) {
      if (k == 0 || reads[k].key != reads[k - 1].key) buffer.read_bytes += reads[k].n_bytes;
    }
    reads.clear();
  }
}

template <typename T>
void write(T* to, const T& value) {
  const std::uint64_t came = way;
  Buffer& buffer = buffer_of(to, sizeof(T));
  buffer.written_bytes += sizeof(T);
  if constexpr (sizeof(T) == 16) ++buffer.wide_writes;
  const std::size_t offset = static_cast<std::size_t>(reinterpret_cast<unsigned char*>(to) - buffer.data);
  for (std::size_t k = 0; k < sizeof(T); ++k) {
    unsigned char& count = buffer.n_writes[offset + k];
    if (count < 255) ++count;
  }
  std::memcpy(to, &value, sizeof(T));
  way = came;
}

}  // namespace shim

/// Called at the beginning of every basic block (-fsanitize-coverage=trace-pc).
extern "C" INFCORE_NOT_TRACED void __sanitizer_cov_trace_pc() {
  shim::way = shim::mixed(shim::way, reinterpret_cast<std::uintptr_t>(__builtin_return_address(0)));
}

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
