#pragma once
#include <infcore/sim/config.hpp>
#include <infcore/sim/prompt_draw.hpp>
#include <infcore/telemetry/histogram.hpp>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace infcore::sim {

enum class Outcome : std::uint8_t { ok, rejected, expired, shed, failed, cancelled };
inline constexpr std::size_t n_outcomes = 6;

/// A request and how it ended.
struct Ended {
  std::uint64_t number{};
  TimeNs arrival_ns{}, deadline_ns{}, start_ns{}, end_ns{};  ///< never_ns: no deadline; start 0 where it never ran
  double work{};
  double floor_s{};  ///< the least that it could have taken: alone, at once, on its fastest node
  std::uint32_t workload{}, node{base::no_node.value}, batch_size{}, attempts{};
  ModelId model{};
  std::uint16_t tier{};
  std::uint64_t session{};
  TokenWork tokens{};        ///< output 0: of a model that makes none
  TimeNs first_token_ns{};   ///< when it was answered; of token requests that ended ok
  std::uint32_t n_cached{};  ///< of its prompt's tokens, found in its node's cache
  Outcome outcome{};
  engine::Reason reason{}, form{};  ///< why it ended so; in which form it was served, where not as it came
  double hint_s{};                  ///< Action::hint_s
};

/// Of token requests: those that ended ok, and for itl_s each token but the first, whatever became of its request.
struct TokenFigures {
  telemetry::Histogram ttft_s{1e-7, 1e9}, itl_s{1e-7, 1e9};
  double ttft_sum_s{}, itl_sum_s{};
  std::uint64_t prompt_tokens{}, cached_tokens{}, output_tokens{};
};

/// What a run's figures are made of, for all requests, a model's or a tier's.
struct Totals {
  std::uint64_t arrivals{}, within_slo{};
  std::array<std::uint64_t, n_outcomes> outcomes{};
  /// Of those that ended ok. Under a virtual clock some take days: what is beyond the range would count as its bound.
  telemetry::Histogram latency_s{1e-7, 1e9}, wait_s{1e-7, 1e9}, regret_s{1e-7, 1e9};
  double work{}, latency_sum_s{};
  std::unique_ptr<TokenFigures> tokens{};  ///< none where no model makes tokens
  std::array<std::uint64_t, engine::reason_names.size()> reasons{}, forms{};
};

/// A node's use: seconds and requests, and how busy it was in each of a number of equal parts of the run.
struct NodeUse {
  double busy_s{};
  std::uint64_t requests{}, batches{}, faults{};
  std::uint64_t loads{};  ///< that the engine asked for, after the warm-up
  std::vector<float> busy_part_s{};
};

/// Figures of a run. Those of requests leave out arrivals before the warm-up's end. Memory does not grow with the
/// number of requests.
class Ledger {
 public:
  static constexpr std::uint32_t n_parts = 120;

  explicit Ledger(const SimConfig& config);

  void ended(const Ended& e) noexcept;
  /// A batch, on so many of the node's slots: one, or all of them where it runs a step of all its sequences.
  void ran(std::uint32_t node, TimeNs start_ns, TimeNs end_ns, std::uint32_t n_requests,
           std::uint32_t n_slots = 1) noexcept;
  /// The node was told to load a model.
  void loaded(std::uint32_t node, TimeNs at_ns) noexcept { nodes_[node].loads += at_ns >= warmup_ns_ ? 1 : 0; }
  /// A token so long after the one before it, of a request that came at `arrival_ns`.
  void token_after(ModelId model, TimeNs arrival_ns, TimeNs gap_ns) noexcept;

  [[nodiscard]] const Totals& all() const noexcept { return *all_; }
  /// Of all models with ModelConfig::figures of that number.
  [[nodiscard]] const Totals& models(std::uint32_t figures) const noexcept { return *models_[figures]; }
  [[nodiscard]] std::uint32_t n_figures() const noexcept { return static_cast<std::uint32_t>(models_.size()); }
  [[nodiscard]] const std::vector<NodeUse>& nodes() const noexcept { return nodes_; }
  [[nodiscard]] NodeUse& node(std::uint32_t node) noexcept { return nodes_[node]; }
  /// Of all requests, warm-up or not, by arrival in each part of the run: arrivals, and those inside their goal.
  struct Part {
    std::uint64_t arrivals{}, within_slo{}, ok{};
    double latency_sum_s{}, latency_max_s{};
  };
  [[nodiscard]] const std::vector<Part>& parts() const noexcept { return parts_; }
  [[nodiscard]] double part_s() const noexcept { return part_s_; }
  [[nodiscard]] TimeNs last_ok_ns() const noexcept { return last_ok_ns_; }
  /// When the last run ended, answered or not.
  [[nodiscard]] TimeNs last_run_ns() const noexcept { return last_run_ns_; }

 private:
  struct Goals {
    TimeNs latency_ns{};  ///< 0: its deadline
    TimeNs ttft_ns{}, itl_ns{};
  };
  [[nodiscard]] bool in_time(const Ended& e) const noexcept;
  static void add(Totals& to, const Ended& e, bool within) noexcept;
  static void add_tokens(TokenFigures& to, const Ended& e) noexcept;

  std::vector<Goals> goals_;            ///< by model
  std::vector<std::uint32_t> figures_;  ///< likewise, where its totals are
  TimeNs warmup_ns_;
  double part_s_;
  std::unique_ptr<Totals> all_;
  std::vector<std::unique_ptr<Totals>> models_;
  std::vector<NodeUse> nodes_;
  std::vector<Part> parts_;
  TimeNs last_ok_ns_{}, last_run_ns_{};
};

}  // namespace infcore::sim
