#include <infcore/base/errors.hpp>
#include <infcore/route/foreign_policy.hpp>
#include <infcore/route/routing_policy.hpp>

namespace infcore::route {

#define ROUTING_POLICY(name) std::unique_ptr<RoutingPolicy> make_##name(std::uint64_t seed, RoutingOptions& options);
#include <infcore/route/routing_registry.def>
#undef ROUTING_POLICY

namespace {

struct Entry {
  const char* name;
  std::unique_ptr<RoutingPolicy> (*make)(std::uint64_t seed, RoutingOptions& options);
};

constexpr Entry registry[] = {
#define ROUTING_POLICY(name) {#name, &make_##name},
#include <infcore/route/routing_registry.def>
#undef ROUTING_POLICY
};

}  // namespace

std::unique_ptr<RoutingPolicy> make_routing_policy(std::string_view name, std::uint64_t seed, RoutingOptions options) {
  std::string known;
  for (const Entry& entry : registry) {
    if (name == entry.name) {
      auto policy = entry.make(seed, options);
      options.check_all_known(entry.name);
      return policy;
    }
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  if (auto policy = make_foreign_policy(name, seed, options)) {
    options.check_all_known(name);
    return policy;
  }
  throw UnknownName("policy", std::string(name), known);
}

std::vector<std::string> routing_policies() {
  std::vector<std::string> names;
  for (const Entry& entry : registry) names.emplace_back(entry.name);
  return names;
}

}  // namespace infcore::route
