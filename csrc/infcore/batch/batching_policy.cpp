#include <infcore/base/errors.hpp>
#include <infcore/batch/batching_policy.hpp>

namespace infcore::batch {

#define BATCHING_POLICY(name) std::unique_ptr<BatchingPolicy> make_##name();
#include <infcore/batch/batching_registry.def>
#undef BATCHING_POLICY

namespace {

struct Row {
  std::string_view name;
  std::unique_ptr<BatchingPolicy> (*make)();
};

constexpr Row rows[] = {
#define BATCHING_POLICY(name) {#name, make_##name},
#include <infcore/batch/batching_registry.def>
#undef BATCHING_POLICY
};

}  // namespace

std::vector<std::string> batching_policies() {
  std::vector<std::string> names;
  for (const Row& row : rows) names.emplace_back(row.name);
  return names;
}

std::unique_ptr<BatchingPolicy> make_batching_policy(std::string_view name) {
  std::string known;
  for (const Row& row : rows) {
    if (row.name == name) return row.make();
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  throw UnknownName("batching", std::string(name), known);
}

}  // namespace infcore::batch
