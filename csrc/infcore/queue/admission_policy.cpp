#include <infcore/base/errors.hpp>
#include <infcore/queue/admission_policy.hpp>

#include <limits>

namespace infcore::queue {

#define ADMISSION_POLICY(name, kind) std::unique_ptr<AdmissionPolicy> make_##name(std::uint32_t max_models);
#include <infcore/queue/admission_registry.def>
#undef ADMISSION_POLICY

namespace {

constexpr bool always = false, step = true;

struct Row {
  std::string_view name;
  bool is_step;
  std::unique_ptr<AdmissionPolicy> (*make)(std::uint32_t max_models);
};

constexpr Row rows[] = {
#define ADMISSION_POLICY(name, kind) {#name, kind, make_##name},
#include <infcore/queue/admission_registry.def>
#undef ADMISSION_POLICY
};

}  // namespace

double AdmissionPolicy::limit(std::uint32_t) const noexcept { return std::numeric_limits<double>::infinity(); }

std::vector<AdmissionRow> admission_policies() {
  std::vector<AdmissionRow> names;
  for (const Row& row : rows) names.push_back({std::string(row.name), row.is_step});
  return names;
}

std::unique_ptr<AdmissionPolicy> make_admission_policy(std::string_view name, std::uint32_t max_models) {
  std::string known;
  for (const Row& row : rows) {
    if (row.name == name) return row.make(max_models);
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  throw UnknownName("admission", std::string(name), known);
}

}  // namespace infcore::queue
