#include <infcore/base/errors.hpp>
#include <infcore/cache/eviction_policy.hpp>

namespace infcore::cache {

#define EVICTION_POLICY(name) std::unique_ptr<contracts::EvictionPolicy> make_##name();
#include <infcore/cache/eviction_registry.def>
#undef EVICTION_POLICY

namespace {

struct Row {
  std::string_view name;
  std::unique_ptr<contracts::EvictionPolicy> (*make)();
};

constexpr Row rows[] = {
#define EVICTION_POLICY(name) {#name, make_##name},
#include <infcore/cache/eviction_registry.def>
#undef EVICTION_POLICY
};

}  // namespace

std::vector<std::string> eviction_policies() {
  std::vector<std::string> names;
  for (const Row& row : rows) names.emplace_back(row.name);
  return names;
}

std::unique_ptr<contracts::EvictionPolicy> make_eviction_policy(std::string_view name) {
  std::string known;
  for (const Row& row : rows) {
    if (row.name == name) return row.make();
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  throw UnknownName("policy", std::string(name), known);
}

}  // namespace infcore::cache
