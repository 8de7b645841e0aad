#pragma once
#include <cstdint>

namespace infcore::base {

/// Which copy of a vectorised loop runs. All copies give the same bits; they differ in speed only.
enum class Isa : std::uint8_t { baseline, avx2, avx512 };

/// The best that this CPU has, or less where the environment says INFCORE_ISA=baseline|avx2|avx512. Asked once.
[[nodiscard]] Isa isa() noexcept;

}  // namespace infcore::base
