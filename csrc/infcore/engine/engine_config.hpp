#pragma once
#include <infcore/base/ids.hpp>
#include <infcore/contracts/node_health.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace infcore::engine {

using base::ModelId;
using base::TimeNs;

using base::no_model;

struct EngineConfig {
  std::uint32_t max_requests{8192};  ///< accepted and not yet ended
  std::uint32_t max_nodes{1024};
  std::uint32_t max_models{256};
  std::uint16_t n_tiers{8};
  TimeNs ageing_ns{base::never_ns};
  std::uint8_t attempts_max{3};  ///< times that one request is run, first one included, when devices are lost
  bool stage_histograms{true};   ///< false: Stats holds counts alone
  // The door.
  std::vector<std::string> admission{};        ///< policies, in the order in which they are asked
  TimeNs overload_wait_ns{base::never_ns};     ///< a wait that counts as overload; never_ns: by batches and deadlines
  std::vector<std::uint32_t> tier_capacity{};  ///< accepted and not yet ended, by tier; empty: not bounded
  bool shed_lowest{};                          ///< full, the least urgent that waits is given up for a more urgent one
  // What goes wrong (hedging.cpp).
  double hedge_quantile{};    ///< of how late batches are: one later than that is hedged; 0: none is
  double hedge_budget{0.05};  ///< copies, as a share of requests
  double retry_budget{0.2};   ///< runs that are done again in vain, likewise; CountedBudget::unbounded
  /// Eviction policy by which the engine itself decides which models are loaded where, and what goes for them; empty:
  /// they are where the driver says.
  std::string residency{};
  bool log_terms{};      ///< terms() says what the node of each dispatch and hedge cost
  bool judges_health{};  ///< false: nodes go and come only as the driver says
  contracts::HealthConfig health{};
};

struct ModelConfig {
  std::uint32_t max_batch_size{64};
  TimeNs batch_delay_ns_max{2'000'000};
  bool idempotent{true};  ///< may be run again after a device failed or was lost
  /// A node's slots share it: what runs beside a request makes it slower, as in continuous batching. Its latency model
  /// is about all that runs there; max_batch_size is 1.
  bool runs_share{};
  ModelId fallback{no_model};  ///< who answers in its place under load; takes the same inputs
  /// Ascending upper ends of work: where the curve does not say what padding costs, a batch keeps to one of the ranges.
  std::vector<double> length_buckets{};
  /// Ascending: a batch that is not pressed for time is cut down to the largest of them.
  std::vector<std::uint32_t> preferred_batch_sizes{};

  std::uint64_t weights_bytes{};  ///< of a node's memory
  double load_s{};                ///< to load it, until that was measured; 0: not known

  static constexpr std::size_t n_listed_max = 64;  ///< of either of the lists
};

struct NodeConfig {
  TimeNs run_limit_ns{base::never_ns};  ///< a batch that runs longer marks the node lost
  std::uint32_t kv_blocks{};            ///< of a token node's cache; 0: none, or not known
  bool loads_beside_runs{};             ///< loading a model there and running batches do not wait for each other
};

}  // namespace infcore::engine
