#include <infcore/base/isa.hpp>

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace infcore::base {
namespace {

Isa supported() noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl"))
    return Isa::avx512;
  if (__builtin_cpu_supports("avx2")) return Isa::avx2;
#endif
  return Isa::baseline;
}

Isa chosen() noexcept {
  const char* const set = std::getenv("INFCORE_ISA");
  const std::string_view wanted = set == nullptr ? "" : set;
  if (wanted == "baseline") return Isa::baseline;
  if (wanted == "avx2") return std::min(Isa::avx2, supported());
  return supported();
}

}  // namespace

Isa isa() noexcept {
  static const Isa best = chosen();
  return best;
}

}  // namespace infcore::base
