#pragma once
#include <infcore/base/clock.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace infcore::queue {

/// A request at the door, and what it would meet inside, as a policy sees it.
struct Arrival {
  base::TimeNs now_ns{}, deadline_ns{base::never_ns};
  base::TimeNs defer_ns{};  ///< the longest that it may be put off; 0: not at all
  std::uint32_t model{};
  std::uint16_t tier{};
  bool has_stale{};  ///< an answer from before is at hand, and would do
  // Of its model.
  std::uint32_t n_open{};      ///< accepted, not yet ended and not put off
  double best_s{-1.0};         ///< the least seconds in which any device could answer it; < 0: in time, or not certain
  double wait_s{};             ///< until what was accepted before it is served, on the devices that it may use
  double goal_s{};             ///< a wait that counts as overload; 0: nothing is known of the devices yet
  double capacity_per_s{};     ///< requests of its kind that all its devices serve, in full batches; 0: not known
  double fallback_per_s{};     ///< likewise of the model that its own falls back to; 0: there is none that serves
  double fallback_wait_s{};    ///< and that one's wait
  std::uint16_t first_tier{};  ///< the most urgent tier that holds anything, this one counted
  std::uint16_t last_tier{};   ///< the least urgent one that has something waiting on those devices; 0: none has
};

/// What becomes of it.
enum class Entry : std::uint8_t {
  admit,       ///< nothing against it; the next policy is asked
  infeasible,  ///< refused: it cannot be in time
  refuse,      ///< refused: overload
  stale,       ///< answered at once with what was at hand
  cheaper,     ///< goes on as a request to the fallback of its model
  defer,       ///< accepted, put off until `until_ns` at the latest
  displace     ///< admitted, in the place of the least urgent that waits
};

struct Verdict {
  Entry entry{Entry::admit};
  base::TimeNs until_ns{};  ///< defer
  double retry_after_s{};   ///< refuse: when it is worth another try; infeasible: the best time
};

/// How a request of a model ended that a device answered.
struct Answered {
  std::uint32_t model{};
  std::uint32_t n_open{};  ///< of the model, itself counted
  std::uint32_t max_batch_size{};
  double latency_s{};  ///< since it was accepted
  double service_s{};  ///< of that the run
};

/// Whether a request may enter, and in which form. The policies of an engine are asked in the order in which they were
/// named, until one says something else than admit (after cheaper the others are asked as well). One that
/// is a step of the ladder is asked only while the ladder stands as high (admission_ladder.hpp).
/// Contract: deterministic, no clock; state per model, of fixed size once models are known; O(1) a call. defer:
/// now_ns < until_ns <= now_ns + defer_ns. cheaper only where fallback_per_s > 0. retry_after_s >= 0, finite.
class AdmissionPolicy {
 public:
  virtual ~AdmissionPolicy() = default;
  [[nodiscard]] virtual Verdict admit(const Arrival&) noexcept { return {}; }
  virtual void answered(const Answered&) noexcept {}
  /// How long a free device may be kept waiting for a larger batch, of `configured_ns`.
  [[nodiscard]] virtual base::TimeNs batch_delay_ns(base::TimeNs configured_ns) const noexcept { return configured_ns; }
  /// Requests of the model that may be open at once, as it thinks now; infinity: it does not bound them.
  [[nodiscard]] virtual double limit(std::uint32_t model) const noexcept;
};

/// Seconds after which a refused request is told to try again, at the least.
inline constexpr double retry_after_s_min = 1e-3;

struct AdmissionRow {
  std::string name;
  bool is_step;  ///< of the ladder; else always asked
};

/// Throws UnknownName for a name that is not in admission_registry.def.
[[nodiscard]] std::unique_ptr<AdmissionPolicy> make_admission_policy(std::string_view name, std::uint32_t max_models);
[[nodiscard]] std::vector<AdmissionRow> admission_policies();

}  // namespace infcore::queue
