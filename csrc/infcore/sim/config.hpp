#pragma once
#include <infcore/contracts/latency.hpp>
#include <infcore/contracts/token_curve.hpp>
#include <infcore/engine/state_machine.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace infcore::sim {

using base::ModelId;
using base::NodeId;
using base::TimeNs;

/// How much work a request is.
struct WorkDist {
  enum class Kind : std::uint8_t { constant, lognormal, exponential, uniform, gamma, pareto };
  Kind kind{Kind::constant};
  double mean{1.0}, cv{};
  double low{}, high{};                 ///< uniform
  double at_least{0.0}, at_most{1e15};  ///< what is drawn beyond is moved there
};

/// How a workload's rate changes: a factor over time, piecewise constant. Its mean over a period is 1, but for
/// flash_sale, where it is 1 outside the sale.
struct RateShape {
  enum class Kind : std::uint8_t { constant, onoff, diurnal, weekly, flash_sale };
  Kind kind{Kind::constant};
  double on_s{}, off_s{}, on_factor{1.0};              ///< onoff; the factor is on's rate over off's
  double period_s{86400.0}, peak_to_mean{1.0};         ///< diurnal, weekly
  double weekend_factor{1.0};                          ///< weekly: days 6 and 7 of seven periods, before scaling
  double at_s{}, ramp_s{}, for_s{}, peak_factor{1.0};  ///< flash_sale: up, at the peak, down
  double phase_s{};
};

/// What a token workload's prompts begin with alike.
struct PrefixConfig {
  std::uint32_t groups{};  ///< 0: nothing
  double share{};          ///< of the prompt, or else so many tokens
  std::uint32_t tokens{};
  double zipf{};  ///< popularity 1 / rank^zipf
};

struct WorkloadConfig {
  enum class Gaps : std::uint8_t { poisson, gamma, regular, rows };  ///< rows: what feed() brings
  ModelId model{};
  double rate_rps{};
  Gaps gaps{Gaps::poisson};
  double gap_cv{1.0};  ///< gamma
  RateShape rate{};
  WorkDist work{};
  std::uint16_t tier{};
  std::uint32_t tenant{};     ///< 0: nobody's in particular
  std::string tenant_name{};  ///< for the log
  double deadline_s{};        ///< 0: none
  double start_s{}, end_s{};
  route::Labels require{};
  double turns_mean{}, think_s_mean{};  ///< sessions; 0: none
  std::uint32_t context_tokens_max{};   ///< of a token model; 0: its model makes no tokens
  WorkDist prompt_tokens{}, output_tokens{};
  PrefixConfig prefix{};
  double defer_s{};      ///< how long requests may be put off
  double stale_share{};  ///< of them that have an answer from before
};

struct ModelConfig {
  std::string name;
  std::uint32_t figures{};       ///< models with the same number have their figures together; 0, 1, ...
  engine::ModelConfig engine{};  ///< its fallback is an index into SimConfig::models
  double slo_s{};                ///< 0: no goal
  double load_s{}, warmup_s{};   ///< as the engine's own load_s, which is what it is told
  bool tokens{};
  double slo_ttft_s{}, slo_itl_s{};  ///< 0: no goal
};

/// How long a model's batches take on a node.
struct Service {
  contracts::Curve curve{};
  double cv{};
};

/// How a token model's steps go on a node, and what KV blocks it has there.
struct TokenService {
  contracts::TokenCurve curve{};
  double cv{};
  std::uint32_t n_blocks{}, block_size{}, token_budget{}, max_running{}, host_blocks{};
  std::uint32_t context_tokens_max{};  ///< the model's
};

/// Whether a node holds a model: from the start, from the end of its loading on, or not at all. Where the engine
/// decides what is loaded where, `loads` says that it may.
enum class Residency : std::uint8_t { never, loads, holds };

struct NodeConfig {
  route::NodeSpec spec{};
  std::vector<std::int32_t> service{};  ///< by model: index into SimConfig::services, -1: does not run there
  std::vector<Residency> residency{};   ///< by model
  bool loads_beside_runs{true};
  std::int32_t token_service{-1};  ///< index into SimConfig::token_services, -1: it runs whole batches
};

enum class FaultKind : std::uint8_t { crash, slow, hang, errors, lost_completions, partition, freeze_signals };
inline constexpr std::size_t n_fault_kinds = 7;

struct FaultConfig {
  FaultKind kind{};
  double at_s{};
  double for_s{};  ///< 0: to the end
  double factor{1.0}, rate{};
  std::vector<std::uint32_t> nodes{};
};

struct RandomFaultConfig {
  FaultKind kind{};
  double rate_per_node_hour{};
  double for_s{};  ///< mean, exponential
  double factor{1.0}, rate{};
  std::vector<std::uint32_t> nodes{};
};

/// Other users of a node: while they are on, its runs take `factor` times as long.
struct AntagonistConfig {
  std::uint32_t node{};
  double factor{1.0}, on_s{}, off_s{};  ///< means, exponential
};

struct SimConfig {
  std::uint64_t seed{};
  double seconds{}, warmup_s{};
  std::string policy{"slo_cost"}, batching{"dynamic"};
  route::RoutingOptions policy_options{};
  std::uint32_t max_requests{65536};
  double ageing_s{};  ///< 0: none
  std::vector<std::string> admission{};
  double overload_wait_s{};  ///< 0: by batches and deadlines
  std::vector<std::uint32_t> tier_capacity{};
  bool shed_lowest{};
  std::uint8_t attempts_max{3};
  double hedge_quantile{}, hedge_budget{0.05}, retry_budget{0.2};  ///< as engine::EngineConfig has them
  bool judges_health{true};
  std::string residency{};  ///< as engine::EngineConfig has it
  std::uint16_t n_tiers{1};
  double run_limit_s{};  ///< 0: none
  double detect_s{1.0}, probe_s{1.0};
  double handoff_s{}, answer_s{};  ///< of a live engine's threads
  bool curves_known{};             ///< the engine is told every curve at the start
  double signal_period_s{}, signal_delay_s{}, signal_loss{};
  std::vector<ModelConfig> models{};
  std::vector<Service> services{};
  std::vector<TokenService> token_services{};
  std::vector<NodeConfig> nodes{};
  std::vector<WorkloadConfig> workloads{};
  std::vector<FaultConfig> faults{};
  std::vector<RandomFaultConfig> random_faults{};
  std::vector<AntagonistConfig> antagonists{};
};

}  // namespace infcore::sim
