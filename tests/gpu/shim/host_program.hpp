#pragma once
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "cuda_on_host.hpp"

// main() of a host build: reads one launch from a file, runs it and writes every buffer back, with what was counted.
// The file's layout is written and read by host_build.py. Little-endian, as every machine with a GPU is.

namespace shim {

/// A kernel by the name that a launch gives it, and how it is called with arguments as a driver takes them.
struct Kernel {
  const char* name;
  void (*call)(const std::vector<const void*>& arguments);
  std::vector<std::size_t> argument_bytes;
};

template <auto kernel>
struct Called;

template <typename... A, void (*kernel)(A...)>
struct Called<kernel> {
  template <std::size_t... I>
  static void with(const std::vector<const void*>& arguments, std::index_sequence<I...>) {
    kernel(*static_cast<const A*>(arguments[I])...);
  }
  static Kernel named(const char* name) {
    return {name,
            [](const std::vector<const void*>& arguments) { with(arguments, std::index_sequence_for<A...>{}); },
            {sizeof(A)...}};
  }
};

class File {
 public:
  File(const char* path, const char* mode) : file_(std::fopen(path, mode)) { need(file_ != nullptr, path); }
  ~File() { std::fclose(file_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  void read(void* to, std::size_t n_bytes) { need(std::fread(to, 1, n_bytes, file_) == n_bytes, "the file is short"); }
  void write(const void* from, std::size_t n_bytes) {
    need(std::fwrite(from, 1, n_bytes, file_) == n_bytes, "the file cannot be written");
  }
  template <typename T>
  T number() {
    T value;
    read(&value, sizeof value);
    return value;
  }
  static void need(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "host program: %s\n", what);
    std::exit(2);
  }

 private:
  std::FILE* file_;
};

inline Index3 read_index(File& file) {
  const auto x = file.number<std::uint32_t>(), y = file.number<std::uint32_t>(), z = file.number<std::uint32_t>();
  return {x, y, z};
}

/// Each at its own address, far from the others; what surrounds it is poisoned, so that the address sanitizer sees the
/// first byte past the end (and the first before, where it lies in another group of eight).
inline void read_buffers(File& file) {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  buffers.resize(file.number<std::uint32_t>());
  for (Buffer& buffer : buffers) {
    const auto address = file.number<std::uint64_t>();
    buffer.n_bytes = file.number<std::uint64_t>();
    const std::uintptr_t begin = address / page * page;
    const std::uintptr_t end = (address + buffer.n_bytes) / page * page + page;
    void* mapped = mmap(reinterpret_cast<void*>(begin), end - begin, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    File::need(mapped == reinterpret_cast<void*>(begin), "the address of a buffer is taken");
    buffer.data = static_cast<unsigned char*>(mapped) + (address - begin);
    buffer.n_writes.resize(buffer.n_bytes);
    file.read(buffer.data, buffer.n_bytes);
    __asan_poison_memory_region(mapped, address - begin);
    __asan_poison_memory_region(buffer.data + buffer.n_bytes, end - address - buffer.n_bytes);
  }
}

/// Each in 8 bytes: a value, or an address, which is the same here as for who wrote the file.
inline std::vector<std::uint64_t> read_arguments(File& file, const Kernel& kernel) {
  std::vector<std::uint64_t> values(file.number<std::uint32_t>());
  File::need(values.size() == kernel.argument_bytes.size(), "the kernel takes another number of arguments");
  for (std::size_t k = 0; k < values.size(); ++k) {
    const auto n_bytes = file.number<std::uint32_t>();
    File::need(n_bytes == kernel.argument_bytes[k], "an argument has another size than the kernel's");
    values[k] = file.number<std::uint64_t>();
  }
  return values;
}

/// A warp is 32 threads in a row, x first.
inline void run_thread(const Kernel& kernel, const std::vector<const void*>& arguments) {
  const unsigned int number = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  if (number % warp_threads == 0) end_warp();
  way = 0;
  kernel.call(arguments);
}

inline void run_grid(const Kernel& kernel, const std::vector<const void*>& arguments) {
  for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
        for (threadIdx.z = 0; threadIdx.z < blockDim.z; ++threadIdx.z)
          for (threadIdx.y = 0; threadIdx.y < blockDim.y; ++threadIdx.y)
            for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) run_thread(kernel, arguments);
  end_warp();
}

inline void write_buffers(const char* path) {
  File file(path, "wb");
  for (const Buffer& buffer : buffers) {
    file.write(buffer.data, buffer.n_bytes);
    const auto overwritten = static_cast<std::uint64_t>(
        std::count_if(buffer.n_writes.begin(), buffer.n_writes.end(), [](unsigned char n) { return n > 1; }));
    const std::array<std::uint64_t, 5> counted{buffer.read_bytes, buffer.written_bytes, buffer.wide_reads,
                                               buffer.wide_writes, overwritten};
    file.write(counted.data(), sizeof counted);
  }
}

inline int run(int argc, char** argv, const std::vector<Kernel>& kernels) {
  File::need(argc == 3, "usage: program LAUNCH RESULT");
  File file(argv[1], "rb");
  std::string name(file.number<std::uint32_t>(), ' ');
  file.read(name.data(), name.size());
  const auto kernel = std::find_if(kernels.begin(), kernels.end(), [&](const Kernel& k) { return k.name == name; });
  File::need(kernel != kernels.end(), name.c_str());
  gridDim = read_index(file);
  blockDim = read_index(file);
  read_buffers(file);
  const auto values = read_arguments(file, *kernel);
  std::vector<const void*> arguments;
  for (const std::uint64_t& value : values) arguments.push_back(&value);
  run_grid(*kernel, arguments);
  write_buffers(argv[2]);
  return 0;
}

}  // namespace shim
