// What a request is predicted to take of its node, as the fleet's credit: the same nanoseconds are added and taken
// back.
#include <infcore/engine/state_machine.hpp>

#include <utility>

namespace infcore::engine {

void StateMachine::reserve_into(contracts::Credit& sum, Slot& s, double service_s) noexcept {
  s.reserved_ns = route::Fleet::credit_ns(service_s);
  s.holds_credit = true;
  sum.inflight += 1;
  sum.reserved_ns += s.reserved_ns;
}

void StateMachine::unreserve_into(contracts::Credit& sum, Slot& s) noexcept {
  if (!std::exchange(s.holds_credit, false)) return;
  sum.inflight -= 1;
  sum.reserved_ns -= s.reserved_ns;
}

void StateMachine::reserve(Slot& s, double service_s) noexcept {
  contracts::Credit credit{};
  reserve_into(credit, s, service_s);
  fleet_.change_credit(s.node, credit);
}

void StateMachine::unreserve(Slot& s) noexcept {
  contracts::Credit credit{};
  unreserve_into(credit, s);
  if (credit.inflight != 0) fleet_.change_credit(s.node, credit);
}

}  // namespace infcore::engine
