#pragma once
#include <infcore/base/ids.hpp>
#include <infcore/batch/batching_policy.hpp>
#include <infcore/batch/length_groups.hpp>
#include <infcore/contracts/latency_table.hpp>
#include <infcore/contracts/node_health.hpp>
#include <infcore/contracts/request.hpp>
#include <infcore/engine/actions.hpp>
#include <infcore/engine/admission_state.hpp>
#include <infcore/engine/arrival_rate.hpp>
#include <infcore/engine/counted_budget.hpp>
#include <infcore/engine/engine_config.hpp>
#include <infcore/engine/finish_times.hpp>
#include <infcore/engine/hedging.hpp>
#include <infcore/engine/lateness.hpp>
#include <infcore/engine/node_batch.hpp>
#include <infcore/engine/residency.hpp>
#include <infcore/engine/stats.hpp>
#include <infcore/engine/timers.hpp>
#include <infcore/engine/token_choice.hpp>
#include <infcore/engine/turn_plan.hpp>
#include <infcore/queue/tiered_lane.hpp>
#include <infcore/route/fleet.hpp>
#include <infcore/route/route_view.hpp>
#include <infcore/route/routing_policy.hpp>

#include <algorithm>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace infcore::engine {

using base::NodeId;

/// Generation-tagged slot of an accepted request; 0 is none.
using RequestHandle = std::uint64_t;

/// The engine: events in, actions out, time handed in. One owner at a time; no thread, clock, lock or random source of
/// its own, so the live driver and the simulator run this very code. After events, the owner calls schedule() and
/// carries out actions(), which it then clears. Cost: an event O(log pending); schedule() a few passes over the nodes'
/// columns per lane that something happened to and that finds a free node, else O(1). Once what it keeps has grown to
/// what is pending, nothing allocates.
class StateMachine {
 public:
  StateMachine(const EngineConfig&, route::Fleet&, contracts::LatencyTable&, std::unique_ptr<route::RoutingPolicy>,
               std::unique_ptr<batch::BatchingPolicy>);

  // Membership. Ids come from the fleet.
  void add_model(ModelId, const ModelConfig&);
  /// What waits for it is rejected; what runs is answered.
  void remove_model(TimeNs now_ns, ModelId);
  void add_node(NodeId, const NodeConfig&);
  /// After Fleet::load_model / unload_model: requests may go there, or must leave.
  void residency_changed(TimeNs now_ns, NodeId);
  // Where the engine decides what is loaded where (EngineConfig::residency).
  /// The node can run the model, once it is loaded; or it must not any more, and what is there goes.
  void may_hold(TimeNs now_ns, NodeId, ModelId, bool may);
  /// The model will be asked for, somebody expects: it is loaded once nobody waits for a load.
  void preload(ModelId);
  /// The load that an action asked for is over. `load_s`: what it took alone. false: nobody asked for it any more.
  bool loaded(TimeNs now_ns, NodeId, ModelId, bool ok, double load_s);
  /// Nothing more is sent there; what was bound to it is bound anew. node_empty() says when it has run dry.
  void drain_node(TimeNs now_ns, NodeId);
  [[nodiscard]] bool node_empty(NodeId) const noexcept;
  /// Takes it out of the fleet, run dry or not: what it has not finished goes elsewhere as far as that may be.
  void remove_node(TimeNs now_ns, NodeId);

  // Events.
  RequestHandle arrive(TimeNs now_ns, const contracts::Request&);
  bool cancel(TimeNs now_ns, RequestHandle, Reason);
  void cancel_all(TimeNs now_ns, Reason);
  /// The node's worker is ready: its oldest open batch closes. nullptr: there is none (its members were cancelled).
  [[nodiscard]] const Batch* claim(TimeNs now_ns, NodeId);
  /// The inputs were copied and the run begins: from here on it can hang. On a node that was lost or removed meanwhile
  /// the batch is given up instead.
  void started(TimeNs now_ns, NodeId, std::uint64_t batch_id);
  /// false: the batch was given up before; nothing of it is used.
  bool complete(TimeNs now_ns, NodeId, std::uint64_t batch_id, bool ok);
  /// The first part of the batch's answer is there: a token model's first token. Counted once a request.
  void first_token(TimeNs now_ns, NodeId, std::uint64_t batch_id);
  /// A node that runs many requests in steps has done one: its run limit counts from here on.
  void progress(TimeNs now_ns, NodeId);
  /// Its batches go elsewhere; one whose inputs are being copied does so at started().
  void node_lost(TimeNs now_ns, NodeId);
  /// As node_lost(), but it answered: all that it runs has failed together. It is out until node_back().
  void node_failed(TimeNs now_ns, NodeId);
  void node_back(TimeNs now_ns, NodeId);
  /// Somebody asked the node itself how it is.
  void checked(TimeNs now_ns, NodeId, bool ok);
  void tick(TimeNs now_ns);

  void schedule(TimeNs now_ns);
  [[nodiscard]] bool has_work() const noexcept { return !dirty_.empty() || looks_for_loads_; }
  [[nodiscard]] TimeNs next_timer_ns() const noexcept {
    const TimeNs next_ns = std::min({timers_.next_ns(), door_.release.next_ns(), hedging_.looks.next_ns()});
    return health_ ? std::min(next_ns, health_->next_ns()) : next_ns;
  }
  [[nodiscard]] std::vector<Action>& actions() noexcept { return actions_; }
  /// With EngineConfig::log_terms: of each dispatch and hedge among actions(), in order. Cleared with them.
  [[nodiscard]] std::vector<route::CostTerms>& terms() noexcept { return terms_; }
  [[nodiscard]] bool has_open_batch(NodeId) const noexcept;

  [[nodiscard]] std::uint32_t n_pending() const noexcept { return n_pending_; }
  [[nodiscard]] const Stats* model_stats(ModelId id) const noexcept { return models_[id.value].stats.get(); }
  [[nodiscard]] const Stats* node_stats(NodeId id) const noexcept { return nodes_[id.value].stats.get(); }
  [[nodiscard]] contracts::HealthStatus health(NodeId node) const noexcept {
    return health_ ? health_->status(node) : contracts::HealthStatus{};
  }
  /// Whether somebody should ask the node how it is, and say so to checked(): what comes of it is in that alone.
  [[nodiscard]] bool wants_check(TimeNs now_ns, NodeId);
  [[nodiscard]] AdmissionFigures admission_figures(TimeNs now_ns, ModelId);
  [[nodiscard]] route::RoutingPolicy& routing() noexcept { return *routing_; }
  [[nodiscard]] std::uint32_t rung(ModelId model) const noexcept { return door_.models[model.value].ladder.rung(); }
  [[nodiscard]] std::uint32_t n_timers() const noexcept {
    return timers_.size() + door_.release.size() + hedging_.looks.size();
  }
  /// Whether requests of token models should say what their prompts hold.
  [[nodiscard]] bool reads_blocks() const noexcept { return routing_->reads_blocks(); }
  [[nodiscard]] double load_s(ModelId, double told_s) const noexcept;
  [[nodiscard]] std::uint32_t n_lanes() const noexcept { return static_cast<std::uint32_t>(lanes_.size()); }
  [[nodiscard]] std::uint64_t cookie(std::uint32_t slot) const noexcept { return slots_[slot].request.cookie; }

 private:
  enum class Where : std::uint8_t { free, put_off, waiting, in_batch };
  struct Slot {
    contracts::Request request{};
    std::uint32_t generation{1}, lane{};
    NodeId node{base::no_node};
    NodeId failed_on{base::no_node};  ///< where it last failed alone
    std::uint64_t batch_id{};
    TimeNs bound_ns{
        base::never_ns};  ///< when the policy gave it `node`; never_ns: device and batch are chosen together
    std::int64_t reserved_ns{};
    bool holds_credit{};  ///< reserved_ns, on `node`
    Where where{Where::free};
    std::uint8_t attempts{};
    bool solo{};     ///< runs alone: its batch failed, and one bad member must fail alone
    bool doomed{};   ///< cancelled while running
    bool charged{};  ///< its tenant was, for its work
    bool has_first_token{};
    Reason doomed_reason{};
    Reason entered_as{};  ///< why it did not enter as it came: cheaper, off_peak
    bool was_put_off{};
    TimeNs deferred_until_ns{};
    TokenChoice::Share share{};  ///< of a token request on its node
  };
  struct Lane {
    ModelId model{};
    std::uint64_t require{};
    NodeId bound{base::no_node};  ///< no_node: device and batch are chosen together
    queue::TieredLane queue;
    std::vector<NodeId> open_nodes{};  ///< of a bound lane: of each open batch
    ArrivalRate rate{};
    double work_pending{};
    double work_least{}, work_most{};                              ///< of all since it was empty
    std::uint32_t last_share{};                                    ///< of a device in the joint choice
    TimeNs capacity_until_ns{std::numeric_limits<TimeNs>::min()};  ///< how long capacity_per_s is good for
    double capacity_per_s{};
    /// Of what waits; 0 where nothing does. Rounding may leave a sum of nothing below zero.
    [[nodiscard]] double work_mean() const noexcept { return std::max(0.0, work_pending / std::max(1u, queue.size())); }
    bool dirty{};
    bool unheld{};  ///< its batch goes although the rule would have waited, had the ladder not forbidden that
    std::uint32_t n_untold{};  ///< that came since note_fastest() was last told of one
  };
  struct Node {
    TimeNs run_limit_ns{base::never_ns}, free_since_ns{};
    TimeNs progress_ns{};  ///< see progress()
    std::uint32_t slots{};
    std::uint32_t pending_max{no_bound};  ///< requests that it may have at a time
    std::vector<Batch> in_flight{};
    contracts::BatchShape occupied{};  ///< all that is in flight, as if it were one batch
    std::vector<ModelId> models{};     ///< resident there
    std::vector<std::uint32_t> bound_lanes{};
    std::unique_ptr<Stats> stats{};
  };
  struct ModelState {
    bool known{};
    ModelConfig config{};
    std::uint32_t n_free{};              ///< nodes where it is resident that have a free slot
    std::vector<std::uint32_t> lanes{};  ///< the joint ones; one for each set of labels asked for
    std::vector<NodeId> open_nodes{};    ///< of each open batch of theirs
    std::vector<std::uint64_t> tried{};  ///< nodes that were ever given something of it
    std::uint64_t n_taken{}, n_tries{};
    std::unique_ptr<Stats> stats{};
    Lateness lateness{};
    /// At the start, and as the least that a budget may hold: enough for one batch or device that goes wrong.
    static constexpr double hedges_at_start = 16.0, retries_at_start = 100.0, retries_most = 1000.0;
    CountedBudget hedges{hedges_at_start}, retries{retries_at_start};
  };
  static constexpr std::uint32_t no_bound = 0xFFFF'FFFFu;
  static constexpr std::size_t sources_max = 8;           ///< lanes that one batch is filled from
  static constexpr std::uint32_t vacated = 0xFFFF'FFFFu;  ///< a batch member that ended before its batch
  /// A device that takes requests of a lane: it has a free slot, or an open batch of this lane with room.
  struct Taker {
    NodeId node{base::no_node};
    float first_s{};         ///< until it would be done with one more
    std::uint32_t joined{};  ///< already in its open batch
    bool refused{};          ///< what comes first in the lane
  };
  /// Where a copy of a request may go, and in how many seconds it would be answered there.
  struct Second {
    NodeId node{base::no_node};
    std::uint64_t batch_id{};  ///< one that was opened there for others; 0: one of its own
    double takes_s{};
  };
  /// A lane that a batch is filled from, and how many of it the device may have.
  struct Source {
    std::uint32_t lane{}, left{};
    bool passed{};  ///< its head does not go in this batch
  };
  /// What waits in all lanes that a batch is filled from.
  struct Pool {
    std::uint32_t n_waiting{};
    double work_pending{}, work_least{}, work_most{};
    TimeNs earliest_deadline_ns{base::never_ns}, oldest_arrival_ns{base::never_ns};
    [[nodiscard]] double work_mean() const noexcept { return std::max(0.0, work_pending / n_waiting); }
  };
  /// What taking requests for a device comes to: credit, and the terms of what one more takes there.
  struct Filling {
    double base_s, slope_s;
    bool unheld;
    contracts::Credit credit;
  };
  enum class Served : std::uint8_t {
    sent,    ///< the lane has changed
    held,    ///< the batching rule would rather wait, or a faster device is waited for
    refused  ///< its open batch takes none of what comes first in the lane
  };

  // state_machine.cpp
  std::uint32_t lane_for(const contracts::Request&, NodeId bound);
  [[nodiscard]] NodeId choose_node(TimeNs now_ns, const contracts::Request&);
  /// `bound` to a node that was chosen already.
  void enqueue(TimeNs now_ns, std::uint32_t slot, NodeId bound = base::no_node);
  void end(TimeNs now_ns, std::uint32_t slot, ActionKind, Reason, std::uint32_t member = 0);
  /// `bound` to a node that was chosen already.
  void retry(TimeNs now_ns, std::uint32_t slot, bool solo, Reason, NodeId bound = base::no_node);
  void tell_policy(TimeNs now_ns, Slot&, Reason) noexcept;
  void reserve(Slot&, double service_s) noexcept;
  /// As reserve(), unreserve(), but into a sum for Fleet::change_credit.
  static void reserve_into(contracts::Credit&, Slot&, double service_s) noexcept;
  static void unreserve_into(contracts::Credit&, Slot&) noexcept;
  void unreserve(Slot&) noexcept;
  static void record(StageHistograms&, const Batch&, const contracts::Request&, double service_s) noexcept;
  /// `units` of service were given to its tenant with it, see TenantFlows; 0: it was not served.
  void leave_lane(std::uint32_t slot, std::int64_t units = 0);
  [[nodiscard]] static std::vector<Batch>::iterator find_batch(Node&, std::uint64_t id) noexcept;
  void mark(std::uint32_t lane);
  [[nodiscard]] std::vector<NodeId>& open_nodes_of(Lane&) noexcept;
  void close_door(const Batch&, NodeId);
  void keep_members(Batch&);
  void set_lane_timer(std::uint32_t lane, TimeNs at_ns) { timers_.set(config_.max_nodes + lane, at_ns); }
  void check_run_limit(TimeNs now_ns, NodeId);
  void expire(TimeNs now_ns, Lane&);
  void act(std::uint32_t slot, ActionKind, Reason, NodeId, std::uint64_t batch_id = 0, std::uint32_t member = 0);

  // hedging.cpp
  [[nodiscard]] bool has_copy(std::uint32_t slot) const noexcept;
  void watch(TimeNs now_ns, NodeId, Batch&);
  void set_look(NodeId);
  void look_at_late(TimeNs now_ns);
  TimeNs hedge(TimeNs now_ns, NodeId, const Batch&);
  TimeNs hedge_one(TimeNs now_ns, NodeId, const Batch&, std::uint32_t slot, double left_s, Second& to);
  [[nodiscard]] std::uint64_t able(std::uint32_t word, const contracts::Request&) const noexcept;
  [[nodiscard]] bool is_full(NodeId) const noexcept;
  [[nodiscard]] Second second_node(NodeId first, const contracts::Request&, bool trusted) const noexcept;
  [[nodiscard]] bool may_go_with(TimeNs now_ns, std::uint32_t slot, Second& to) noexcept;
  void send_copy(TimeNs now_ns, std::uint32_t slot, const Second& to);
  void swap_copy(std::uint32_t slot) noexcept;
  void forget_copy(std::uint32_t slot) noexcept;
  void drop_copy(std::uint32_t slot);
  void leave_open(Batch&, std::vector<std::uint32_t>::iterator member);
  void outran(std::uint32_t slot, const Batch&);
  [[nodiscard]] bool goes_on(TimeNs now_ns, std::uint32_t slot, const Batch&, Reason);
  void learn_lateness(const Batch&, NodeId, TimeNs now_ns);
  [[nodiscard]] bool may_retry(ModelId) noexcept;
  void earn_budgets(ModelState&) noexcept;
  void note_terms(TimeNs now_ns, const contracts::Request&, NodeId);

  // admission.cpp
  struct LowestFirst;
  struct SoonestFirst;
  void set_up_door();
  [[nodiscard]] bool admit(TimeNs now_ns, contracts::Request&, Entrance&);
  void refuse(const contracts::Request&, ActionKind, Reason, double hint_s);
  [[nodiscard]] queue::Arrival seen_of(TimeNs now_ns, const contracts::Request&);
  [[nodiscard]] double best_s(TimeNs now_ns, const contracts::Request&);
  [[nodiscard]] double goal_s(const AdmissionState::Model&) const noexcept;
  [[nodiscard]] double wait_s(ModelId) const noexcept;
  void look(TimeNs now_ns, ModelId);
  [[nodiscard]] TimeNs look_every_ns() const noexcept;
  void answered(const Slot&, const Batch&, TimeNs now_ns, double service_s) noexcept;
  [[nodiscard]] batch::Close shorter_close(TimeNs now_ns, Lane&, NodeId, batch::Pending, batch::Close held) noexcept;
  void waits(std::uint32_t slot);
  void waits_no_more(std::uint32_t slot) noexcept;
  [[nodiscard]] bool make_room(TimeNs now_ns, const contracts::Request&, bool displaces);
  [[nodiscard]] double retry_after_s(TimeNs now_ns, ModelId);
  void put_off(TimeNs now_ns, std::uint32_t slot, TimeNs until_ns);
  void leave_put_off(std::uint32_t slot) noexcept;
  void release_put_off(TimeNs now_ns);
  void reject_put_off(TimeNs now_ns, ModelId);

  // machine_membership.cpp
  void take_out(TimeNs now_ns, NodeId, Reason);
  void follow_residency(NodeId);
  void follow_fleet(TimeNs now_ns, NodeId);
  [[nodiscard]] bool may_serve(NodeId, ModelId) const noexcept;
  void rebind(TimeNs now_ns, NodeId);
  void bind_waiting(TimeNs now_ns, NodeId);
  void bind_from(TimeNs now_ns, std::uint32_t lane);
  template <class Which>
  void give_up_where(TimeNs now_ns, NodeId, Reason, Which);
  void give_up(TimeNs now_ns, Batch&, Reason);
  void send_elsewhere(TimeNs now_ns, NodeId);
  void mark_node(NodeId);

  // model_loads.cpp, load_plan.cpp, load_estimates.cpp
  void set_up_residency();
  /// Who waits for a load, or what a load may push out, has changed: schedule() plans anew.
  void look_for_loads() noexcept { looks_for_loads_ = residency_ != nullptr; }
  void load_failed(TimeNs now_ns, NodeId, ModelId);
  [[nodiscard]] TimeNs forgive_loads(TimeNs now_ns, NodeId);
  [[nodiscard]] bool serves(NodeId, const Lane&) const noexcept;
  [[nodiscard]] TimeNs load_limit_ns(NodeId) const noexcept;
  void follow_memory(NodeId);
  void follow_use(NodeId);
  void act_on_model(ActionKind, Reason, NodeId, ModelId, double takes_s);
  void drop(TimeNs now_ns, NodeId, ModelId);
  bool load(TimeNs now_ns, NodeId, ModelId, Reason);
  void plan_loads(TimeNs now_ns);
  void make_loads(TimeNs now_ns);
  void reserve_for(TimeNs now_ns, const Lane&);
  void add_backlog(const Lane&);
  [[nodiscard]] std::uint64_t serving(const Lane&, std::uint32_t word) const noexcept;
  [[nodiscard]] std::uint32_t n_for(const Lane&, bool there) const noexcept;
  [[nodiscard]] std::uint64_t able_to_load(const Lane&, std::uint32_t word) const noexcept;
  [[nodiscard]] double in_turn_load_s(NodeId, ModelId) const noexcept;
  [[nodiscard]] bool is_awaited(NodeId, ModelId) const noexcept;
  [[nodiscard]] bool could_load(NodeId, ModelId);
  void shed_hopeless(TimeNs now_ns, Lane&);
  void load_bound(TimeNs now_ns, Lane&);
  [[nodiscard]] double done_s(TimeNs now_ns, const Lane&, NodeId, double from_s, std::uint32_t n_share);
  void load_for(TimeNs now_ns, Lane&);
  void load_expected(TimeNs now_ns);
  void fill_up(TimeNs now_ns);
  [[nodiscard]] std::uint32_t n_holding(ModelId) const noexcept;
  [[nodiscard]] Residency::Cold cold_of(TimeNs now_ns, const contracts::Request&, NodeId only, double ahead_s);
  [[nodiscard]] double ahead_s(TimeNs now_ns, const contracts::Request&, NodeId);
  [[nodiscard]] double cold_s(TimeNs now_ns, const contracts::Request&);
  void doubt_load(TimeNs now_ns, const contracts::Request&);
  [[nodiscard]] bool has_free(NodeId) const noexcept;

  // health_steps.cpp
  void set_up_health();
  void tell_health(TimeNs now_ns, NodeId, const Batch&, double service_s, bool ok);
  void bound_pending(NodeId, std::uint32_t pending_max);
  void settle_health(TimeNs now_ns);
  void carry_out(TimeNs now_ns, const contracts::HealthChange&);
  void restart_curves(NodeId);
  [[nodiscard]] bool to_be_tried_elsewhere(const Slot&, NodeId) const noexcept;
  void try_elsewhere(TimeNs now_ns, std::uint32_t slot, NodeId failed_on);
  void send_alone(TimeNs now_ns, std::uint32_t slot, NodeId);
  [[nodiscard]] static std::uint32_t room_of(const Node& node) noexcept {
    return node.pending_max > node.occupied.n_requests ? node.pending_max - node.occupied.n_requests : 0;
  }

  // schedule.cpp
  void dispatch_dirty(TimeNs now_ns);
  void dispatch_lane(TimeNs now_ns, std::uint32_t lane);
  bool dispatch_from(TimeNs now_ns, std::uint32_t lane);
  bool dispatch_shared(TimeNs now_ns, std::uint32_t lane);
  bool dispatch_late(TimeNs now_ns, std::uint32_t lane, NodeId passed);
  [[nodiscard]] const contracts::BatchShape& learned_shape(const Batch&) const noexcept;
  void occupancy_changed(NodeId);
  void dispatch_bound(TimeNs now_ns, std::uint32_t lane);
  void give_turn(TimeNs now_ns);
  [[nodiscard]] NodeId only_device(std::uint32_t lane);
  bool gather(std::uint32_t lane, float work_mean);
  [[nodiscard]] std::uint32_t share_of(TimeNs now_ns, std::uint32_t lane, const Taker&, float work_mean) noexcept;
  [[nodiscard]] bool any_waits_but(ModelId) const noexcept;
  [[nodiscard]] bool others_wait_for(NodeId, ModelId) const noexcept;
  [[nodiscard]] std::uint32_t n_in_further_slots(ModelId, const FinishQuery&, float t_s,
                                                 std::uint32_t n_enough) const noexcept;
  void add_riders(TimeNs now_ns, std::uint32_t lane, const Taker&);
  [[nodiscard]] bool before(std::uint32_t lane_a, std::uint32_t lane_b, TimeNs now_ns) const noexcept;
  [[nodiscard]] bool goes_before(std::uint32_t slot_a, std::uint32_t slot_b, TimeNs now_ns) const noexcept;
  [[nodiscard]] bool is_aged(std::uint32_t slot, TimeNs now_ns) const noexcept {
    return now_ns - slots_[slot].request.arrival_ns >= config_.ageing_ns;
  }

  // weighing.cpp
  [[nodiscard]] std::uint32_t share_by_work(TimeNs now_ns, std::uint32_t lane, const Taker&, float work_mean);
  void list_by_work(TimeNs now_ns, std::uint32_t lane, NodeId);
  bool fill_suited(TimeNs now_ns, std::uint32_t lane, NodeId, Batch&, std::uint32_t n_max);
  [[nodiscard]] double goal_s(const contracts::Request&) const noexcept;
  [[nodiscard]] bool surely_by(TimeNs now_ns, const Lane&, std::uint32_t n_requests, NodeId) const noexcept;
  [[nodiscard]] LeastCost least_costly(TimeNs now_ns, const Lane&, std::uint32_t n_requests, float work_mean) noexcept;
  [[nodiscard]] bool dispatch_untried(TimeNs now_ns, std::uint32_t lane, bool& sent);
  void note_fastest(double latency_s, std::uint32_t n_requests) noexcept;
  [[nodiscard]] bool dispatch_costly(TimeNs now_ns, std::uint32_t lane, float work_mean, bool& sent);
  // token_routing.cpp
  bool dispatch_tokens(TimeNs now_ns, std::uint32_t lane);
  void share_tokens(std::uint32_t slot, NodeId, TimeNs now_ns);
  void leave_tokens(Slot&) noexcept;
  [[nodiscard]] std::span<const std::uint64_t> names_of(const contracts::Request&);

  // compose.cpp
  Served serve(TimeNs now_ns, std::uint32_t lane, NodeId, std::uint32_t n_share);
  [[nodiscard]] Batch new_batch(TimeNs now_ns, std::uint32_t lane);
  [[nodiscard]] Pool pool_of_sources() const noexcept;
  [[nodiscard]] double arrivals_per_s(TimeNs now_ns) noexcept;
  [[nodiscard]] batch::Close ask_rule(TimeNs now_ns, Lane&, const Pool&, NodeId, std::uint32_t n) noexcept;
  [[nodiscard]] bool in_danger(TimeNs now_ns, const Lane&, const Pool&, NodeId, std::uint32_t n) const noexcept;
  [[nodiscard]] bool late_on(TimeNs now_ns, ModelId, const contracts::Request&, NodeId) const noexcept;
  [[nodiscard]] bool may_be_tried(TimeNs now_ns, ModelId, NodeId, float alone_s) const noexcept;
  [[nodiscard]] double pending_s(const Lane&, NodeId) const noexcept;
  [[nodiscard]] double share_of_device(NodeId);
  [[nodiscard]] bool too_late(TimeNs now_ns, const Lane&, const contracts::Request&, NodeId& first) const noexcept;
  [[nodiscard]] Source* first_source(TimeNs now_ns) noexcept;
  bool fill(TimeNs now_ns, std::uint32_t lane, NodeId, Batch&, std::uint32_t n_more);
  [[nodiscard]] Filling filling_of(const Lane&, NodeId) const noexcept;
  [[nodiscard]] bool may_join(std::uint32_t slot, const Batch&) const noexcept;
  void take(TimeNs now_ns, std::uint32_t slot, NodeId, Batch&, Filling&);
  void shed(TimeNs now_ns, std::uint32_t slot, Reason);
  void choose(TimeNs now_ns, std::uint32_t lane, NodeId, Batch&, std::uint32_t n_max);
  void show(TimeNs now_ns, std::uint32_t lane, NodeId);
  void list_first(TimeNs now_ns);
  void group_by_tenant(TimeNs now_ns);
  [[nodiscard]] batch::Waiting waiting_of(std::uint32_t slot, TimeNs now_ns) const noexcept;
  [[nodiscard]] double capacity_per_s(TimeNs now_ns, Lane&) noexcept;

  // like_work.cpp
  [[nodiscard]] bool matters_who_joins(const Lane&, const Pool&, NodeId) const noexcept;
  [[nodiscard]] bool is_like(const Batch&, double work, NodeId) const noexcept;
  void keep_like(const Lane&, NodeId, std::uint32_t n_max);
  [[nodiscard]] std::uint32_t preferred(TimeNs now_ns, const Lane&, const Pool&, NodeId, std::uint32_t n) noexcept;
  [[nodiscard]] Batch* open_batch(Node&, std::uint32_t lane) noexcept;

  EngineConfig config_;
  route::Fleet& fleet_;
  contracts::LatencyTable& latency_;
  route::RouteView view_;                         ///< what policies that bind on arrival see of the fleet
  std::unique_ptr<route::PrefixIndex> prefixes_;  ///< of their own picks, where they read blocks
  std::vector<std::uint64_t> names_;              ///< see names_of()
  std::unique_ptr<route::RoutingPolicy> routing_;
  std::unique_ptr<batch::BatchingPolicy> batching_;
  std::unique_ptr<contracts::NodeHealth> health_;  ///< nullptr: nobody is ejected
  queue::QueueSlots queue_slots_;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_slots_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::vector<std::uint32_t> dirty_;
  std::vector<Node> nodes_;
  std::vector<ModelState> models_;
  std::uint32_t n_models_{};  ///< beyond them none was ever known
  Timers timers_;  ///< owners: the nodes (run limits), then the lanes (deadlines, holds, devices that should be free)
  std::vector<double> free_at_s_;  ///< see FinishColumns
  route::JointWeights weights_;
  std::vector<float> usd_per_s_;  ///< of a slot, by node
  bool has_prices_{};             ///< not all nodes cost the same
  double tail_s_{};               ///< what requests would take on whatever is fastest for them: weights_.tail
  std::vector<std::uint64_t> has_free_slot_;  ///< nodes, 64 a word; free_at_s_ == free_now
  std::vector<std::uint64_t> bounded_;        ///< nodes with a bound of requests, 64 a word
  std::vector<std::uint64_t> many_slots_;     ///< nodes with more than one slot, 64 a word
  // Of the lane at hand: who may run it, of them who has a free slot, of them who is not looked at one by one, of them
  // whose further slots count.
  std::vector<std::uint64_t> candidates_, free_candidates_, others_, further_;
  std::vector<Taker> open_takers_;
  // Of the batch at hand: what it is filled from. Where deadlines are in danger: who comes first, who of them is shown
  // to the rule, what it says, who is late here.
  std::vector<Source> sources_;
  std::vector<std::uint32_t> riders_, first_, merged_, shown_, late_here_, firsts_, competing_;
  std::vector<std::uint64_t> grouped_;  ///< group and place of each that is shown
  std::vector<std::uint32_t> suited_;   ///< who waits, in the order in which the device at hand should have them
  std::vector<double> works_before_;    ///< of suited_, the work of those before each, and of all
  queue::OrderScratch order_scratch_;
  batch::LengthGroups length_groups_{batch::BatchingPolicy::n_waiting_shown_max};
  std::vector<double> works_;
  std::vector<batch::Waiting> waiting_;
  std::vector<batch::Verdict> verdicts_;
  std::vector<std::uint32_t> due_;                         ///< the lanes that schedule() is at
  TurnPlan plan_;                                          ///< of them, who is first
  std::vector<std::vector<std::uint32_t>> spare_members_;  ///< of batches that are over
  TokenChoice tokens_;
  bool by_tokens_;  ///< the policy reads blocks and leaves the choice to us
  std::vector<Action> actions_;
  std::vector<route::CostTerms> terms_;
  std::uint64_t next_batch_id_{1}, next_seq_{0};
  std::uint32_t n_pending_{};
  std::unique_ptr<Residency> residency_;  ///< nullptr: models are where the driver says
  bool looks_for_loads_{};
  AdmissionState door_;
  HedgingState hedging_;
  double hint_s_{};  ///< of the actions that are being taken
};

}  // namespace infcore::engine
