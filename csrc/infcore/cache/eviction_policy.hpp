#pragma once
#include <infcore/contracts/eviction.hpp>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace infcore::cache {

/// Throws UnknownName for a name that is not in eviction_registry.def.
[[nodiscard]] std::unique_ptr<contracts::EvictionPolicy> make_eviction_policy(std::string_view name);
[[nodiscard]] std::vector<std::string> eviction_policies();

}  // namespace infcore::cache
