#pragma once
#include <array>
#include <cstdint>

namespace infcore::base {

/// The bit of each lane in half a word of nodes, as a column: for loops over lanes that are to be vectorised.
alignas(64) inline constexpr auto lane_bit = [] {
  std::array<std::uint32_t, 32> bits{};
  for (std::uint32_t lane = 0; lane < bits.size(); ++lane) bits[lane] = 1u << lane;
  return bits;
}();

}  // namespace infcore::base
