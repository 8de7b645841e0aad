#include <infcore/base/errors.hpp>
#include <infcore/base/fork.hpp>

#include <pthread.h>

#include <atomic>
#include <string>

namespace infcore::base {
namespace {

std::atomic<std::uint32_t> generation{0};

// Registered once, when the library is loaded; pthread_atfork cannot be undone and need not be.
const int registered = pthread_atfork(nullptr, nullptr, [] { generation.fetch_add(1, std::memory_order_relaxed); });

}  // namespace

std::uint32_t fork_generation() noexcept { return generation.load(std::memory_order_relaxed); }

void check_not_forked(std::uint32_t built_under, const char* what) {
  if (built_under == fork_generation()) return;
  throw ForkedProcess(std::string(what) + " was made before fork(); make a new one in the child process");
}

}  // namespace infcore::base
