#pragma once
#include <infcore/base/border_mutex.hpp>
#include <infcore/route/router.hpp>

#include <exception>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

namespace infcore::route {

/// A Router that several threads may call: one call at a time, the others wait. For owners that can't give each
/// thread its own, as Python objects can't; they hold their language's lock, if it has one, in every call.
class GuardedRouter {
 public:
  GuardedRouter(Fleet& fleet, std::string_view policy, std::uint64_t seed, RoutingOptions options,
                PrefixConfig prefix = {})
      : router_(fleet, policy, seed, std::move(options), prefix) {}
  GuardedRouter(Fleet& fleet, std::unique_ptr<RoutingPolicy> policy, PrefixConfig prefix = {})
      : router_(fleet, std::move(policy), prefix) {}

  void pick(const RouteQuery& query, const PickOptions& options, Decision& decision) {
    const std::lock_guard hold(lock_);
    router_.pick(query, options, decision);
  }
  /// Without the language's lock, where there is one.
  void pick_many(const RouteQuery& query, std::span<const double> work, const PickOptions& options,
                 std::vector<Decision>& decisions) {
    const std::lock_guard hold(lock_);
    std::exception_ptr failed;
    auto pick_all = [&] {
      try {
        router_.pick_many(query, work, options, decisions);
      } catch (...) {
        failed = std::current_exception();
      }
    };
    base::Patience::wait([](void* all) { (*static_cast<decltype(pick_all)*>(all))(); }, &pick_all);
    if (failed) std::rethrow_exception(failed);
  }
  bool done(Decision& decision, bool ok, double service_s, base::TimeNs now_ns, double confidence) {
    const std::lock_guard hold(lock_);
    return router_.done(decision, ok, service_s, now_ns, confidence);
  }
  bool cancel(Decision& decision, base::TimeNs now_ns) {
    const std::lock_guard hold(lock_);
    return router_.cancel(decision, now_ns);
  }
  std::size_t done_many(std::span<Decision> decisions, bool ok, std::span<const double> service_s,
                        base::TimeNs now_ns) {
    const std::lock_guard hold(lock_);
    return router_.done_many(decisions, ok, service_s, now_ns);
  }
  std::size_t cancel_many(std::span<Decision> decisions, base::TimeNs now_ns) {
    const std::lock_guard hold(lock_);
    return router_.cancel_many(decisions, now_ns);
  }
  void explain(const RouteQuery& query, const PickOptions& options, std::vector<Explanation>& explanations) {
    const std::lock_guard hold(lock_);
    router_.explain(query, options, explanations);
  }
  void set_prior(ModelId model, NodeId node, const contracts::Curve& prior) {
    const std::lock_guard hold(lock_);
    router_.set_prior(model, node, prior);
  }
  void use_health(std::shared_ptr<HealthGate> health) {
    const std::lock_guard hold(lock_);
    router_.use_health(std::move(health));
  }
  template <class Use>
  auto with_prefix(Use use) {
    const std::lock_guard hold(lock_);
    return router_.with_prefix(use);
  }
  [[nodiscard]] const char* policy() const noexcept { return router_.policy(); }

 private:
  base::BorderMutex lock_;  // a policy may be in Python
  Router router_;
};

}  // namespace infcore::route
