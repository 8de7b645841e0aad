#pragma once
#include <cstddef>
#include <string>

namespace infcore::base {

/// Zeroed memory of a fixed size, which costs nothing where it is never touched: of this process, or under a name
/// shared with other processes of this host.
///
/// A named block lives as long as some process has it open, and the last one out takes its name away. One that was left
/// by processes that died is found by nobody having it open, and begins again as zeros. A child made by fork() keeps
/// the block open for as long as it lives.
class MappedBlock {
 public:
  explicit MappedBlock(std::size_t bytes);
  /// The block of that name, made with `bytes` where nobody has it open. Nobody else gets it open before settle().
  /// Throws InvalidArgument: no name that may be used, or the system refuses.
  MappedBlock(const std::string& name, std::size_t bytes);
  MappedBlock(const MappedBlock&) = delete;
  MappedBlock& operator=(const MappedBlock&) = delete;
  ~MappedBlock();

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  /// Whether it is all zeros, and its contents are ours to write.
  [[nodiscard]] bool is_new() const noexcept { return is_new_; }
  [[nodiscard]] bool is_shared() const noexcept { return fd_ >= 0; }
  void settle() noexcept;
  /// Takes the name away: who has the block open keeps it, who comes later gets another. False where it was gone.
  bool unlink() noexcept;

 private:
  void open_named();
  [[nodiscard]] bool is_ours() const noexcept;
  void map();

  std::string path_;
  std::size_t bytes_;
  std::byte* data_{};
  int fd_{-1};
  bool is_new_{true};
  unsigned built_under_;
};

}  // namespace infcore::base
