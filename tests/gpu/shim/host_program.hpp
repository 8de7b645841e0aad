#pragma once
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

/// A block of its own for each, of exactly its size, so that the address sanitizer sees the first byte past the end.
inline void read_buffers(File& file, std::vector<unsigned char*>& blocks) {
  buffers.resize(file.number<std::uint32_t>());
  for (Buffer& buffer : buffers) {
    buffer.n_bytes = file.number<std::uint64_t>();
    const auto misaligned_by = file.number<std::uint32_t>();
    blocks.push_back(static_cast<unsigned char*>(std::malloc(buffer.n_bytes + misaligned_by)));
    File::need(reinterpret_cast<std::uintptr_t>(blocks.back()) % 16 == 0, "malloc is not aligned to 16 bytes");
    buffer.data = blocks.back() + misaligned_by;
    buffer.n_writes.resize(buffer.n_bytes);
    file.read(buffer.data, buffer.n_bytes);
  }
}

/// Values first, 16 bytes apart; addresses are made from a buffer's number and an offset.
inline std::vector<std::array<std::uint64_t, 2>> read_arguments(File& file, const Kernel& kernel) {
  std::vector<std::array<std::uint64_t, 2>> values(file.number<std::uint32_t>());
  File::need(values.size() == kernel.argument_bytes.size(), "the kernel takes another number of arguments");
  for (std::size_t k = 0; k < values.size(); ++k) {
    const auto buffer = file.number<std::int32_t>();
    const auto n_bytes = file.number<std::uint32_t>();
    values[k][0] = file.number<std::uint64_t>();
    File::need(n_bytes == kernel.argument_bytes[k], "an argument has another size than the kernel's");
    if (buffer >= 0)
      values[k][0] += reinterpret_cast<std::uintptr_t>(buffers.at(static_cast<std::size_t>(buffer)).data);
  }
  return values;
}

inline void run_grid(const Kernel& kernel, const std::vector<const void*>& arguments) {
  for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
        for (threadIdx.z = 0; threadIdx.z < blockDim.z; ++threadIdx.z)
          for (threadIdx.y = 0; threadIdx.y < blockDim.y; ++threadIdx.y)
            for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) kernel.call(arguments);
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
  std::vector<unsigned char*> blocks;
  read_buffers(file, blocks);
  const auto values = read_arguments(file, *kernel);
  std::vector<const void*> arguments;
  for (const auto& value : values) arguments.push_back(value.data());
  run_grid(*kernel, arguments);
  write_buffers(argv[2]);
  for (unsigned char* block : blocks) std::free(block);
  return 0;
}

}  // namespace shim
