#include <infcore/base/errors.hpp>
#include <infcore/engine/event_format.hpp>
#include <infcore/engine/log_file.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

namespace infcore::engine {

LogFile::LogFile(const std::string& path, std::size_t block_bytes, std::size_t blocks_max)
    : block_bytes_(block_bytes), blocks_max_(blocks_max) {
  if (block_bytes < 256 || block_bytes > event_block_bytes_max) {
    throw InvalidArgument("block_bytes", std::to_string(block_bytes),
                          "256 to " + std::to_string(event_block_bytes_max));
  }
  if (blocks_max < 2) throw InvalidArgument("blocks_max", std::to_string(blocks_max), "2 or more");
  fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) {
    throw InvalidArgument("log", "'" + path + "'",
                          std::string("a file that can be written; it says: ") + strerror(errno));
  }
  std::uint8_t header[event_file_header_bytes];
  std::memcpy(header, event_log_magic.data(), event_log_magic.size());
  store_le(header + 8, event_format_version, 4);
  store_le(header + 12, action_list_version, 4);
  write_all(header, sizeof header);
}

LogFile::~LogFile() { close_file(); }

std::vector<std::uint8_t> LogFile::empty_block() {
  std::vector<std::uint8_t> block;
  block.reserve(event_block_header_bytes + block_bytes_);
  block.resize(event_block_header_bytes);
  return block;
}

void LogFile::put(std::vector<std::uint8_t>& block) {
  std::unique_lock lock(mutex_);
  if (!has_writer_) {
    write(block);
    block.resize(event_block_header_bytes);
    return;
  }
  for_producer_.wait(lock, [&] { return n_out_ + 1 < blocks_max_; });
  full_.push_back(std::move(block));
  ++n_out_;
  if (spare_.empty()) {
    block = empty_block();
  } else {
    block = std::move(spare_.back());
    spare_.pop_back();
  }
  lock.unlock();
  for_writer_.notify_one();
}

bool LogFile::has_room() {
  const std::scoped_lock lock(mutex_);
  return n_out_ + 1 < blocks_max_;
}

void LogFile::finish() {
  std::unique_lock lock(mutex_);
  finished_ = true;
  if (!has_writer_) close_file();
  lock.unlock();
  for_writer_.notify_one();
}

LogFile::Wrote LogFile::write_next(double wait_s) {
  std::unique_lock lock(mutex_);
  has_writer_ = true;
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                                            std::chrono::duration<double>(wait_s));
  for_writer_.wait_until(lock, until, [&] { return !full_.empty() || finished_; });
  if (full_.empty()) {
    if (!finished_) return Wrote::nothing;
    close_file();
    return Wrote::last;
  }
  std::vector<std::uint8_t> block = std::move(full_.front());
  full_.pop_front();
  lock.unlock();
  write(block);
  block.resize(event_block_header_bytes);
  lock.lock();
  spare_.push_back(std::move(block));
  --n_out_;
  lock.unlock();
  for_producer_.notify_one();
  return Wrote::block;
}

void LogFile::write(std::vector<std::uint8_t>& block) {
  const std::size_t n_body = block.size() - event_block_header_bytes;
  store_le(block.data(), n_body, 4);
  store_le(block.data() + 4, block_checksum(n_blocks_++, block.data() + event_block_header_bytes, n_body), 8);
  write_all(block.data(), block.size());
}

void LogFile::write_all(const std::uint8_t* from, std::size_t n_bytes) {
  while (n_bytes > 0 && fd_ >= 0) {
    const ssize_t n = ::write(fd_, from, n_bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      error_.store(errno, std::memory_order_relaxed);
      return close_file();
    }
    from += n;
    n_bytes -= static_cast<std::size_t>(n);
    n_bytes_.fetch_add(static_cast<std::uint64_t>(n), std::memory_order_relaxed);
  }
}

void LogFile::close_file() noexcept {
  if (fd_ >= 0 && ::close(fd_) != 0 && error() == 0) error_.store(errno, std::memory_order_relaxed);
  fd_ = -1;
}

}  // namespace infcore::engine
