from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

from infcore._cpp.base cimport ModelId, TimeNs
from infcore._cpp.engine cimport Outcomes, ModelConfig as EngineModelConfig
from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.route cimport RoutingOptions
from infcore._cpp.kv cimport ConstNames, TokenCurve
from infcore._cpp.latency cimport Curve
from infcore._cpp.route cimport Labels, NodeSpec
from infcore._cpp.telemetry cimport Histogram


cdef extern from "<infcore/sim/config.hpp>" namespace "infcore::sim" nogil:
    cdef enum class WorkKind "infcore::sim::WorkDist::Kind"(uint8_t):
        constant
        lognormal
        exponential
        uniform
        gamma
        pareto
    cdef cppclass WorkDist:
        WorkKind kind
        double mean, cv, low, high, at_least, at_most
    cdef enum class RateKind "infcore::sim::RateShape::Kind"(uint8_t):
        constant
        onoff
        diurnal
        weekly
        flash_sale
    cdef cppclass RateShape:
        RateKind kind
        double on_s, off_s, on_factor, period_s, peak_to_mean, weekend_factor, at_s, ramp_s, for_s, peak_factor, phase_s
    cdef enum class Gaps "infcore::sim::WorkloadConfig::Gaps"(uint8_t):
        poisson
        gamma
        regular
        rows
    cdef cppclass PrefixConfig:
        uint32_t groups, tokens
        double share, zipf
    cdef cppclass WorkloadConfig:
        ModelId model
        double rate_rps, gap_cv, deadline_s, start_s, end_s, turns_mean, think_s_mean, defer_s, stale_share
        uint32_t context_tokens_max
        WorkDist prompt_tokens, output_tokens
        PrefixConfig prefix
        Gaps gaps
        RateShape rate
        WorkDist work
        uint32_t tenant
        string tenant_name
        uint16_t tier
        Labels require
    cdef cppclass ModelConfig:
        string name
        EngineModelConfig engine
        uint32_t figures
        double slo_s, load_s, warmup_s
        cbool tokens
        double slo_ttft_s, slo_itl_s
    cdef cppclass Service:
        Curve curve
        double cv
    cdef cppclass TokenService:
        TokenCurve curve
        double cv
        uint32_t n_blocks, block_size, token_budget, max_running, host_blocks, context_tokens_max
    cdef enum class Residency(uint8_t):
        never
        loads
        holds
    cdef cppclass NodeConfig:
        NodeConfig() noexcept
        NodeSpec spec
        vector[int32_t] service
        vector[Residency] residency
        cbool loads_beside_runs
        int32_t token_service
    cdef enum class FaultKind(uint8_t):
        crash
        slow
        hang
        errors
        lost_completions
        partition
        freeze_signals
    cdef cppclass FaultConfig:
        FaultKind kind
        double at_s, for_s, factor, rate
        vector[uint32_t] nodes
    cdef cppclass RandomFaultConfig:
        FaultKind kind
        double rate_per_node_hour, for_s, factor, rate
        vector[uint32_t] nodes
    cdef cppclass AntagonistConfig:
        uint32_t node
        double factor, on_s, off_s
    cdef cppclass SimConfig:
        uint64_t seed
        double seconds, warmup_s, ageing_s, run_limit_s, detect_s, probe_s, handoff_s, answer_s
        cbool curves_known
        double signal_period_s, signal_delay_s, signal_loss
        string policy, batching, residency
        RoutingOptions policy_options
        vector[string] admission
        double overload_wait_s
        vector[uint32_t] tier_capacity
        cbool shed_lowest, judges_health
        uint32_t max_requests
        uint8_t attempts_max
        double hedge_quantile, hedge_budget, retry_budget
        uint16_t n_tiers
        vector[ModelConfig] models
        vector[Service] services
        vector[TokenService] token_services
        vector[NodeConfig] nodes
        vector[WorkloadConfig] workloads
        vector[FaultConfig] faults
        vector[RandomFaultConfig] random_faults
        vector[AntagonistConfig] antagonists


cdef extern from * nogil:
    """
    #include <span>
    #include <infcore/sim/arrivals.hpp>
    typedef std::span<const infcore::sim::Arrival> InfcoreArrivals;
    """
    cdef cppclass Arrivals "InfcoreArrivals":
        Arrivals(const Arrival*, size_t) noexcept


cdef extern from "<infcore/sim/prompt_draw.hpp>" namespace "infcore::sim" nogil:
    cdef cppclass TokenWork:
        uint64_t group, content
        uint32_t prompt, output, shared, known


cdef extern from "<infcore/sim/arrivals.hpp>" namespace "infcore::sim" nogil:
    cdef cppclass Arrival:
        TimeNs at_ns, deadline_ns
        double work
        uint64_t session
        uint32_t workload, n_names, tenant
        uint16_t tier
        TokenWork tokens


cdef extern from "<infcore/sim/ledger.hpp>" namespace "infcore::sim" nogil:
    cdef cppclass TokenFigures:
        Histogram ttft_s, itl_s
        double ttft_sum_s, itl_sum_s
        uint64_t prompt_tokens, cached_tokens, output_tokens
    cdef cppclass Totals:
        unique_ptr[TokenFigures] tokens
        uint64_t arrivals, within_slo
        uint64_t outcomes[6]
        Histogram latency_s, wait_s, regret_s
        double work, latency_sum_s
        uint64_t reasons[20]
        uint64_t forms[20]
    cdef cppclass NodeUse:
        double busy_s
        uint64_t requests, batches, faults, loads
        vector[float] busy_part_s
    cdef cppclass Part "infcore::sim::Ledger::Part":
        uint64_t arrivals, within_slo, ok
        double latency_sum_s, latency_max_s
    cdef cppclass Ledger:
        const Totals& all() noexcept
        const Totals& models(uint32_t) noexcept
        uint32_t n_figures() noexcept
        const vector[NodeUse]& nodes() noexcept
        const vector[Part]& parts() noexcept
        double part_s() noexcept
        TimeNs last_ok_ns() noexcept
        TimeNs last_run_ns() noexcept


cdef extern from "<infcore/sim/token_node.hpp>" namespace "infcore::sim" nogil:
    cdef cppclass TokenTotals "infcore::sim::TokenNode::Totals":
        uint64_t steps, prefill_tokens, output_tokens, preempted


cdef extern from "<infcore/sim/simulation.hpp>" namespace "infcore::sim" nogil:
    cdef enum class Pause(uint8_t):
        steps
        rows
        log
        end
    cdef cppclass RequestLog:
        const string& lines() noexcept
        void clear() noexcept
    cdef cppclass FaultEvent:
        TimeNs at_ns
        uint32_t node
        FaultKind kind
        cbool begins
    cdef cppclass Simulation:
        Simulation(const SimConfig&, cbool with_rows, cbool with_log) except +infcore_translate
        Pause run(uint64_t steps_max) except +infcore_translate
        void feed(Arrivals, ConstNames) except +infcore_translate
        void close_rows() noexcept
        RequestLog& log() noexcept
        const Ledger& ledger() noexcept
        TimeNs now_ns() noexcept
        uint64_t n_requests() noexcept
        uint64_t n_steps() noexcept
        uint64_t digest() noexcept
        uint64_t n_lost() noexcept
        uint64_t n_duplicated() noexcept
        uint64_t n_violations() noexcept
        const string& first_violation() noexcept
        const vector[FaultEvent]& fault_events() noexcept
        uint64_t n_faults() noexcept
        double bound_cost_usd() noexcept
        Outcomes second_runs() noexcept
        TokenTotals token_totals() noexcept
