#pragma once
#include <compare>
#include <cstdint>

namespace infcore::base {

/// An index that only compares with its own kind, so that a node can't be passed where a model is wanted.
template <class Tag, class Rep>
struct Id {
  Rep value{};
  friend constexpr auto operator<=>(Id, Id) = default;
};

using NodeId = Id<struct NodeTag, std::uint32_t>;
using ModelId = Id<struct ModelTag, std::uint32_t>;
using RequestId = Id<struct RequestTag, std::uint64_t>;

inline constexpr NodeId no_node{0xFFFF'FFFFu};
inline constexpr ModelId no_model{0xFFFF'FFFFu};

}  // namespace infcore::base
