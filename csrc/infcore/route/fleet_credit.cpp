// The half of Fleet that runs per request: signals, credit, and the columns published from them.
#include <infcore/route/fleet.hpp>

#include <algorithm>
#include <bit>
#include <mutex>
#include <thread>

namespace infcore::route {
namespace {

using contracts::Credit;
using contracts::FleetColumns;
using contracts::FloatPair;
using contracts::NodeRow;

/// The time that one lost packet costs: Linux does not retransmit before 200 ms (TCP_RTO_MIN, net/tcp.h).
constexpr double lost_packet_us = 200e3;
/// A saturated device adds half a service time: the utilisation may be our own work, which waiting already counts.
constexpr double pressure_when_saturated = 0.5;
/// Memory that is merely full of weights and KV blocks slows nothing down; the last tenth does.
constexpr double memory_pressure_from = 0.9;
/// How often a signal looks for a moment in which nobody is half way through a reserve; one that stays half way has
/// died there.
constexpr std::uint32_t signal_tries = 64;

bool given(double figure) noexcept { return figure == figure; }

void take(double& known, double figure) noexcept {
  if (given(figure)) known = figure;
}

constexpr std::uint32_t pending_max_most = 1u << 24;  // floats hold every number up to it
constexpr std::uint32_t pending_mask = 2 * pending_max_most - 1;

float bound_of(const NodeRow& row) noexcept {
  constexpr float none = std::numeric_limits<float>::infinity();
  const float own = row.pending_max == 0 ? none : static_cast<float>(row.pending_max);
  return row.limit == 0 ? own : std::min(own, static_cast<float>(1u << (row.limit - 1)));
}

std::uint32_t configured(std::uint32_t pending_max) noexcept { return std::min(pending_max, pending_max_most); }

double or_zero(double figure) noexcept { return given(figure) ? figure : 0.0; }

// The atomics of a row are relaxed: PublishedBlock::put_latest orders them, and asks again where they changed.

double inflight_of(const NodeRow& row, const Credit& own) noexcept {
  const std::int64_t since = own.inflight - row.inflight_then.load(std::memory_order_relaxed);
  return std::max(0.0, row.inflight_signalled.load(std::memory_order_relaxed) + static_cast<double>(since));
}

double wait_ns_of(const NodeRow& row, const Credit& own) noexcept {
  const auto since_ns = static_cast<double>(own.reserved_ns - row.reserved_then_ns.load(std::memory_order_relaxed));
  const std::uint32_t slots = row.slots.load(std::memory_order_relaxed);
  const double since_per_slot_ns = slots == 1 || since_ns == 0.0 ? since_ns : since_ns / slots;  // a division waits
  return std::max(0.0, row.wait_signalled_ns.load(std::memory_order_relaxed) + since_per_slot_ns);
}

/// Others' requests per slot, where no signalled wait covers them. Ours come and go without changing it.
double others_ahead_of(const NodeRow& row) noexcept {
  if (given(row.last.queue_wait_s)) return 0.0;
  const auto then = static_cast<double>(row.inflight_then.load(std::memory_order_relaxed));
  return std::max(0.0, row.inflight_signalled.load(std::memory_order_relaxed) - then) /
         row.slots.load(std::memory_order_relaxed);
}

double pressure_of(const Signal& last) noexcept {
  const double busy = std::max(or_zero(last.cpu), or_zero(last.gpu));
  const double full = (or_zero(last.memory) - memory_pressure_from) / (1.0 - memory_pressure_from);
  return pressure_when_saturated * std::max(busy * busy, full);
}

double network_us_of(const NodeRow& row) noexcept {
  const Signal& last = row.last;
  const double busy = or_zero(last.network);
  return row.rtt_s * 1e6 * (1.0 + busy * busy) + or_zero(last.packet_loss) * lost_packet_us;
}

}  // namespace

Credit Fleet::own_of(NodeId node) const noexcept {
  Credit own;
  for (std::uint64_t left = columns_.header().alive.load(std::memory_order_acquire); left != 0; left &= left - 1) {
    const Credit each = columns_.cell(static_cast<std::uint32_t>(std::countr_zero(left)), node.value).total();
    own.inflight += each.inflight;
    own.reserved_ns += each.reserved_ns;
  }
  return own;
}

std::uint64_t Fleet::load_of(NodeId node) const noexcept {
  const NodeRow& row = columns_.row(node.value);
  const Credit own = own_of(node);
  return pack(FloatPair{static_cast<float>(wait_ns_of(row, own) * 1e-3), static_cast<float>(inflight_of(row, own))});
}

/// After whatever changes the figures that it is made of.
void Fleet::publish_load(NodeId node) noexcept {
  columns_.block(node.value / FleetColumns::block_nodes)
      .put_latest(node.value % FleetColumns::block_nodes, FleetColumns::wait_inflight, [&] { return load_of(node); });
}

/// Under the node's signal lock.
void Fleet::publish_signals(NodeId node) noexcept {
  const NodeRow& row = columns_.row(node.value);
  FleetColumns::Block& block = columns_.block(node.value / FleetColumns::block_nodes);
  const std::uint32_t at = node.value % FleetColumns::block_nodes;
  const auto put = [&](FleetColumns::Word word, double first, float second) {
    block.put(at, word, pack(FloatPair{static_cast<float>(first), second}));
  };
  put(FleetColumns::pressure_network, pressure_of(row.last), static_cast<float>(network_us_of(row)));
  put(FleetColumns::others_bound, others_ahead_of(row), bound_of(row));
  put(FleetColumns::error_rate, or_zero(row.last.error_rate), 0.0f);
  block.put(at, FleetColumns::heard_at, std::bit_cast<std::uint64_t>(row.last.as_of_ns));
  block.announce();
}

/// Nobody holds credit on the row. What was changed there for the node that had it before is none of the new one's, of
/// which a signal may be older than its place here.
void Fleet::reset_credit(NodeId node) noexcept {
  for (std::uint64_t left = columns_.header().alive.load(std::memory_order_acquire); left != 0; left &= left - 1)
    columns_.cell(static_cast<std::uint32_t>(std::countr_zero(left)), node.value).forget_changes();
  NodeRow& row = columns_.row(node.value);
  const std::lock_guard hold(columns_.signal_lock(node.value));
  row.slots.store(specs_[node.value].slots, std::memory_order_relaxed);
  row.rtt_s = specs_[node.value].rtt_s;
  row.pending_max = configured(specs_[node.value].pending_max) & pending_mask;
  row.limit = 0;
  if (specs_[node.value].pending_max != 0) columns_.header().bounded.store(1, std::memory_order_relaxed);
  row.inflight_signalled.store(0.0, std::memory_order_relaxed);
  row.inflight_then.store(0, std::memory_order_relaxed);
  row.wait_signalled_ns.store(0.0, std::memory_order_relaxed);
  row.reserved_then_ns.store(0, std::memory_order_relaxed);
  row.last = {.as_of_ns = untimed};
  publish_signals(node);
  publish_load(node);
}

void Fleet::bound_pending(NodeId node, std::uint32_t pending_max) noexcept {
  NodeRow& row = columns_.row(node.value);
  const std::lock_guard hold(columns_.signal_lock(node.value));
  // relaxed: which pick is the first to look at bounds is a race with this call in any case
  if (pending_max != 0) columns_.header().bounded.store(1, std::memory_order_relaxed);
  row.pending_max = configured(pending_max) & pending_mask;
  publish_signals(node);
  publish_load(node);
}

void Fleet::limit_pending(NodeId node, std::uint32_t limit) noexcept {
  NodeRow& row = columns_.row(node.value);
  const std::lock_guard hold(columns_.signal_lock(node.value));
  if (limit != 0) columns_.header().bounded.store(1, std::memory_order_relaxed);  // relaxed: as above
  row.limit = static_cast<std::uint32_t>(std::bit_width(limit)) & 0x7Fu;          // at most 32: for the compiler
  publish_signals(node);
  publish_load(node);
}

std::uint32_t Fleet::pending_max(NodeId node) const noexcept {
  const float bound = columns_.pair(node.value, FleetColumns::others_bound).second;
  return bound <= 4e9f ? static_cast<std::uint32_t>(bound) : 0;
}

bool Fleet::signal(NodeId node, const Signal& signal) noexcept {
  NodeRow& row = columns_.row(node.value);
  const std::lock_guard hold(columns_.signal_lock(node.value));
  Signal& last = row.last;
  if (signal.as_of_ns < last.as_of_ns) return false;
  auto& signalled = columns_.header().signalled;
  if (signalled.load(std::memory_order_relaxed) == 0) signalled.store(1, std::memory_order_relaxed);  // relaxed: a flag
  const bool depth_counts = given(signal.queue_depth) && !given(last.inflight);
  last.as_of_ns = signal.as_of_ns;
  take(last.queue_depth, signal.queue_depth);
  take(last.inflight, signal.inflight);
  take(last.cpu, signal.cpu);
  take(last.gpu, signal.gpu);
  take(last.memory, signal.memory);
  take(last.network, signal.network);
  take(last.packet_loss, signal.packet_loss);
  take(last.queue_wait_s, signal.queue_wait_s);
  take(last.error_rate, signal.error_rate);
  const bool inflight_counts = given(signal.inflight) || depth_counts;
  if (inflight_counts || given(signal.queue_wait_s)) {
    const Credit then = own_then(node, signal.as_of_ns);
    if (inflight_counts) {
      // A queue depth alone is a lower bound of the node's total.
      row.inflight_signalled.store(given(last.inflight) ? last.inflight : last.queue_depth, std::memory_order_relaxed);
      row.inflight_then.store(then.inflight, std::memory_order_relaxed);
    }
    if (given(signal.queue_wait_s)) {
      row.wait_signalled_ns.store(signal.queue_wait_s * 1e9, std::memory_order_relaxed);
      row.reserved_then_ns.store(then.reserved_ns, std::memory_order_relaxed);
    }
  }
  publish_signals(node);
  publish_load(node);
  return true;
}

/// Everybody's credit at a time.
Credit Fleet::own_then(NodeId node, base::TimeNs at_ns) const noexcept {
  Credit then;
  for (std::uint64_t left = columns_.header().alive.load(std::memory_order_acquire); left != 0; left &= left - 1) {
    const auto& cell = columns_.cell(static_cast<std::uint32_t>(std::countr_zero(left)), node.value);
    const auto reading = cell.read(at_ns, signal_tries, [] { std::this_thread::yield(); });
    then.inflight += reading.total.inflight - reading.since.inflight;
    then.reserved_ns += reading.total.reserved_ns - reading.since.reserved_ns;
  }
  return then;
}

std::int64_t Fleet::credit_ns(double service_s) noexcept {
  constexpr double most_s = 1e6;  // 9,000 of them fit
  return service_s > 0.0 ? base::to_ns(std::min(service_s, most_s)) : 0;
}

void Fleet::change_credit(NodeId node, const Credit& by, base::TimeNs now_ns) noexcept {
  auto& cell = columns_.cell(process_.load(std::memory_order_relaxed), node.value);
  cell.add(by, now_ns);
  // What was reserved in a slot that is another's now is gone: its release takes nothing from what came after.
  if (columns_.is_shared() && by.inflight < 0 && cell.total().inflight < 0)
    cell.add({std::min(-by.inflight, -cell.total().inflight), -by.reserved_ns}, now_ns);
  publish_load(node);
  beat_if_due(now_ns);
}

void Fleet::reserve(NodeId node, double service_s, base::TimeNs now_ns) noexcept {
  change_credit(node, {1, credit_ns(service_s)}, now_ns);
}

void Fleet::release(NodeId node, double service_s, base::TimeNs now_ns) noexcept {
  change_credit(node, {-1, -credit_ns(service_s)}, now_ns);
}

void Fleet::read(NodeId node, Credit& own, Signal& last) const noexcept {
  const std::lock_guard hold(columns_.signal_lock(node.value));
  own = own_of(node);
  last = columns_.row(node.value).last;
}

}  // namespace infcore::route
