#pragma once
#include <infcore/base/fork.hpp>
#include <infcore/base/patience.hpp>
#include <infcore/device/emulated.hpp>
#include <infcore/engine/flights.hpp>
#include <infcore/engine/live_request.hpp>
#include <infcore/engine/logged_machine.hpp>
#include <infcore/queue/mpmc_ring.hpp>
#include <infcore/queue/places.hpp>
#include <infcore/queue/sleeper.hpp>

#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace infcore::engine {

/// What a worker was given: pointers into the futures, valid until started().
struct WorkBatch {
  std::uint64_t id{};
  ModelId model{};
  contracts::BatchShape shape{};
  std::vector<LiveRequest*> members{};
};

/// A model to be loaded on a node, or to be dropped there, once nothing of it runs.
struct LoadOrder {
  NodeId node{};
  ModelId model{};
  std::uint32_t generation{};  ///< of the node: an order for an earlier one of that id is void
  bool loads{};                ///< false: drops
};

enum class Wake : std::uint8_t { stop, batch, control, nothing };

/// Runs the state machine against the clock: callers push to the ingress ring, a dispatcher thread and one worker per
/// device carry events in and actions out. The threads are the caller's (they are Python's); every call here works
/// without the GIL.
///
/// One owner at a time: whoever holds `owner_`, the dispatcher for arrivals and timers, a worker for its own claim and
/// completion. A worker that took its completion through the dispatcher would pay a second thread wake-up, 20-60 us,
/// per batch.
class Driver {
 public:
  Driver(const EngineConfig&, route::Fleet&, contracts::LatencyTable&, const std::string& policy,
         const std::string& batching, std::uint64_t seed, const std::atomic<TimeNs>* manual_clock,
         const route::RoutingOptions& options = {});

  // The log, if one is wanted: start_log() before anything else, log_loop() on a thread of its own until end_log().
  void start_log(const std::string& path, std::size_t buffer_bytes);
  void log_loop() noexcept;
  void end_log();
  /// Why nothing more is written, as errno; 0: nothing is wrong.
  [[nodiscard]] int log_error() noexcept { return machine_.log_file() == nullptr ? 0 : machine_.log_file()->error(); }
  /// What a node says of itself, in the log's order.
  bool signal(NodeId, const contracts::Signal&);

  // Callers.
  /// false: the configured bound of requests is reached, or refuse() was called. With `defer` the dispatcher is told by
  /// flush().
  [[nodiscard]] bool submit(LiveRequest&, bool defer) noexcept;
  /// The caller has made an error of that; for figures.
  void refused(ModelId model) noexcept { n_refused_[model.value].fetch_add(1, std::memory_order_relaxed); }
  // Who would rather wait for room.
  /// Blocks a thread until there may be room for it, or it is refused anyway, or the seconds are over.
  void wait_for_room(const LiveRequest&, double timeout_s);
  /// The loop's hub is woken once somebody has ended. Before submit() is tried once more, or that could be missed.
  void want_room(Hub&);
  /// Of a request that was never taken: how it ended. false: its caller has cancelled it.
  bool end_outside(LiveRequest&, ActionKind, Reason) noexcept;
  [[nodiscard]] bool cancel_outside(LiveRequest&) noexcept;
  [[nodiscard]] bool refuses() const noexcept { return places_.is_closed(); }
  /// From here on nothing is taken; what n_open() counts was taken before.
  void refuse() noexcept {
    places_.close();
    wake_for_room();
  }
  /// What submit deferred goes on: carried out here where nobody else is at it, since waking the dispatcher costs as
  /// much.
  void flush() noexcept;
  /// true: the caller was first and the request ends as cancelled.
  bool cancel(LiveRequest&) noexcept;
  [[nodiscard]] Hub& add_hub(bool for_loop);

  // The dispatcher thread.
  /// Until stop(); returns early, false, when what has ended for threads should be drained now: see set_prompt().
  [[nodiscard]] bool dispatch_loop(Hub& threads) noexcept;
  /// While some future of a thread has callbacks, ended requests are not left on the chain until somebody looks.
  void add_prompt(int n) noexcept { n_prompt_.fetch_add(n, std::memory_order_relaxed); }
  /// The caller has drained `n` ended requests of threads.
  void drained(std::uint32_t n) noexcept { n_undrained_.fetch_sub(n, std::memory_order_relaxed); }
  [[nodiscard]] bool prompt() const noexcept { return n_prompt_.load(std::memory_order_relaxed) > 0; }
  void stop() noexcept;

  // One worker per node.
  /// At the start of a worker's or the dispatcher's thread: its sleeps end on time, not up to 50 us late.
  static void want_punctual_sleeps() noexcept;
  [[nodiscard]] Wake wait_batch(NodeId) noexcept;
  /// Fills `batch` with what goes now, including what came in since the worker was called. false: nothing is left of
  /// it.
  [[nodiscard]] bool claim(NodeId, WorkBatch& batch);
  void started(NodeId, const WorkBatch&) noexcept;
  /// `payload` carries one reference for each member; returns how many were not passed on. `runs_more`: the worker has
  /// other batches under way.
  [[nodiscard]] std::uint32_t finish(NodeId, const WorkBatch&, bool ok, void* payload, bool runs_more = false) noexcept;

  // A worker that runs many batches at once, in steps (driver_steps.cpp).
  /// As wait_batch(), but no longer than until `until_ns` of the monotonic clock: then Wake::nothing.
  [[nodiscard]] Wake wait_batch_until(NodeId, TimeNs until_ns) noexcept;
  void first_token(NodeId, std::span<const std::uint64_t> batch_ids) noexcept;
  void progress(NodeId) noexcept;
  /// Ends a running request whose caller or deadline ends it: the caller's cancel may still be on its way through the
  /// ring. Its batch is still to be finished.
  void take_back(LiveRequest&, Reason) noexcept;
  /// Everything that the node runs has failed; it gets nothing more until resume(). `payload` carries one reference for
  /// each running request; returns how many were not passed on.
  [[nodiscard]] std::uint32_t fail(NodeId, void* payload) noexcept;
  /// Whether what it ran was given to others: then its worker forgets that, and calls resume().
  [[nodiscard]] bool is_out(NodeId) noexcept;
  /// The worker has nothing under way: the node is up again, unless lose_node() keeps it out.
  void resume(NodeId) noexcept;
  /// Whether the worker, which has nothing to run, should ask its device how it is; then it says what it found.
  [[nodiscard]] bool wants_check(NodeId) noexcept;
  void checked(NodeId, bool ok) noexcept;
  /// A whole worker for a device that only takes time.
  Wake run_emulated(NodeId, device::EmulatedTimer&, const std::vector<contracts::Curve>& curves,
                    std::uint32_t generation) noexcept;
  /// Counts the devices that have had this node; a worker of an earlier one must stop.
  [[nodiscard]] std::uint32_t generation(NodeId node) const noexcept {
    return mailboxes_[node.value]->generation.load(std::memory_order_acquire);
  }

  // Membership, by the engine's controlling threads.
  void control(NodeId) noexcept;  ///< wakes that worker with Wake::control
  /// Returns the epoch that requests to it carry: one checked against an earlier definition of the id is refused.
  [[nodiscard]] std::uint32_t add_model(ModelId, const ModelConfig&);
  void remove_model(ModelId);
  void add_node(NodeId, const NodeConfig&);
  void set_prior(ModelId, NodeId, const contracts::Curve&);
  void set_resident(ModelId, NodeId, bool resident);
  // Where the engine decides what is loaded where (EngineConfig::residency).
  void may_hold(ModelId, NodeId, bool may);
  /// Throws InvalidArgument without residency.
  void preload(ModelId);
  /// Blocks a thread until orders are there, which come in the order in which they are to be carried out on a node;
  /// empty: stop() was called.
  [[nodiscard]] std::vector<LoadOrder> wait_orders();
  /// The order was carried out, `ok` or not, and took so long; of those that load.
  void loaded(const LoadOrder&, bool ok, double load_s);
  void drain_node(NodeId);
  [[nodiscard]] bool node_empty(NodeId);
  void remove_node(NodeId);   ///< out of the fleet, and nothing of the machine's knows it any more
  void give_up_node(NodeId);  ///< its worker is abandoned: what runs there goes elsewhere
  /// As after a hung run, but an answer does not bring it back: restore_node() does. What runs there goes elsewhere.
  /// false: it was out before, or the node is not that generation's any more.
  bool lose_node(NodeId, std::uint32_t generation);
  /// Takes lose_node() back: up at once, or where a run given up has not returned yet, as soon as it has.
  bool restore_node(NodeId, std::uint32_t generation);
  void cancel_all();
  [[nodiscard]] std::unique_ptr<Stats> model_stats(ModelId);
  [[nodiscard]] AdmissionFigures admission_figures(ModelId);
  /// Who answers for a model that is there, under load.
  void set_fallback(ModelId, const ModelConfig&);
  /// Whether the policy looks at the blocks of prompts. The same for the driver's life; any thread.
  [[nodiscard]] bool reads_blocks() const noexcept { return machine_.reads_blocks(); }
  /// Any thread may ask it for failed() and rethrow().
  [[nodiscard]] route::RoutingPolicy& routing() noexcept { return machine_.routing(); }
  /// How many steps of the ladder were in force for it at the last arrival. Any thread, no lock.
  [[nodiscard]] std::uint32_t rung(ModelId model) const noexcept {
    return rungs_[model.value].load(std::memory_order_relaxed);  // a hint: the state machine decides
  }
  [[nodiscard]] std::unique_ptr<Stats> node_stats(NodeId);
  /// What is known of how long the model takes on the node.
  [[nodiscard]] contracts::LatencyModel latency(ModelId, NodeId);

  [[nodiscard]] TimeNs now_ns() const noexcept {
    return manual_clock_ == nullptr ? base::monotonic_ns() : manual_clock_->load(std::memory_order_acquire);
  }
  [[nodiscard]] std::uint32_t n_open() const noexcept { return places_.n_taken(); }
  void check_not_forked() const { base::check_not_forked(built_under_, "this Engine"); }

 private:
  struct Mailbox {
    queue::Sleeper<> sleeper;
    std::atomic<bool> called{false}, control{false};
    std::atomic<std::uint32_t> generation{0};
    bool in_run{};     ///< owner's: its worker has claimed a batch and not yet finished it
    bool kept_lost{};  ///< owner's: see lose_node()
  };
  struct Ended {
    Hub* hub;
    LiveRequest *first, *last;
  };
  static constexpr std::uint64_t every_batch = ~std::uint64_t{0};
  struct Outbox {  // what a step has to hand over and wake once the lock is gone
    std::vector<Ended> ended;
    std::vector<NodeId> called;
    std::uint64_t batch_id{};  ///< whose result `payload` is; every_batch: of all that failed
    void* payload{};
    std::uint32_t n_payload_used{};
    bool room{};    ///< somebody waits for it
    bool orders{};  ///< there are new ones
  };

  template <class F>
  void with_machine(F&& f) {
    Outbox& outbox = outbox_of_thread();
    {
      const std::scoped_lock lock(owner_);
      const TimeNs t_ns = now_ns();
      f(machine_, t_ns);
      settle(outbox, t_ns);
    }
    deliver(outbox);
  }

  static Outbox& outbox_of_thread() noexcept;
  void settle(Outbox&, TimeNs now_ns) noexcept;
  void carry_out(Outbox&, TimeNs now_ns) noexcept;
  void deliver(Outbox&) noexcept;
  // flight_steps.cpp
  void arrive(Outbox&, LiveRequest&, TimeNs now_ns) noexcept;
  [[nodiscard]] bool leave_flight(Outbox&, LiveRequest&, TimeNs now_ns) noexcept;
  void expire_waiting(Outbox&, TimeNs now_ns) noexcept;
  [[nodiscard]] bool land(Outbox&, TimeNs now_ns) noexcept;
  void end(Outbox&, LiveRequest&, const Action&, TimeNs now_ns) noexcept;
  void hand_over(Outbox&, LiveRequest&) noexcept;
  void inputs_read(Outbox&, const WorkBatch&) noexcept;
  static void note_form(const Action&) noexcept;
  void wake_for_room() noexcept;
  void release(Outbox&, LiveRequest&) noexcept;
  [[nodiscard]] bool wants_drain(Hub& threads) const noexcept;

  std::atomic<bool> stopping_{false};
  std::atomic<std::uint32_t> n_undrained_{0};
  std::atomic<int> n_prompt_{0};
  queue::MpmcRing<std::uintptr_t> ingress_;
  queue::Sleeper<> dispatcher_;
  base::PatientMutex owner_;  // a routing policy may be in Python
  route::Fleet& fleet_;
  LoggedMachine machine_;
  Flights flights_;
  std::atomic<TimeNs> next_timer_ns_{base::never_ns}, asleep_until_ns_{base::never_ns};
  std::vector<std::uint32_t> model_epochs_;  ///< owner's
  std::vector<std::unique_ptr<Mailbox>> mailboxes_;
  std::vector<std::unique_ptr<Hub>> hubs_;
  std::vector<std::atomic<std::uint64_t>> n_refused_;  ///< by model: at the door, for want of room
  std::vector<std::atomic<std::uint8_t>> rungs_;       ///< by model
  const RunConfig run_;
  const std::uint32_t built_under_;
  queue::Places<> places_;         ///< of requests that are open
  Hub room_{false};                ///< for threads
  std::vector<LoadOrder> orders_;  ///< owner's
  bool closing_{};                 ///< owner's: cancel_all() was called
  queue::Sleeper<> order_taker_;
  std::mutex want_room_mutex_;
  std::vector<Hub*> want_room_;
  const std::atomic<TimeNs>* const manual_clock_;
};

}  // namespace infcore::engine
