#pragma once
#include <infcore/engine/digest.hpp>
#include <infcore/engine/state_machine.hpp>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>

namespace infcore::engine {

/// The event log: everything that a state machine was told, in order, with what it decided. All numbers are little
/// endian.
///
///   file    magic[8], u32 format version, u32 action_list_version, then blocks
///   block   u32 bytes of the body, u64 checksum of it (block_checksum), body: whole records
///   record  u8 kind, then its fields. v: unsigned LEB128; s: zigzag, LEB128; f: 8 bytes IEEE 754; g: 4 bytes IEEE 754;
///           t: v bytes of UTF-8
///
/// Where a field says "now", it is s, the difference from the last record that had one; request numbers and batch ids
/// are s too, against the last request or batch named. Requests are numbered from 1 as they arrive. Nodes, models and
/// labels are the fleet's numbers; `model` and `label` records name them in order, before their first use.
inline constexpr std::array<char, 8> event_log_magic{'i', 'n', 'f', 'c', 'l', 'o', 'g', '\n'};
inline constexpr std::uint32_t event_format_version = 6;
inline constexpr std::size_t event_file_header_bytes = 16, event_block_header_bytes = 12;
/// Bounds that a reader may rely on: what a log says does not make it take unbounded memory.
inline constexpr std::uint32_t event_block_bytes_max = 1u << 24;
inline constexpr std::uint32_t event_text_bytes_max = 1u << 16;
inline constexpr std::uint32_t event_requests_max = 1u << 24;
inline constexpr std::uint32_t event_ids_max = 1u << 20;
inline constexpr std::uint32_t event_policies_max = 64;
/// Of a model's weights, and seconds of a load.
inline constexpr std::uint64_t event_bytes_max = 1ull << 62;
inline constexpr double event_load_s_max = 1e6;
inline constexpr std::uint32_t event_blocks_max = 1u << 18;  ///< of a prompt
/// Nodes x models: the fleet keeps a bit of each pair.
inline constexpr std::uint64_t event_pairs_max = 1ull << 30;
/// Times lie within 146 years of the clock's zero, so that their differences fit.
inline constexpr TimeNs event_time_max = (TimeNs{1} << 62) - 1;

enum class EventKind : std::uint8_t {
  /// v max_requests, max_nodes, max_models, n_tiers; s ageing_ns; v attempts_max; t policy, batching; 8 bytes seed;
  /// v n options; n x (t name, v kind, f or t or v n texts, n x t);
  /// v n, n x t admission; s overload_wait_ns; v n, n x v tier_capacity; v shed_lowest; f hedge_quantile, hedge_budget;
  /// v whether retries are bounded | log_terms * 2; f retry_budget, where they are; v judges_health, and if so
  /// v errors_in_a_row, probes; f error_rate, slow_factor, ejected_share_max; s eject_ns, eject_ns_max, forgive_ns,
  /// slow_start_ns, forget_ns;
  /// t residency
  run = 1,
  model,  ///< t name; v version. Its number is how many came before
  label,  ///< t key, value. Its bit is how many came before
  /// v model, max_batch_size; s batch_delay_ns_max; v idempotent | runs_share * 2, fallback + 1 (0: none); v n length
  /// buckets; n x f; v
  /// n preferred sizes; n x v; v weights_bytes; f load_s
  add_model,
  remove_model,  ///< now; v model
  /// v node; s run_limit_ns; t name, kind, zone, location; v memory_bytes; f price_per_hour, rtt_s; v slots,
  /// pending_max, kv_blocks, loads_beside_runs, n labels; n x t key, value
  add_node,
  residency,    ///< now; v node, n; n x v model: all versions that it holds from here on
  drain_node,   ///< now; v node
  remove_node,  ///< now; v node
  node_lost,    ///< now; v node
  node_back,    ///< now; v node
  prior,        ///< v model, node; 4 f
  signal,       ///< v node; s as_of_ns; v mask of the figures given, in Signal's order; f each
  /// now; v model; u8 ArriveFlag; s now - arrival; if flagged: s deadline - arrival, work, v tier, v require,
  /// v tenant, v defer_ns
  arrive,
  cancel,       ///< now; s request; v reason
  cancel_all,   ///< now; v reason
  claim,        ///< now; v node; s batch, against the last; batch 0: nothing was left of it
  started,      ///< now; v node; s batch
  complete,     ///< now; v node; s batch; v ok
  tick,         ///< now
  schedule,     ///< now
  first_token,  ///< now; v node; s batch
  progress,     ///< now; v node
  node_failed,  ///< now; v node
  end,          ///< v requests, actions, records before this one. Nothing follows
  prompt,       ///< v session, prompt_tokens, block_size, n; n x 8 bytes: blocks. Of the arrival that comes next
  checked,      ///< now; v node; v ok: what a check of the node itself found
  may_hold,     ///< now; v node; v model, whether it may
  loaded        ///< now; v node; v model, ok; f load_s
};
inline constexpr std::uint8_t event_kind_max = static_cast<std::uint8_t>(EventKind::loaded);

/// An action's record: u8 action_record | ActionKind, u8 Reason, s request (of load and unload: 0), s batch, v node + 1
/// (0: none), v member (of load and unload: the model);
/// where the run has log_terms, of dispatch and hedge: g each of cost_terms.
inline constexpr std::uint8_t action_record = 0x40;

enum ArriveFlag : std::uint8_t {
  arrive_deadline = 1,    ///< there is one
  arrive_work_whole = 2,  ///< work is v; neither flag: 1
  arrive_work_real = 4,   ///< work is f
  arrive_cached = 6,      ///< both: answered from the cache, and its work is not written
  arrive_tier = 8,        ///< not 0
  arrive_require = 16,    ///< not 0
  arrive_tenant = 32,     ///< not 0
  arrive_stale = 64,      ///< an answer from before is at hand
  arrive_defer = 128      ///< may be put off
};

/// In the order of their bits in a signal record's mask.
inline constexpr std::array<double contracts::Signal::*, 9> signal_figures{
    &contracts::Signal::queue_depth, &contracts::Signal::inflight,     &contracts::Signal::cpu,
    &contracts::Signal::gpu,         &contracts::Signal::memory,       &contracts::Signal::network,
    &contracts::Signal::packet_loss, &contracts::Signal::queue_wait_s, &contracts::Signal::error_rate};

/// Of what the chosen node cost the request, in the order in which they are written; microseconds.
inline constexpr std::array<double route::CostTerms::*, 10> cost_terms{
    &route::CostTerms::wait_us,  &route::CostTerms::service_us, &route::CostTerms::pressure_us,
    &route::CostTerms::load_us,  &route::CostTerms::network_us, &route::CostTerms::saving_us,
    &route::CostTerms::price_us, &route::CostTerms::risk_us,    &route::CostTerms::explore_us,
    &route::CostTerms::cost_us};
inline constexpr std::array<const char*, cost_terms.size()> cost_term_names{
    "wait", "service", "pressure", "load", "network", "saving", "price", "risk", "explore", "cost"};

/// Whether an action's record has them, in a run that logs them.
[[nodiscard]] constexpr bool has_terms(ActionKind kind) noexcept {
  return kind == ActionKind::dispatch || kind == ActionKind::hedge;
}

[[nodiscard]] constexpr std::uint64_t zigzag(std::uint64_t difference) noexcept {
  return (difference << 1) ^ (difference >> 63 != 0 ? ~std::uint64_t{0} : 0);
}
[[nodiscard]] constexpr std::uint64_t unzigzag(std::uint64_t coded) noexcept {
  return (coded >> 1) ^ ((coded & 1) != 0 ? ~std::uint64_t{0} : 0);
}

[[nodiscard]] inline std::uint64_t load_le(const std::uint8_t* from, unsigned n_bytes) noexcept {
  std::uint64_t word = 0;
  for (unsigned i = 0; i < n_bytes; ++i) word |= std::uint64_t{from[i]} << (8 * i);
  return word;
}

inline void store_le(std::uint8_t* to, std::uint64_t word, unsigned n_bytes) noexcept {
  for (unsigned i = 0; i < n_bytes; ++i) to[i] = static_cast<std::uint8_t>(word >> (8 * i));
}

/// Begins with the block's place in the file, so that blocks that were swapped or left out are found, too.
[[nodiscard]] inline std::uint64_t block_checksum(std::uint64_t index, const std::uint8_t* body,
                                                  std::size_t n_bytes) noexcept {
  Digest digest(index);
  digest.add(n_bytes);
  std::size_t at = 0;
  for (; at + 8 <= n_bytes; at += 8) digest.add(load_le(body + at, 8));
  digest.add(load_le(body + at, static_cast<unsigned>(n_bytes - at)));
  return digest.value();
}

}  // namespace infcore::engine
