#include <infcore/base/column.hpp>

#include <sys/mman.h>

#include <cstring>
#include <new>

namespace infcore::base {
namespace {

/// From here on a mapping of its own: the rest of its last page is then at most a sixteenth of it.
constexpr std::size_t mapped_from = std::size_t{64} << 10;
constexpr std::align_val_t alignment{64};

bool is_mapped(std::size_t bytes) noexcept { return bytes >= mapped_from; }

}  // namespace

std::byte* ZeroedBytes::mapped(std::size_t bytes) const {
  void* at = MAP_FAILED;
#ifdef MREMAP_MAYMOVE
  if (is_mapped(bytes_))
    at = mremap(data_, bytes_, bytes, MREMAP_MAYMOVE);
  else
#endif
    at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  return static_cast<std::byte*>(at);
}

void ZeroedBytes::grow(std::size_t bytes) {
  if (bytes <= bytes_) return;
  std::byte* fresh = nullptr;
  if (is_mapped(bytes)) {
    fresh = mapped(bytes);
#ifdef MREMAP_MAYMOVE
    if (is_mapped(bytes_)) {  // its pages are there already
      data_ = fresh;
      bytes_ = bytes;
      return;
    }
#endif
  } else {
    fresh = static_cast<std::byte*>(::operator new(bytes, alignment));
    std::memset(fresh + bytes_, 0, bytes - bytes_);
  }
  if (bytes_ > 0) std::memcpy(fresh, data_, bytes_);
  release();
  data_ = fresh;
  bytes_ = bytes;
}

void ZeroedBytes::release() noexcept {
  if (is_mapped(bytes_)) {
    munmap(data_, bytes_);
  } else {
    ::operator delete(data_, alignment);
  }
}

ZeroedBytes::~ZeroedBytes() { release(); }

}  // namespace infcore::base
