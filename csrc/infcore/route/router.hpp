#pragma once
#include <infcore/route/leases.hpp>
#include <infcore/route/prefix_index.hpp>
#include <infcore/route/routing_policy.hpp>

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

namespace infcore::route {

struct PickOptions {
  bool allow_late{};                          ///< the least cost even where every deadline is missed
  base::TimeNs lease_end_ns{base::never_ns};  ///< when credit is released by itself
};

/// One pick, and the credit it holds. Plain data; copies share no credit, so keep one.
struct Decision {
  NodeId node{base::no_node};
  RouteQuery query;
  CostTerms terms;
  double price_usd{};
  std::uint64_t router{};
  std::uint64_t lease{Leases<int>::none};
  bool feasible{};
  bool open{};         ///< still holds its credit, as far as is known
  bool starts_idle{};  ///< a slot was free, so that nothing but network and service lies before its end
};

struct Explanation {
  NodeId node;
  CostTerms terms;
  Filtered filtered;
};

/// A policy over a fleet, with latency curves of its own: select, then reserve; learn when requests end.
///
/// Any thread; calls are serialised by a mutex. Reads no clock: every call is handed the time. The fleet outlives it.
class Router {
 public:
  /// Throws UnknownName for a policy that is not in the registry.
  /// InvalidArgument for a prefix index that can't be.
  Router(Fleet& fleet, std::string_view policy, std::uint64_t seed, PrefixConfig prefix = {});

  /// Throws NoNodeAvailable, or DeadlineInfeasible where nodes could serve it but none in time.
  void pick(const RouteQuery& query, const PickOptions& options, Decision& decision);
  /// One by one, each seeing the credit of those before it; where one throws, those before it are cancelled.
  void pick_many(const RouteQuery& query, std::span<const double> work, const PickOptions& options,
                 std::vector<Decision>& decisions);
  /// Releases the credit, tells the policy the time since the pick and, where `ok`, learns. service_s <= 0: not
  /// measured; then the time since the pick is learned less the network, if the request did not have to wait. False
  /// where the credit was released before.
  bool done(Decision& decision, bool ok, double service_s, base::TimeNs now_ns);
  bool cancel(Decision& decision, base::TimeNs now_ns);
  /// done for each; `service_s` is empty (not measured) or has a figure for each. How many still held their credit.
  std::size_t done_many(std::span<Decision> decisions, bool ok, std::span<const double> service_s, base::TimeNs now_ns);
  std::size_t cancel_many(std::span<Decision> decisions, base::TimeNs now_ns);
  /// Every node that is not absent, by id.
  void explain(const RouteQuery& query, const PickOptions& options, std::vector<Explanation>& explanations);

  void set_prior(ModelId model, NodeId node, const contracts::Curve& prior);
  /// What nodes hold of prompts: use(PrefixIndex&), as the fleet is now, and no pick meanwhile.
  template <class Use>
  auto with_prefix(Use use) {
    const std::lock_guard hold(mutex_);
    prefix_.follow(*fleet_);
    return use(prefix_);
  }
  [[nodiscard]] const char* policy() const noexcept { return policy_->name(); }
  [[nodiscard]] const Fleet& fleet() const noexcept { return *fleet_; }

 private:
  struct Lease {
    NodeId node;
    double service_s;
  };
  void pick_locked(const RouteQuery& query, const PickOptions& options, Decision& decision);
  bool done_locked(Decision& decision, bool ok, double service_s, base::TimeNs now_ns);
  bool close_locked(Decision& decision, base::TimeNs now_ns);
  void check_ours(const Decision& decision) const;
  void end_leases(base::TimeNs now_ns) noexcept;
  void follow_membership();
  [[noreturn]] void refuse(const RouteQuery& query);

  Fleet* fleet_;
  std::mutex mutex_;
  contracts::LatencyTable latency_;
  PrefixIndex prefix_;
  RouteView view_;
  std::unique_ptr<RoutingPolicy> policy_;
  std::uint64_t serial_;
  std::uint64_t version_{};
  std::vector<std::uint64_t> born_;  // Fleet::born of the node that our curves are about
  Leases<Lease> leases_;
};

}  // namespace infcore::route
