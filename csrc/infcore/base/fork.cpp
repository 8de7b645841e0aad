#include <infcore/base/errors.hpp>
#include <infcore/base/fork.hpp>

#include <pthread.h>

#include <string>

namespace infcore::base {

std::atomic<std::uint32_t> n_forks{0};

namespace {

// Registered once, when the library is loaded; pthread_atfork cannot be undone and need not be.
const int registered = pthread_atfork(nullptr, nullptr, [] { n_forks.fetch_add(1, std::memory_order_relaxed); });

}  // namespace

void check_not_forked(std::uint32_t built_under, const char* what) {
  if (built_under == fork_generation()) return;
  throw ForkedProcess(std::string(what) + " was made before fork(); make a new one in the child process");
}

}  // namespace infcore::base
