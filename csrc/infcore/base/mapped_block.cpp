#include <infcore/base/errors.hpp>
#include <infcore/base/fork.hpp>
#include <infcore/base/mapped_block.hpp>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

namespace infcore::base {
namespace {

constexpr std::size_t name_bytes_max = 200;  // NAME_MAX is 255, and a prefix goes before it

bool may_stand(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

std::string path_of(const std::string& name) {
  if (name.empty() || name.size() > name_bytes_max || !std::all_of(name.begin(), name.end(), may_stand))
    throw InvalidArgument("shared", "'" + name + "'", "1 to 200 of a-z, A-Z, 0-9, '-', '_' and '.'");
  return "/infcore-" + name;
}

[[noreturn]] void refuse(const std::string& path, const char* what) {
  const int error = errno;
  throw InvalidArgument("shared", "'" + path + "', where " + what + " says '" + std::strerror(error) + "'",
                        "a name in shared memory that this process may read and write");
}

/// Who opens or leaves a block, one at a time. A lock of the open file: a holder's death ends it.
bool lock_door(int fd, short kind) noexcept {
  struct flock whole {};
  whole.l_type = kind;
  whole.l_whence = SEEK_SET;
  int got;
  do {
    got = fcntl(fd, F_OFD_SETLKW, &whole);
  } while (got != 0 && errno == EINTR);
  return got == 0;
}

}  // namespace

MappedBlock::MappedBlock(std::size_t bytes) : bytes_(bytes), built_under_(fork_generation()) { map(); }

MappedBlock::MappedBlock(const std::string& name, std::size_t bytes)
    : path_(path_of(name)), bytes_(bytes), built_under_(fork_generation()) {
  try {
    open_named();
    map();
  } catch (...) {
    if (fd_ >= 0) close(fd_);
    throw;
  }
}

/// Presence is a shared flock: whoever gets it exclusively is alone, the block's former users being gone or dead.
void MappedBlock::open_named() {
  for (;;) {
    fd_ = shm_open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd_ < 0) refuse(path_, "shm_open");
    if (!lock_door(fd_, F_WRLCK)) refuse(path_, "fcntl");
    if (is_ours()) break;
    close(fd_);  // the last one out took the name away between the two
    fd_ = -1;
  }
  is_new_ = flock(fd_, LOCK_EX | LOCK_NB) == 0;
  if (is_new_ && (ftruncate(fd_, 0) != 0 || ftruncate(fd_, static_cast<off_t>(bytes_)) != 0))
    refuse(path_, "ftruncate");
  if (flock(fd_, LOCK_SH) != 0) refuse(path_, "flock");
  struct stat found {};
  if (fstat(fd_, &found) != 0) refuse(path_, "fstat");
  bytes_ = static_cast<std::size_t>(found.st_size);
}

bool MappedBlock::is_ours() const noexcept {
  struct stat ours {
  }, named{};
  const int other = shm_open(path_.c_str(), O_RDWR | O_CLOEXEC, 0);
  if (other < 0) return false;
  const bool same =
      fstat(fd_, &ours) == 0 && fstat(other, &named) == 0 && ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
  close(other);
  return same;
}

void MappedBlock::map() {
  const int flags = is_shared() ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* const at = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, flags, fd_, 0);
  if (at == MAP_FAILED) {
    if (is_shared()) refuse(path_, "mmap");
    throw std::bad_alloc();
  }
  data_ = static_cast<std::byte*>(at);
}

void MappedBlock::settle() noexcept {
  if (is_shared()) lock_door(fd_, F_UNLCK);
}

bool MappedBlock::unlink() noexcept { return is_shared() && is_ours() && shm_unlink(path_.c_str()) == 0; }

MappedBlock::~MappedBlock() {
  munmap(data_, bytes_);
  if (!is_shared()) return;
  // In a forked child the locks are the parent's, too.
  if (built_under_ == fork_generation() && lock_door(fd_, F_WRLCK) && flock(fd_, LOCK_EX | LOCK_NB) == 0) unlink();
  close(fd_);
}

}  // namespace infcore::base
