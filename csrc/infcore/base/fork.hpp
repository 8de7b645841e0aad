#pragma once
#include <cstdint>

namespace infcore::base {

/// How many forks lie between this process and the one that loaded the library. An object remembers the figure it was
/// built under; another figure later means that it is used in a forked child.
[[nodiscard]] std::uint32_t fork_generation() noexcept;

/// Throws ForkedProcess where `built_under` is not the present generation. `what` names the object.
void check_not_forked(std::uint32_t built_under, const char* what);

}  // namespace infcore::base
