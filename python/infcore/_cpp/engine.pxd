from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

from infcore._cpp.base cimport ManualTime, ModelId, NodeId, TimeNs
from infcore._cpp.device cimport EmulatedTimer, RowSource
from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.flight cimport Seat
from infcore._cpp.health cimport HealthConfig
from infcore._cpp.latency cimport BatchShape, Curve, LatencyModel, LatencyTable
from infcore._cpp.route cimport Fleet, RoutingOptions, RoutingPolicy, Signal
from infcore._cpp.telemetry cimport Histogram


cdef extern from "<infcore/contracts/request.hpp>" namespace "infcore::contracts" nogil:
    const double request_work_max
    cdef cppclass Request:
        uint64_t cookie
        TimeNs arrival_ns
        TimeNs deadline_ns
        double work
        uint64_t require
        ModelId model
        uint32_t tenant
        uint16_t tier
        cbool has_stale
        cbool is_cached
        TimeNs defer_ns
        uint64_t session
        const uint64_t* blocks
        uint32_t n_blocks, block_size, prompt_tokens


cdef extern from * nogil:
    """
    #include <infcore/batch/batching_policy.hpp>
    typedef std::span<const infcore::batch::Waiting> InfcoreWaiting;
    typedef std::span<infcore::batch::Verdict> InfcoreVerdicts;
    """
    cdef cppclass WaitingSpan "InfcoreWaiting":
        WaitingSpan(const Waiting*, size_t) noexcept
    cdef cppclass VerdictSpan "InfcoreVerdicts":
        VerdictSpan(Verdict*, size_t) noexcept


cdef extern from "<infcore/batch/batching_policy.hpp>" namespace "infcore::batch" nogil:
    cdef cppclass Waiting:
        TimeNs deadline_ns
        double work
        uint16_t tier
        cbool aged
        uint32_t tenant
    cdef enum class Verdict(uint8_t):
        leave
        take
        drop
    cdef cppclass Traffic:
        uint32_t n_waiting, max_batch_size
        double arrivals_per_s, capacity_per_s, share
    cdef cppclass Pending:
        BatchShape shape
        TimeNs earliest_deadline_ns, held_since_ns, delay_ns_max
        double arrivals_per_s
        uint32_t max_batch_size
    cdef cppclass Close:
        uint32_t n_requests
        TimeNs wait_until_ns
    cdef cppclass BatchingPolicy:
        Close close(TimeNs, const Pending&, const LatencyModel&) noexcept
        void select(TimeNs, WaitingSpan, uint32_t, const Traffic&, const LatencyModel&, VerdictSpan) noexcept
    unique_ptr[BatchingPolicy] make_batching_policy(const string&) except +infcore_translate
    vector[string] batching_policies() except +infcore_translate


cdef extern from "<infcore/engine/actions.hpp>" namespace "infcore::engine" nogil:
    cdef enum class ActionKind(uint8_t):
        dispatch
        load
        unload
        reject
        shed
        defer
        retry
        hedge
        cancel
        preempt
        complete
    cdef enum class Reason(uint8_t):
        none
        ok
        queue_full
        deadline
        device_failed
        device_lost
        device_removed
        caller
        unloaded
        closing
        infeasible
        overload
        displaced
        early_drop
        memory
        off_peak
        cheaper
        stale
        cached
        forecast
    const char** action_names "((const char**)infcore::engine::action_names.data())"
    size_t n_actions "infcore::engine::action_names.size()"
    const char** reason_names "((const char**)infcore::engine::reason_names.data())"
    size_t n_reasons "infcore::engine::reason_names.size()"
    cdef cppclass Action:
        uint64_t cookie, batch_id
        NodeId node
        uint32_t member
        ActionKind kind
        Reason reason
        float hint_s


cdef extern from "<infcore/engine/hub.hpp>" namespace "infcore::engine" nogil:
    cdef cppclass Chain "infcore::queue::DoneChain<infcore::engine::LiveRequest>":
        LiveRequest* take_all() noexcept
        cbool empty() noexcept
    cdef cppclass Hub:
        int fd() noexcept
        Chain& chain() noexcept
        void clear() noexcept
        void wake() noexcept


cdef extern from "<infcore/engine/counted_budget.hpp>" namespace "infcore::engine" nogil:
    const double unbounded "infcore::engine::CountedBudget::unbounded"


cdef extern from "<infcore/engine/live_request.hpp>" namespace "infcore::engine" nogil:
    cdef enum class LiveState(uint8_t):
        pending
        done
        cancelled
    cdef cppclass LiveRequest:
        LiveRequest* next
        void* owner
        Hub* hub
        Request request
        Reason reason
        ActionKind kind
        NodeId node
        uint32_t member
        void* payload
        Seat seat
        TimeNs end_ns
        float hint_s
        uint32_t epoch
        RowSource* rows
        int64_t* room_for_dims(uint32_t) except +infcore_translate
        void room_for_rows(uint32_t) except +infcore_translate
    cbool wait_ended(LiveRequest&, double) except +infcore_translate
    LiveState state_of(const LiveRequest&) noexcept
    Reason form_of(const LiveRequest&) noexcept


cdef extern from "<infcore/engine/live_prompt.hpp>" namespace "infcore::engine" nogil:
    void name_blocks(LiveRequest&, uint32_t) except +infcore_translate
    void copy_blocks(LiveRequest&, const uint64_t*, uint32_t) except +infcore_translate


cdef extern from "<infcore/engine/event_format.hpp>" namespace "infcore::engine" nogil:
    const uint32_t event_blocks_max


cdef extern from "<infcore/engine/stats.hpp>" namespace "infcore::engine" nogil:
    cdef cppclass StageHistograms:
        Histogram queue_s, batch_wait_s, service_s, latency_s, ttft_s
    cdef cppclass Outcomes:
        uint64_t retried, hedged, hedge_won, unretried
        double hedge_wasted_s
    cdef cppclass Stats:
        uint64_t infeasible, overloaded, displaced, stale, cheaper, deferred, cached, attached
        uint64_t ok, failed, lost, expired, shed, cancelled, rejected, retried, batches
        uint64_t hedged, hedge_won, unretried, ejections, loads, loads_failed, unloads
        double busy_s, work, hedge_wasted_s, load_s
        unique_ptr[StageHistograms] stages


cdef extern from "<infcore/engine/state_machine.hpp>" namespace "infcore::engine" nogil:
    cdef cppclass EngineConfig:
        EngineConfig() noexcept
        uint32_t max_requests
        uint32_t max_nodes
        uint32_t max_models
        uint16_t n_tiers
        TimeNs ageing_ns
        uint8_t attempts_max
        cbool stage_histograms
        vector[string] admission
        TimeNs overload_wait_ns
        vector[uint32_t] tier_capacity
        cbool shed_lowest
        double hedge_quantile, hedge_budget, retry_budget
        string residency
        cbool log_terms
        cbool judges_health
        HealthConfig health
    cdef cppclass ModelConfig:
        ModelConfig() noexcept
        uint32_t max_batch_size
        TimeNs batch_delay_ns_max
        cbool idempotent, runs_share
        ModelId fallback
        vector[double] length_buckets
        vector[uint32_t] preferred_batch_sizes
        uint64_t weights_bytes
        double load_s
    cdef cppclass NodeConfig:
        NodeConfig() noexcept
        TimeNs run_limit_ns
        uint32_t kv_blocks
        cbool loads_beside_runs
    cdef cppclass Batch:
        uint64_t id
        ModelId model
        BatchShape shape
        vector[uint32_t] members


cdef extern from "<infcore/engine/admission_state.hpp>" namespace "infcore::engine" nogil:
    cdef cppclass AdmissionFigures:
        uint32_t rung, n_open, n_put_off
        double wait_s, limit, retry_after_s


cdef extern from "<infcore/engine/event_log.hpp>" namespace "infcore::engine" nogil:
    cdef cppclass RunConfig:
        RunConfig() noexcept
        EngineConfig engine
        string policy, batching
        uint64_t seed
        RoutingOptions options


cdef extern from "<infcore/engine/logged_machine.hpp>" namespace "infcore::engine" nogil:
    cdef cppclass LoggedMachine:
        LoggedMachine(const EngineConfig&, Fleet&, LatencyTable&, unique_ptr[RoutingPolicy],
                      unique_ptr[BatchingPolicy]) except +infcore_translate
        uint32_t add_model(ModelId, const ModelConfig&) except +infcore_translate
        void remove_model(TimeNs, ModelId) except +infcore_translate
        void add_node(NodeId, const NodeConfig&) except +infcore_translate
        void residency_changed(TimeNs, NodeId) except +infcore_translate
        void drain_node(TimeNs, NodeId) except +infcore_translate
        cbool node_empty(NodeId) noexcept
        void remove_node(TimeNs, NodeId) except +infcore_translate
        uint64_t arrive(TimeNs, const Request&) except +infcore_translate
        cbool cancel(TimeNs, uint64_t, Reason) except +infcore_translate
        void cancel_all(TimeNs, Reason) except +infcore_translate
        const Batch* claim(TimeNs, NodeId) except +infcore_translate
        void started(TimeNs, NodeId, uint64_t) except +infcore_translate
        cbool complete(TimeNs, NodeId, uint64_t, cbool) except +infcore_translate
        void first_token(TimeNs, NodeId, uint64_t) except +infcore_translate
        void progress(TimeNs, NodeId) except +infcore_translate
        void node_failed(TimeNs, NodeId) except +infcore_translate
        void node_lost(TimeNs, NodeId) except +infcore_translate
        void node_back(TimeNs, NodeId) except +infcore_translate
        cbool wants_check(TimeNs, NodeId) noexcept
        void checked(TimeNs, NodeId, cbool) except +infcore_translate
        void may_hold(TimeNs, NodeId, ModelId, cbool) except +infcore_translate
        cbool loaded(TimeNs, NodeId, ModelId, cbool, double) except +infcore_translate
        void preload(TimeNs, ModelId) except +infcore_translate
        void tick(TimeNs) except +infcore_translate
        void schedule(TimeNs) except +infcore_translate
        TimeNs next_timer_ns() noexcept
        const vector[Action]& actions() noexcept
        void clear_actions() noexcept
        void set_prior(ModelId, NodeId, const Curve&) except +infcore_translate
        cbool signal(NodeId, const Signal&) except +infcore_translate
        void start_log(const string&, size_t, const RunConfig&) except +infcore_translate
        void end_log() except +infcore_translate
        cbool has_open_batch(NodeId) noexcept
        uint32_t n_pending() noexcept
        AdmissionFigures admission_figures(TimeNs, ModelId) except +infcore_translate
        uint32_t n_timers() noexcept
        uint32_t n_lanes() noexcept
        const Stats* model_stats(ModelId) noexcept
        const Stats* node_stats(NodeId) noexcept
        uint64_t cookie(uint32_t) noexcept


cdef extern from "<infcore/engine/driver.hpp>" namespace "infcore::engine" nogil:
    cdef enum class Wake(uint8_t):
        stop
        batch
        control
        nothing
    cdef cppclass LoadOrder:
        NodeId node
        ModelId model
        uint32_t generation
        cbool loads
    cdef cppclass WorkBatch:
        WorkBatch() noexcept
        uint64_t id
        ModelId model
        BatchShape shape
        vector[LiveRequest*] members
    cdef cppclass Driver:
        Driver(const EngineConfig&, Fleet&, LatencyTable&, const string&, const string&, uint64_t,
               const ManualTime*, const RoutingOptions&) except +infcore_translate
        void start_log(const string&, size_t) except +infcore_translate
        void log_loop() noexcept
        void end_log() except +infcore_translate
        int log_error() noexcept
        cbool signal(NodeId, const Signal&) except +infcore_translate
        cbool submit(LiveRequest&, cbool) noexcept
        void refused(ModelId) noexcept
        void wait_for_room(const LiveRequest&, double) except +infcore_translate
        void want_room(Hub&) except +infcore_translate
        cbool end_outside(LiveRequest&, ActionKind, Reason) noexcept
        cbool cancel_outside(LiveRequest&) noexcept
        cbool refuses() noexcept
        void flush() noexcept
        cbool cancel(LiveRequest&) noexcept
        Hub& add_hub(cbool) except +infcore_translate
        cbool dispatch_loop(Hub&) noexcept
        void add_prompt(int) noexcept
        cbool prompt() noexcept
        void stop() noexcept
        @staticmethod
        void want_punctual_sleeps() noexcept
        Wake wait_batch(NodeId) noexcept
        cbool claim(NodeId, WorkBatch&) except +infcore_translate
        void started(NodeId, const WorkBatch&) noexcept
        uint32_t finish(NodeId, const WorkBatch&, cbool, void*) noexcept
        uint32_t finish(NodeId, const WorkBatch&, cbool, void*, cbool) noexcept
        Wake wait_batch_until(NodeId, TimeNs) noexcept
        LatencyModel latency(ModelId, NodeId) except +infcore_translate
        cbool wants_check(NodeId) noexcept
        void checked(NodeId, cbool) noexcept
        void first_token(NodeId, const vector[uint64_t]&) noexcept
        void progress(NodeId) noexcept
        void take_back(LiveRequest&, Reason) noexcept
        uint32_t fail(NodeId, void*) noexcept
        cbool is_out(NodeId) noexcept
        void resume(NodeId) noexcept
        Wake run_emulated(NodeId, EmulatedTimer&, const vector[Curve]&, uint32_t) noexcept
        uint32_t generation(NodeId) noexcept
        void refuse() noexcept
        void drained(uint32_t) noexcept
        void control(NodeId) noexcept
        TimeNs now_ns() noexcept
        uint32_t n_open() noexcept
        void check_not_forked() except +infcore_translate
        uint32_t add_model(ModelId, const ModelConfig&) except +infcore_translate
        void remove_model(ModelId) except +infcore_translate
        void add_node(NodeId, const NodeConfig&) except +infcore_translate
        void set_prior(ModelId, NodeId, const Curve&) except +infcore_translate
        void may_hold(ModelId, NodeId, cbool) except +infcore_translate
        void preload(ModelId) except +infcore_translate
        vector[LoadOrder] wait_orders() except +infcore_translate
        void loaded(const LoadOrder&, cbool, double) except +infcore_translate
        void set_resident(ModelId, NodeId, cbool) except +infcore_translate
        void drain_node(NodeId) except +infcore_translate
        cbool node_empty(NodeId) except +infcore_translate
        void remove_node(NodeId) except +infcore_translate
        void give_up_node(NodeId) except +infcore_translate
        cbool lose_node(NodeId, uint32_t) except +infcore_translate
        cbool restore_node(NodeId, uint32_t) except +infcore_translate
        void cancel_all() except +infcore_translate
        unique_ptr[Stats] model_stats(ModelId) except +infcore_translate
        AdmissionFigures admission_figures(ModelId) except +infcore_translate
        void set_fallback(ModelId, const ModelConfig&) except +infcore_translate
        RoutingPolicy& routing() noexcept
        uint32_t rung(ModelId) noexcept
        cbool reads_blocks() noexcept
        unique_ptr[Stats] node_stats(NodeId) except +infcore_translate
