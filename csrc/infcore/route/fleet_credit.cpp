// The half of Fleet that runs per request: signals, credit, and the columns published from them.
#include <infcore/route/fleet.hpp>

#include <algorithm>
#include <mutex>

namespace infcore::route {
namespace {

using contracts::Credit;
using contracts::FleetColumns;
using contracts::FloatPair;
using contracts::NodeCredit;

/// The time that one lost packet costs: Linux does not retransmit before 200 ms (TCP_RTO_MIN, net/tcp.h).
constexpr double lost_packet_us = 200e3;
/// A saturated device adds half a service time: the utilisation may be our own work, which waiting already counts.
constexpr double pressure_when_saturated = 0.5;
/// Memory that is merely full of weights and KV blocks slows nothing down; the last tenth does.
constexpr double memory_pressure_from = 0.9;

bool given(double figure) noexcept { return figure == figure; }

void take(double& known, double figure) noexcept {
  if (given(figure)) known = figure;
}

float bound_of(std::uint32_t pending_max) noexcept {
  return pending_max == 0 ? std::numeric_limits<float>::infinity() : static_cast<float>(pending_max);
}

double or_zero(double figure) noexcept { return given(figure) ? figure : 0.0; }

double inflight_of(const NodeCredit& row) noexcept {
  const double since = static_cast<double>(row.own.inflight - row.own_at_inflight.inflight);
  // A queue depth alone is a lower bound of the node's total.
  const double signalled = given(row.last.inflight) ? row.last.inflight : or_zero(row.last.queue_depth);
  return std::max(0.0, signalled + since);
}

double wait_ns_of(const NodeCredit& row) noexcept {
  const double since_ns = static_cast<double>(row.own.reserved_ns - row.own_at_queue_wait.reserved_ns);
  return std::max(0.0, or_zero(row.last.queue_wait_s) * 1e9 + since_ns / row.slots);
}

double others_ahead_of(const NodeCredit& row) noexcept {
  if (given(row.last.queue_wait_s)) return 0.0;
  return std::max(0.0, inflight_of(row) - static_cast<double>(row.own.inflight)) / row.slots;
}

double pressure_of(const Signal& last) noexcept {
  const double busy = std::max(or_zero(last.cpu), or_zero(last.gpu));
  const double full = (or_zero(last.memory) - memory_pressure_from) / (1.0 - memory_pressure_from);
  return pressure_when_saturated * std::max(busy * busy, full);
}

double network_us_of(const NodeCredit& row) noexcept {
  const Signal& last = row.last;
  const double busy = or_zero(last.network);
  return row.rtt_s * 1e6 * (1.0 + busy * busy) + or_zero(last.packet_loss) * lost_packet_us;
}

}  // namespace

/// Under the row's lock.
void Fleet::publish(NodeId node) noexcept {
  const NodeCredit& row = columns_.credit(node.value);
  FleetColumns::Block& block = columns_.block(node.value / FleetColumns::block_nodes);
  const std::uint32_t at = node.value % FleetColumns::block_nodes;
  const FloatPair ours{static_cast<float>(wait_ns_of(row) * 1e-3), static_cast<float>(inflight_of(row))};
  const FloatPair others{static_cast<float>(others_ahead_of(row)), row.pending_max};
  block.put(at, FleetColumns::wait_inflight, pack(ours));
  block.put(at, FleetColumns::others_bound, pack(others));
  block.announce();
}

/// Under the row's lock, before publish().
void Fleet::publish_signals(NodeId node) noexcept {
  const NodeCredit& row = columns_.credit(node.value);
  const FloatPair theirs{static_cast<float>(pressure_of(row.last)), static_cast<float>(network_us_of(row))};
  columns_.block(node.value / FleetColumns::block_nodes)
      .put(node.value % FleetColumns::block_nodes, FleetColumns::pressure_network, pack(theirs));
}

void Fleet::reset_credit(NodeId node) noexcept {
  NodeCredit& row = columns_.credit(node.value);
  const std::lock_guard hold(row.lock);
  row.slots = specs_[node.value].slots;
  row.rtt_s = specs_[node.value].rtt_s;
  row.pending_max = bound_of(specs_[node.value].pending_max);
  if (specs_[node.value].pending_max != 0) columns_.header().bounded.store(1, std::memory_order_relaxed);
  row.own = row.own_at_inflight = row.own_at_queue_wait = {};
  row.last = {.as_of_ns = untimed};
  row.history = {};
  publish_signals(node);
  publish(node);
}

void Fleet::bound_pending(NodeId node, std::uint32_t pending_max) noexcept {
  NodeCredit& row = columns_.credit(node.value);
  const std::lock_guard hold(row.lock);
  // relaxed: which pick is the first to look at bounds is a race with this call in any case
  if (pending_max != 0) columns_.header().bounded.store(1, std::memory_order_relaxed);
  row.pending_max = bound_of(pending_max);
  publish(node);
}

bool Fleet::signal(NodeId node, const Signal& signal) noexcept {
  NodeCredit& row = columns_.credit(node.value);
  const std::lock_guard hold(row.lock);
  Signal& last = row.last;
  if (signal.as_of_ns < last.as_of_ns) return false;
  auto& signalled = columns_.header().signalled;
  if (signalled.load(std::memory_order_relaxed) == 0) signalled.store(1, std::memory_order_relaxed);  // relaxed: a flag
  const Credit then = row.history.at(signal.as_of_ns);
  if (given(signal.inflight) || (given(signal.queue_depth) && !given(last.inflight))) row.own_at_inflight = then;
  if (given(signal.queue_wait_s)) row.own_at_queue_wait = then;
  last.as_of_ns = signal.as_of_ns;
  take(last.queue_depth, signal.queue_depth);
  take(last.inflight, signal.inflight);
  take(last.cpu, signal.cpu);
  take(last.gpu, signal.gpu);
  take(last.memory, signal.memory);
  take(last.network, signal.network);
  take(last.packet_loss, signal.packet_loss);
  take(last.queue_wait_s, signal.queue_wait_s);
  publish_signals(node);
  publish(node);
  return true;
}

std::int64_t Fleet::credit_ns(double service_s) noexcept {
  constexpr double most_s = 1e6;  // 9,000 of them fit
  return service_s > 0.0 ? base::to_ns(std::min(service_s, most_s)) : 0;
}

void Fleet::change_credit(NodeId node, const Credit& by, base::TimeNs now_ns) noexcept {
  NodeCredit& row = columns_.credit(node.value);
  const std::lock_guard hold(row.lock);
  row.own.inflight += by.inflight;
  row.own.reserved_ns += by.reserved_ns;
  row.history.record(now_ns, row.own);
  publish(node);
}

void Fleet::reserve(NodeId node, double service_s, base::TimeNs now_ns) noexcept {
  change_credit(node, {1, credit_ns(service_s)}, now_ns);
}

void Fleet::release(NodeId node, double service_s, base::TimeNs now_ns) noexcept {
  change_credit(node, {-1, -credit_ns(service_s)}, now_ns);
}

double Fleet::wait_s(NodeId node) const noexcept {
  return static_cast<double>(columns_.pair(node.value, FleetColumns::wait_inflight).first) * 1e-6;
}

std::uint32_t Fleet::inflight(NodeId node) const noexcept {
  return static_cast<std::uint32_t>(columns_.pair(node.value, FleetColumns::wait_inflight).second);
}

NodeState Fleet::state(NodeId node) const noexcept {
  return static_cast<NodeState>(columns_.state(node.value).load(std::memory_order_acquire));
}

bool Fleet::resident(NodeId node, ModelId model) const noexcept {
  const auto& word = columns_.resident(model.value, node.value / 64);
  return (word.load(std::memory_order_acquire) >> (node.value & 63u) & 1u) != 0;
}

double Fleet::price_per_hour(NodeId node) const noexcept {
  return columns_.price_per_hour(node.value).load(std::memory_order_relaxed);
}

std::uint32_t Fleet::slots(NodeId node) const noexcept {
  return columns_.slots(node.value).load(std::memory_order_relaxed);
}

std::uint32_t Fleet::kind_id(NodeId node) const noexcept {
  return columns_.kind_id(node.value).load(std::memory_order_relaxed);
}

std::uint64_t Fleet::born(NodeId node) const noexcept {
  return columns_.born(node.value).load(std::memory_order_relaxed);
}

void Fleet::read(NodeId node, Credit& own, Signal& last) const noexcept {
  NodeCredit& row = columns_.credit(node.value);
  const std::lock_guard hold(row.lock);
  own = row.own;
  last = row.last;
}

std::uint32_t Fleet::n_nodes() const noexcept { return columns_.header().n_nodes.load(std::memory_order_acquire); }

std::uint64_t Fleet::version() const noexcept { return columns_.header().version.load(std::memory_order_acquire); }

}  // namespace infcore::route
