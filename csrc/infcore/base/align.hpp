#pragma once
#include <cstddef>

namespace infcore::base {

/// Bytes between fields written by different threads. Two 64 B lines: x86 may prefetch lines in pairs.
/// Fixed by us: std::hardware_destructive_interference_size follows -mtune, and clang 14 lacks it.
inline constexpr std::size_t false_sharing_bytes = 128;

}  // namespace infcore::base
