#pragma once
#include <infcore/base/ids.hpp>
#include <infcore/route/leases.hpp>

#include <atomic>
#include <cstdint>
#include <mutex>

namespace infcore::route {

/// Credit that is released at a time, whoever took it: of all routers of a process over one fleet, so that a lease ends
/// on time where its router is not called any more, or is gone.
///
/// Any thread. A mutex for each lease that is taken or ends; where none is due, end_due() is one load.
class LeaseBook {
 public:
  struct Lease {
    base::NodeId node;
    double service_s;
  };
  using Handle = Leases<Lease>::Handle;
  static constexpr Handle none = Leases<Lease>::none;

  Handle add(const Lease& lease, base::TimeNs end_ns) {
    const std::lock_guard hold(lock_);
    const Handle handle = leases_.add(lease, end_ns);
    publish();
    return handle;
  }

  /// True for the first end of a lease.
  bool end(Handle handle) noexcept {
    const std::lock_guard hold(lock_);
    const bool first = leases_.end(handle);
    publish();
    return first;
  }

  /// Ends what is due and tells `on_end` of each, in the order of their ends.
  template <class OnEnd>
  void end_due(base::TimeNs now_ns, OnEnd on_end) noexcept {
    if (now_ns < first_end_ns_.load(std::memory_order_relaxed)) return;  // who misses a new one ends it next time
    const std::lock_guard hold(lock_);
    leases_.end_due(now_ns, on_end);
    publish();
  }

 private:
  void publish() noexcept { first_end_ns_.store(leases_.first_end_ns(), std::memory_order_relaxed); }

  std::mutex lock_;
  Leases<Lease> leases_;
  std::atomic<base::TimeNs> first_end_ns_{base::never_ns};
};

}  // namespace infcore::route
