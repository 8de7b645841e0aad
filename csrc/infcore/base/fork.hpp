#pragma once
#include <atomic>
#include <cstdint>

namespace infcore::base {

/// Counted in the child. The library has the one there is: a variable that is `inline` could be each module's own.
extern std::atomic<std::uint32_t> n_forks;

/// How many forks lie between this process and the one that loaded the library. An object remembers the figure it was
/// built under; another figure later means that it is used in a forked child.
[[nodiscard]] inline std::uint32_t fork_generation() noexcept { return n_forks.load(std::memory_order_relaxed); }

/// Throws ForkedProcess where `built_under` is not the present generation. `what` names the object.
void check_not_forked(std::uint32_t built_under, const char* what);

}  // namespace infcore::base
