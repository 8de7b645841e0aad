#pragma once
#include <infcore/sim/ledger.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace infcore::sim {

/// The log of a run: one JSON object a line and request, in the order of their ends. Lines gather in memory until the
/// owner takes them; he is told when there are enough.
class RequestLog {
 public:
  RequestLog(const SimConfig& config, std::string_view policy);

  void add(const Ended& e);
  [[nodiscard]] bool full() const noexcept { return lines_.size() >= full_bytes; }
  [[nodiscard]] const std::string& lines() const noexcept { return lines_; }
  void clear() noexcept { lines_.clear(); }

 private:
  static constexpr std::size_t full_bytes = 1u << 20;

  void text(std::string_view key, std::string_view quoted);
  void number(std::string_view key, double value);
  void integer(std::string_view key, std::uint64_t value);

  std::string policy_;                                 ///< quoted, as are the others
  std::vector<std::string> models_, nodes_, tenants_;  ///< tenants_ by workload, "": none
  std::string lines_;
};

}  // namespace infcore::sim
