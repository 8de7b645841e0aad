#pragma once
#include <cstddef>
#include <type_traits>
#include <utility>

namespace infcore::base {

/// Memory of zeroed bytes that grows: what is large is mapped from the system, which moves pages where others would
/// copy, so that nothing is held twice and no holes are left behind; what was never touched takes none.
class ZeroedBytes {
 public:
  ZeroedBytes() = default;
  ZeroedBytes(const ZeroedBytes&) = delete;
  ZeroedBytes& operator=(const ZeroedBytes&) = delete;
  ~ZeroedBytes();

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  /// To `bytes`, not less than before: what is in stays, what is new is zero. Throws std::bad_alloc, and then nothing
  /// has changed.
  void grow(std::size_t bytes);
  void swap(ZeroedBytes& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

 private:
  [[nodiscard]] std::byte* mapped(std::size_t bytes) const;
  void release() noexcept;

  std::byte* data_{};
  std::size_t bytes_{};
};

/// A value for each id, all bits zero at first, in ZeroedBytes: for tables that grow with their owner. Single-threaded.
template <class T>
class Column {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  /// Ids are below n from now on, not less than before. Throws std::bad_alloc, and then nothing has changed.
  void grow(std::size_t n) {
    bytes_.grow(n * sizeof(T));
    n_ = n;
  }
  [[nodiscard]] std::size_t size() const noexcept { return n_; }
  [[nodiscard]] T& operator[](std::size_t id) noexcept { return data()[id]; }
  [[nodiscard]] const T& operator[](std::size_t id) const noexcept { return data()[id]; }
  [[nodiscard]] T* begin() noexcept { return data(); }
  [[nodiscard]] T* end() noexcept { return data() + n_; }
  void swap(Column& other) noexcept {
    bytes_.swap(other.bytes_);
    std::swap(n_, other.n_);
  }

 private:
  [[nodiscard]] T* data() const noexcept { return reinterpret_cast<T*>(bytes_.data()); }

  ZeroedBytes bytes_;
  std::size_t n_{};
};

}  // namespace infcore::base
