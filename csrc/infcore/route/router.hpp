#pragma once
#include <infcore/route/health_gate.hpp>
#include <infcore/route/prefix_index.hpp>
#include <infcore/route/routing_policy.hpp>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
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
  ModelId model{};        ///< that it runs: the one asked for, or where the policy starts instead
  double work{};          ///< of its query, as the next
  base::TimeNs now_ns{};  ///< when it was picked
  CostTerms terms;
  double price_usd{};
  std::uint64_t router{};
  std::uint64_t lease{LeaseBook::none};
  bool feasible{};
  bool begins_load{};                  ///< its node has to load the model for it, and nobody had it do so before
  bool open{};                         ///< still holds its credit, as far as is known
  ModelId next_model{base::no_model};  ///< that goes on, for want of confidence; known after done
  float crowd{1.0f};                   ///< requests in flight per slot, itself included; at least 1
  bool starts_idle{};                  ///< a slot was free, so that nothing but network and service lies before its end
};

struct Explanation {
  NodeId node;
  CostTerms terms;
  Filtered filtered;
  std::string left_out;  ///< why the policy does not look at it, where nothing else filters it; "": it does
};

/// A policy over a fleet, with latency curves of its own: select, then reserve; learn when requests end.
///
/// One thread at a time, and no lock: each thread that picks has a Router of its own over one Fleet, where they see
/// each other's credit. Reads no clock: every call is handed the time. The fleet outlives it.
class Router {
 public:
  /// Throws as make_routing_policy does, and InvalidArgument for a prefix index that can't be.
  Router(Fleet& fleet, std::string_view policy, std::uint64_t seed, RoutingOptions options = {},
         PrefixConfig prefix = {});
  Router(Fleet& fleet, std::unique_ptr<RoutingPolicy> policy, PrefixConfig prefix = {});

  /// Throws NoNodeAvailable, or DeadlineInfeasible where nodes could serve it but none in time.
  void pick(const RouteQuery& query, const PickOptions& options, Decision& decision);
  /// One by one, each seeing the credit of those before it; where one throws, those before it are cancelled.
  void pick_many(const RouteQuery& query, std::span<const double> work, const PickOptions& options,
                 std::vector<Decision>& decisions);
  /// Releases the credit, tells the policy the time since the pick and, where `ok`, learns. service_s <= 0: not
  /// measured; then the time since the pick is learned less the network, if the request did not have to wait. False
  /// where the credit was released before. `confidence` of the answer, negative: not reported; decision.next_model says
  /// who goes on.
  bool done(Decision& decision, bool ok, double service_s, base::TimeNs now_ns, double confidence = -1.0);
  bool cancel(Decision& decision, base::TimeNs now_ns);
  /// done for each; `service_s` is empty (not measured) or has a figure for each. How many still held their credit.
  std::size_t done_many(std::span<Decision> decisions, bool ok, std::span<const double> service_s, base::TimeNs now_ns);
  std::size_t cancel_many(std::span<Decision> decisions, base::TimeNs now_ns);
  /// Every node that is not absent, by id.
  void explain(const RouteQuery& query, const PickOptions& options, std::vector<Explanation>& explanations);

  /// Tells it of every answer, and follows what becomes of the nodes. Before the first pick; its fleet is this one.
  void use_health(std::shared_ptr<HealthGate> health);
  void set_prior(ModelId model, NodeId node, const contracts::Curve& prior);
  /// What nodes hold of prompts: use(PrefixIndex&), as the fleet is now.
  template <class Use>
  auto with_prefix(Use use) {
    prefix_.follow(*fleet_);
    return use(prefix_);
  }
  [[nodiscard]] const char* policy() const noexcept { return policy_->name(); }
  [[nodiscard]] const Fleet& fleet() const noexcept { return *fleet_; }

 private:
  void pick_one(const RouteQuery& query, const PickOptions& options, Decision& decision);
  bool done_one(Decision& decision, bool ok, double service_s, base::TimeNs now_ns, double confidence);
  bool close(Decision& decision, base::TimeNs now_ns);
  bool take_back(Decision& decision, base::TimeNs now_ns);
  void explain_one(NodeId node, const Nudge& nudge, std::vector<Explanation>& explanations) const;
  void check_ours(const Decision& decision) const;
  void tell_health(const Decision& decision, bool ok, double learned_s, base::TimeNs now_ns);
  void follow_health(base::TimeNs now_ns);
  void follow_membership(base::TimeNs now_ns) {
    if (fleet_->version() != version_) follow_members(now_ns);
  }
  void follow_members(base::TimeNs now_ns);
  void follow_prefixes(base::TimeNs now_ns);
  [[noreturn]] void refuse(const RouteQuery& query);

  Fleet* fleet_;
  contracts::LatencyTable latency_;
  PrefixIndex prefix_;
  RouteView view_;
  std::unique_ptr<RoutingPolicy> policy_;
  RouteQuery asked_;  // what a pick asks in place of its query: made in each pick, it would be cleared in each
  std::uint64_t serial_;
  std::uint64_t version_{};
  std::vector<std::uint64_t> born_;        // Fleet::born of the node that our curves are about
  std::shared_ptr<HealthGate> health_;     // nullptr: nobody is ejected
  std::vector<std::uint32_t> n_restarts_;  // HealthGate::n_restarts that our curves know of
};

}  // namespace infcore::route
