#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/base/ids.hpp>
#include <infcore/contracts/batch.hpp>
#include <infcore/contracts/latency_table.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace infcore::contracts {

enum class HealthStage : std::uint8_t {
  well,
  ejected,     ///< nothing is sent there
  half_open,   ///< one request at a time, until so many answers were good
  slow_start,  ///< a bound of pending requests that doubles step by step
  lost         ///< it does not answer at all: whoever owns the node said so
};

/// What a node was ejected for.
enum class EjectedFor : std::uint8_t {
  nothing,
  errors_in_a_row,
  error_rate,
  slowed_down,        ///< against its class and against what it was like before
  slower_than_class,  ///< from its first answers on
  losses,             ///< it came back from one, and was lost again
  failed_check,
  elsewhere  ///< by another process that shares the fleet
};

struct HealthConfig {
  std::uint32_t errors_in_a_row{5};
  double error_rate{0.1};  ///< share of its last 64 answers, where its peers have less than a third of that
  double slow_factor{4.0};
  double ejected_share_max{0.5};  ///< of the nodes that are there, all in all and of those that hold a model
  base::TimeNs eject_ns{5'000'000'000}, eject_ns_max{60'000'000'000};
  base::TimeNs forgive_ns{60'000'000'000};  ///< well for so long: the next ejection is half as long again
  std::uint32_t probes{3};                  ///< good answers, one at a time, after which more is sent
  base::TimeNs slow_start_ns{4'000'000'000};
  base::TimeNs forget_ns{60'000'000'000};  ///< a node's answers are about it for so long after the last of them
};

/// One answer of a node, or of a batch that it ran.
struct Answer {
  base::NodeId node{base::no_node};
  base::ModelId model{};
  BatchShape shape{};
  double service_s{};  ///< on the node, without waiting and network; <= 0: not known
  bool ok{};
};

/// What becomes of a node: to be carried out on the fleet by whoever asked.
struct HealthChange {
  base::NodeId node{base::no_node};
  HealthStage stage{};
  std::uint32_t pending_max{};  ///< requests in flight at which nothing more is sent there; 0: not bounded by health
};

struct HealthStatus {
  HealthStage stage{};
  EjectedFor why{};                       ///< of the present or last ejection
  base::TimeNs until_ns{base::never_ns};  ///< when the stage ends by itself; never_ns: by answers
  std::uint32_t n_ejections{};            ///< that are not forgiven
};

/// Who of a fleet's nodes answers as it should. No clock, thread or lock: time is handed in, what follows is in
/// changes(). One thread at a time.
class NodeHealth {
 public:
  virtual ~NodeHealth() = default;
  /// A new node under this id; those with equal `alike` are expected to be equally fast.
  virtual void joined(base::NodeId, std::uint64_t alike) = 0;
  virtual void left(base::NodeId) = 0;
  /// What the caller did, not the node, is no answer: cancels, deadlines that passed while it waited. The table is the
  /// caller's, before it learned of this answer or after.
  virtual void answered(base::TimeNs now_ns, const Answer&, const LatencyTable&) = 0;
  virtual void lost(base::TimeNs now_ns, base::NodeId) = 0;
  /// After the node's up bit was set.
  virtual void back(base::TimeNs now_ns, base::NodeId) = 0;
  /// What somebody who asked the node itself has seen.
  virtual void checked(base::TimeNs now_ns, base::NodeId, bool ok) = 0;
  /// Another process has taken it out, or in again.
  virtual void seen_elsewhere(base::TimeNs now_ns, base::NodeId, bool ejected) = 0;
  /// Nodes came, went or were lost: some that are out may be needed.
  virtual void members_changed(base::TimeNs now_ns) = 0;
  /// At next_ns() at the latest; then again, until that is later than now.
  virtual void tick(base::TimeNs now_ns) = 0;
  [[nodiscard]] virtual base::TimeNs next_ns() const noexcept = 0;
  [[nodiscard]] virtual HealthStatus status(base::NodeId) const noexcept = 0;
  /// What the node's class takes for the model, as the node did before it slowed down. False: not known.
  [[nodiscard]] virtual bool expected(base::ModelId, base::NodeId, Curve&) const noexcept = 0;
  /// Whether an error of the node is more likely its own fault than the request's.
  [[nodiscard]] virtual bool suspect(base::NodeId) const noexcept = 0;
  /// The ejected nodes that nobody has checked for a while.
  virtual void check_due(base::TimeNs now_ns, std::vector<base::NodeId>&) = 0;
  /// Whether the node is to be checked: it is ejected and nobody did for a while, or nothing was heard of it for
  /// longer. Then it is not for as long again. Whoever asks changes no decision by it.
  [[nodiscard]] virtual bool wants_check(base::TimeNs now_ns, base::NodeId) = 0;

  [[nodiscard]] std::vector<HealthChange>& changes() noexcept { return changes_; }

 protected:
  std::vector<HealthChange> changes_;
};

[[nodiscard]] inline const char* name_of(EjectedFor why) noexcept {
  switch (why) {
    case EjectedFor::errors_in_a_row:
      return "errors in a row";
    case EjectedFor::error_rate:
      return "its rate of errors";
    case EjectedFor::slowed_down:
      return "having slowed down";
    case EjectedFor::slower_than_class:
      return "being slower than its class";
    case EjectedFor::losses:
      return "having been lost again and again";
    case EjectedFor::failed_check:
      return "failed checks";
    case EjectedFor::elsewhere:
      return "what another process saw";
    case EjectedFor::nothing:
      break;
  }
  return "nothing";
}

}  // namespace infcore::contracts
