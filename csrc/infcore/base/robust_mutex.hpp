#pragma once
#include <pthread.h>

#include <cerrno>

namespace infcore::base {

/// A mutex in memory that other processes may share: one whose holder dies is free again. BasicLockable.
///
/// What the dead holder left half done is the next holder's to bear; who uses it writes so that this does no harm.
/// Lies in zeroed memory, is never copied, and is made by init(), once, before anybody locks it.
class RobustMutex {
 public:
  void init(bool shared) noexcept {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    if (shared) {
      pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
      pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    }
    pthread_mutex_init(&mutex_, &attributes);
    pthread_mutexattr_destroy(&attributes);
  }
  void lock() noexcept {
    if (pthread_mutex_lock(&mutex_) == EOWNERDEAD) pthread_mutex_consistent(&mutex_);
  }
  void unlock() noexcept { pthread_mutex_unlock(&mutex_); }

 private:
  pthread_mutex_t mutex_;
};

}  // namespace infcore::base
