#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

namespace infcore::engine {

/// A file written block by block, in bounded memory: one producer hands over full blocks, one writer thread writes
/// them. While the writer has every block but the producer's, because the disk is slower than what is logged, put()
/// blocks: nothing is lost, and the engine goes no faster than its log. Until a writer has called write_next(), put()
/// writes by itself.
/// After a failed write (disk full) error() says why, and everything further is dropped: serving goes before logging.
class LogFile {
 public:
  enum class Wrote : std::uint8_t { block, nothing, last };

  /// Creates or empties the file. Throws InvalidArgument.
  LogFile(const std::string& path, std::size_t block_bytes, std::size_t blocks_max);
  ~LogFile();
  LogFile(const LogFile&) = delete;
  LogFile& operator=(const LogFile&) = delete;

  [[nodiscard]] std::size_t block_bytes() const noexcept { return block_bytes_; }
  /// An empty block with room for block_bytes().
  [[nodiscard]] std::vector<std::uint8_t> empty_block();
  /// Hands over what empty_block() gave, filled, behind room for its header, and takes another one.
  void put(std::vector<std::uint8_t>& block);
  /// Nothing more comes: what is left is written, by the writer if there is one, and the file is closed.
  void finish();

  /// The writer thread: writes one block. `nothing`: none came within wait_s; `last`: all is written.
  [[nodiscard]] Wrote write_next(double wait_s);

  /// The producer's, or for somebody who keeps the producer away: the next put() does not wait.
  [[nodiscard]] bool has_room();

  /// What went wrong, as errno; 0: nothing.
  [[nodiscard]] int error() const noexcept { return error_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t n_bytes() const noexcept { return n_bytes_.load(std::memory_order_relaxed); }

 private:
  void write(std::vector<std::uint8_t>& block);
  void write_all(const std::uint8_t* from, std::size_t n_bytes);
  void close_file() noexcept;

  const std::size_t block_bytes_, blocks_max_;
  std::mutex mutex_;
  std::condition_variable for_writer_, for_producer_;
  std::deque<std::vector<std::uint8_t>> full_;
  std::vector<std::vector<std::uint8_t>> spare_;
  std::size_t n_out_{};  ///< full_, and the one that the writer is at
  bool has_writer_{}, finished_{};
  std::atomic<int> error_{0};
  std::atomic<std::uint64_t> n_bytes_{0};
  // Whoever writes: the writer, or the producer while there is none.
  int fd_{-1};
  std::uint64_t n_blocks_{};
};

}  // namespace infcore::engine
