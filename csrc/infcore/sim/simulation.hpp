#pragma once
#include <infcore/engine/state_machine.hpp>
#include <infcore/engine/timers.hpp>
#include <infcore/sim/arrivals.hpp>
#include <infcore/sim/ledger.hpp>
#include <infcore/sim/modelled_node.hpp>
#include <infcore/sim/request_log.hpp>
#include <infcore/sim/token_node.hpp>

#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <vector>

namespace infcore::sim {

/// Why run() came back.
enum class Pause : std::uint8_t { steps, rows, log, end };

/// A fault that came or went, for the report.
struct FaultEvent {
  TimeNs at_ns{};
  std::uint32_t node{};
  FaultKind kind{};
  bool begins{};
};

/// The engine's own state machine, router, batching and queues in a made-up world: modelled devices, a virtual clock,
/// drawn or recorded arrivals, faults. Nothing here decides; it hands the machine events and carries out its actions,
/// as engine::Driver does live. Under the name "clairvoyant" it runs no policy but what none can do better.
///
/// Deterministic: the same configuration and rows give the same digest, on every machine. Memory is bounded by nodes,
/// models, max_requests and the sessions under way, not by the number of requests. One thread at a time.
class Simulation {
 public:
  /// Throws InvalidArgument or UnknownName for what the core refuses.
  Simulation(const SimConfig& config, bool with_rows, bool with_log);

  /// Goes on for at most `steps_max` events. `rows`: feed() or close_rows() first; `log`: lines() are to be taken.
  Pause run(std::uint64_t steps_max);
  void feed(std::span<const Arrival> rows, std::span<const std::uint64_t> names) { rows_->feed(rows, names); }
  void close_rows() noexcept { rows_->close(); }
  [[nodiscard]] RequestLog& log() noexcept { return *log_; }

  [[nodiscard]] const Ledger& ledger() const noexcept { return ledger_; }
  [[nodiscard]] TimeNs now_ns() const noexcept { return now_ns_; }
  [[nodiscard]] std::uint64_t n_requests() const noexcept { return n_arrived_; }
  [[nodiscard]] std::uint64_t n_steps() const noexcept { return n_steps_; }
  /// Of every decision and every end, in order.
  [[nodiscard]] std::uint64_t digest() const noexcept { return digest_; }
  /// Accepted and never ended, ended more than once; broken invariants, the first in words.
  [[nodiscard]] std::uint64_t n_lost() const noexcept { return n_open_; }
  [[nodiscard]] std::uint64_t n_duplicated() const noexcept { return n_duplicated_; }
  [[nodiscard]] std::uint64_t n_violations() const noexcept { return n_violations_; }
  [[nodiscard]] const std::string& first_violation() const noexcept { return first_violation_; }
  [[nodiscard]] const std::vector<FaultEvent>& fault_events() const noexcept { return fault_events_; }
  [[nodiscard]] std::uint64_t n_faults() const noexcept { return n_faults_; }
  [[nodiscard]] TokenNode::Totals token_totals() const noexcept;
  /// Of the machine's own: what no end of a request tells.
  [[nodiscard]] engine::Outcomes second_runs() const noexcept;
  /// Under "clairvoyant": the least that the requests after the warm-up could have cost.
  [[nodiscard]] double bound_cost_usd() const noexcept { return bound_cost_usd_; }

 private:
  static constexpr std::uint32_t plans_owner = 0, rows_owner = 1, first_stream_owner = 2;  ///< in the agenda
  enum class Do : std::uint8_t {
    fault_begins,
    fault_ends,
    model_loaded,  ///< at the start, or after a crash
    load_ends,     ///< that the engine asked for
    take_for_lost,
    probe,
    signals,
    signals_arrive,
    antagonist
  };
  struct Plan {
    TimeNs at_ns{};
    std::uint64_t order{};
    std::uint32_t index{};  ///< of the fault, model or antagonist
    std::uint32_t node{};
    std::uint32_t crashes{};  ///< of the node when this was planned
    Do what{};
    bool operator<(const Plan& other) const noexcept {  // for a heap with the earliest on top
      return at_ns != other.at_ns ? at_ns > other.at_ns : order > other.order;
    }
  };
  struct Open {
    Arrival arrival{};
    std::vector<std::uint64_t> recorded{};  ///< names of its prompt's blocks in a trace
    std::vector<std::uint64_t> blocks{};    ///< and as caches have them
    engine::RequestHandle handle{};
    std::uint64_t number{};
    std::uint32_t generation{}, node{base::no_node.value}, attempts{};
    bool open{};
    bool hedged{};          ///< since it was dispatched last
    engine::Reason form{};  ///< in which it was served, where that is not as it came
  };
  struct FloorCurve {
    std::uint32_t service, node;  ///< the lowest such node; of a token model: index into token_services
    double rtt_s, slot_price_per_hour;
  };
  /// The least seconds that a request could take, where that is, and the least that it could cost.
  struct Floor {
    double latency_s, cost_usd;
    std::uint32_t node;
    double ttft_s{};  ///< likewise, until a first token
  };
  /// A run on a token node: its request, which may have gone elsewhere meanwhile, and what became of it there.
  struct TokenRun {
    engine::RequestHandle handle{};
    TimeNs arrival_ns{};
    TimeNs first_ns{};  ///< of its first token's answer; 0: none yet
    std::uint32_t n_cached{};
    bool expired{};
  };
  /// A token node with what is on its way there.
  struct TokenLine {
    struct Incoming {
      TimeNs at_ns;
      std::uint32_t run;
    };
    TokenNode device;
    std::queue<Incoming> incoming{};
    double warmup_s{};  ///< that its next step takes longer
  };
  struct LateSignal {
    TimeNs at_ns;
    std::uint32_t node;
    contracts::Signal signal;
  };

  // simulation.cpp
  void add_nodes();
  void add_node(std::uint32_t node);
  void find_floors();
  [[nodiscard]] Floor floor_of(const Arrival& arrival) const noexcept;
  void step(std::uint32_t owner);
  void arrive(const Arrival& arrival);
  void arrive_at_floor(const Arrival& arrival);
  void settle();
  void carry_out(const engine::Action& action);
  void end(const engine::Action& action, Outcome outcome);
  void call_nodes();
  void claim(NodeId node);
  void start_run(NodeId node, const engine::Batch& batch);
  void set_run(std::uint32_t run, TimeNs at_ns) { agenda_.move(first_run_owner_ + run, at_ns); }
  static void draw_failure(ModelledNode& node, Run& run) noexcept;
  void run_done(std::uint32_t run);
  void close_run(std::uint32_t run, TimeNs end_ns) noexcept;
  void note(std::uint64_t what) noexcept { digest_ = (digest_ ^ what) * 0x0000'0100'0000'01B3u; }  // FNV-1a's step

  // invariants.cpp
  void check_nobody_waits_for_ever();
  void violated(const char* what, const engine::Action& action);
  void check(const engine::Action& action);

  // token_lines.cpp
  void add_token_line(std::uint32_t node);
  void start_sequence(std::uint32_t node, std::uint32_t run, const engine::Batch& batch);
  void token_event(std::uint32_t node);
  void end_token_step(std::uint32_t node);
  void set_token_timer(std::uint32_t node);
  void crash_tokens(std::uint32_t node);
  void resume_tokens(std::uint32_t node);
  void tokens_reachable_again(std::uint32_t node);
  void end_sequence(std::uint32_t run);
  void tell_prompt(Open& open, contracts::Request& request);
  [[nodiscard]] Floor token_floor_of(std::uint32_t workload, const TokenWork& work) const noexcept;

  // disturbances.cpp
  void plan(TimeNs at_ns, Do what, std::uint32_t index = 0, std::uint32_t node = 0);
  void plan_disturbances();
  void carry_out(const Plan& plan);
  void begin_fault(std::uint32_t fault, std::uint32_t node);
  void end_fault(std::uint32_t fault, std::uint32_t node);
  void combine_faults(std::uint32_t node);
  void crash(std::uint32_t node);
  void load_models(std::uint32_t node);
  void begin_load(const engine::Action& action);
  void end_load(std::uint32_t node);
  void check_memory(const engine::Action& action);
  [[nodiscard]] bool idle(std::uint32_t node) const noexcept;
  [[nodiscard]] bool may_change() const noexcept;
  void resume_runs(std::uint32_t node);
  void reachable_again(std::uint32_t node);
  void probe();
  void send_signals();
  void take_signals();
  void plan_random(std::uint32_t fault, std::uint32_t node, TimeNs from_ns);
  void switch_antagonist(std::uint32_t index);

  SimConfig config_;
  route::Fleet fleet_;
  contracts::LatencyTable latency_;
  engine::StateMachine machine_;
  Ledger ledger_;
  std::optional<RequestLog> log_;
  std::optional<RowStream> rows_;
  std::span<const std::uint64_t> recorded_{};  ///< of the row that arrives
  std::vector<ArrivalStream> streams_;
  std::vector<ModelId> model_ids_;               ///< the fleet's, by ours
  std::vector<ModelId> model_index_;             ///< and back
  std::vector<std::uint64_t> require_bits_;      ///< by workload
  std::vector<std::vector<FloorCurve>> floors_;  ///< by workload
  std::vector<std::int64_t> prompt_scratch_;
  std::vector<ModelledNode> nodes_;
  std::vector<Run> runs_;
  std::vector<std::uint32_t> node_of_run_;
  std::vector<std::unique_ptr<TokenLine>> token_lines_;  ///< by node; empty: it runs whole batches
  std::vector<TokenRun> token_runs_;                     ///< by run; empty where no node makes tokens
  engine::Timers agenda_;  ///< owners: plans, rows, the workloads, the runs, the nodes that wake up for a batch, the
                           ///< nodes that make tokens
  std::uint32_t first_run_owner_, first_wake_owner_, first_token_owner_;
  std::priority_queue<Plan> plans_;
  std::uint64_t n_plans_{};
  std::vector<Open> opens_;
  std::vector<std::uint32_t> free_opens_;
  std::vector<NodeId> called_;
  NodeId awake_{base::no_node};  ///< whose run has just ended: it takes its next batch at once
  TimeNs handoff_ns_, answer_ns_;

  std::vector<FaultConfig> faults_;  ///< the scripted ones, then what each of the random ones does
  std::vector<std::pair<std::uint32_t, std::uint32_t>> active_faults_;  ///< which of them is on, on which node
  base::Draw random_faults_, signal_draw_, antagonist_draw_;
  std::vector<std::uint8_t> antagonist_on_;
  std::queue<LateSignal> late_signals_;
  std::vector<FaultEvent> fault_events_;

  TimeNs now_ns_{}, arrivals_end_ns_{};
  std::uint64_t n_arrived_{}, n_steps_{}, n_open_{}, n_duplicated_{}, n_violations_{}, n_faults_{};
  std::uint64_t digest_{0xCBF2'9CE4'8422'2325u};
  std::optional<Run> ending_{};  ///< whose answer is being taken: when its requests began
  TokenRun ending_tokens_{};
  std::string first_violation_;
  bool bound_only_;
  double bound_cost_usd_{};
};

}  // namespace infcore::sim
