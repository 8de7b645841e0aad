// The processes of a shared fleet: who has which slot, whose heart beats, whose credit counts.
#include <infcore/base/errors.hpp>
#include <infcore/base/fork.hpp>
#include <infcore/route/fleet.hpp>

#include <bit>

namespace infcore::route {
namespace {

using contracts::FleetColumns;

/// Beats in the time after which a silent process counts as dead: some may be late.
constexpr base::TimeNs beats_per_life = 4;

std::uint64_t process_bit(std::uint32_t process) noexcept { return std::uint64_t{1} << process; }

}  // namespace

Fleet::Fleet(const std::string& shared, std::uint32_t max_nodes, std::uint32_t max_models, base::TimeNs heartbeat_ns,
             base::TimeNs now_ns)
    : columns_(shared, max_nodes, max_models, heartbeat_ns),
      specs_(max_nodes),
      built_under_(base::fork_generation()),
      known_born_(max_nodes) {
  models_.reserve(max_models);
  columns_.settle();
  const Hold hold(*this);
  enter(now_ns);
}

Fleet::~Fleet() {
  if (!columns_.is_shared() || token_.load(std::memory_order_relaxed) == 0 || built_under_ != base::fork_generation())
    return;
  const Hold hold(*this);
  const std::uint32_t process = process_.load(std::memory_order_relaxed);
  if (columns_.header().processes[process].token.load(std::memory_order_relaxed) ==
      token_.load(std::memory_order_relaxed))
    set_alive(process, false);
}

/// Takes a slot: one that none ever had, else that of whoever has been dead longest.
void Fleet::enter(base::TimeNs now_ns) {
  auto& header = columns_.header();
  const std::uint64_t alive = header.alive.load(std::memory_order_relaxed);
  std::uint32_t best = FleetColumns::processes_max;
  for (std::uint32_t i = 0; i < FleetColumns::processes_max; ++i) {
    if ((alive & process_bit(i)) != 0) continue;
    const auto& slot = header.processes[i];
    if (slot.token.load(std::memory_order_relaxed) == 0) {
      best = i;
      break;
    }
    if (best == FleetColumns::processes_max ||
        slot.beat_ns.load(std::memory_order_relaxed) < header.processes[best].beat_ns.load(std::memory_order_relaxed))
      best = i;
  }
  if (best == FleetColumns::processes_max)
    throw InvalidArgument("shared", "open in " + std::to_string(best) + " processes", "at most that many");
  auto& slot = header.processes[best];
  if (slot.token.load(std::memory_order_relaxed) != 0)
    for (std::uint32_t node = 0; node < n_nodes(); ++node) columns_.cell(best, node).clear();
  const std::uint64_t token = ++header.last_token;
  slot.beat_ns.store(now_ns, std::memory_order_relaxed);
  slot.token.store(token, std::memory_order_release);
  process_.store(best, std::memory_order_relaxed);
  token_.store(token, std::memory_order_relaxed);
  next_beat_ns_.store(now_ns, std::memory_order_relaxed);
  set_alive(process_, true);
}

/// A process's credit counts, or no longer does: figures of the nodes where it holds any are made anew.
void Fleet::set_alive(std::uint32_t process, bool on) noexcept {
  auto& alive = columns_.header().alive;
  // release: with its bit a process's cells, cleared before, are seen; put_latest orders what is published after.
  on ? alive.fetch_or(process_bit(process), std::memory_order_acq_rel)
     : alive.fetch_and(~process_bit(process), std::memory_order_acq_rel);
  for (NodeId node{0}; node.value < n_nodes(); ++node.value) {
    const contracts::Credit held = columns_.cell(process, node.value).total();
    if (held.inflight != 0 || held.reserved_ns != 0) publish_load(node);
  }
}

void Fleet::beat(base::TimeNs now_ns) noexcept {
  if (!columns_.is_shared()) return;
  auto& header = columns_.header();
  next_beat_ns_.store(now_ns + header.heartbeat_ns / beats_per_life, std::memory_order_relaxed);
  const auto is_ours = [&](std::uint32_t process) {
    return header.processes[process].token.load(std::memory_order_acquire) == token_.load(std::memory_order_relaxed);
  };
  const auto is_silent = [&](std::uint32_t process) {
    return now_ns - header.processes[process].beat_ns.load(std::memory_order_relaxed) > header.heartbeat_ns;
  };
  const std::uint32_t process = process_.load(std::memory_order_relaxed);
  if (is_ours(process)) header.processes[process].beat_ns.store(now_ns, std::memory_order_relaxed);
  const std::uint64_t alive = header.alive.load(std::memory_order_acquire);
  bool any = !is_ours(process) || (alive & process_bit(process)) == 0;
  for (std::uint64_t left = alive & ~process_bit(process); left != 0 && !any; left &= left - 1)
    any = is_silent(static_cast<std::uint32_t>(std::countr_zero(left)));
  if (any) look_around(now_ns, is_ours, is_silent);
}

template <class IsOurs, class IsSilent>
void Fleet::look_around(base::TimeNs now_ns, IsOurs is_ours, IsSilent is_silent) noexcept {
  const auto& header = columns_.header();
  const Hold hold(*this);
  for (std::uint64_t left = header.alive.load(std::memory_order_relaxed); left != 0; left &= left - 1) {
    const auto process = static_cast<std::uint32_t>(std::countr_zero(left));
    if (is_silent(process)) set_alive(process, false);
  }
  const std::uint32_t process = process_.load(std::memory_order_relaxed);
  if (!is_ours(process)) {
    enter(now_ns);  // somebody took us for dead, and another process has the slot
  } else if ((header.alive.load(std::memory_order_relaxed) & process_bit(process)) == 0) {
    set_alive(process, true);  // our credit was kept
  }
}

std::uint32_t Fleet::n_processes() const noexcept {
  return static_cast<std::uint32_t>(std::popcount(columns_.header().alive.load(std::memory_order_acquire)));
}

}  // namespace infcore::route
