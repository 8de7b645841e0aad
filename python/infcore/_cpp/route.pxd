from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport shared_ptr, unique_ptr
from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.vector cimport vector

from infcore._cpp.base cimport ModelId, NodeId, TimeNs
from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.health cimport FleetColumns, HealthGate, NodeHealth
from infcore._cpp.latency cimport Curve


cdef extern from "<infcore/base/ids.hpp>" namespace "infcore::base" nogil:
    const NodeId no_node
    const ModelId no_model


cdef extern from "<infcore/contracts/node_credit.hpp>" namespace "infcore::contracts" nogil:
    const double not_given
    cdef cppclass Signal:
        TimeNs as_of_ns
        double queue_depth, inflight, cpu, gpu, memory, network, packet_loss, queue_wait_s, error_rate
    cdef cppclass Credit:
        int64_t inflight
        int64_t reserved_ns


cdef extern from "<infcore/route/fleet.hpp>" namespace "infcore::route" nogil:
    ctypedef vector[pair[string, string]] Labels
    cdef enum class NodeState(uint8_t):
        absent
        up
        draining
        lost
        ejected
    const char* name_of(NodeState) noexcept
    const uint64_t no_such_label "infcore::route::Fleet::no_such_label"
    cdef cppclass NodeSpec:
        string name, kind, zone, location
        uint64_t memory_bytes
        double price_per_hour, rtt_s
        uint32_t slots, pending_max
        Labels labels
    cdef cppclass ModelSize:
        uint64_t weights_bytes, require
        double load_s
    const uint32_t models_max "infcore::route::Fleet::models_max"
    const TimeNs untimed "infcore::route::Fleet::untimed"
    cdef cppclass Fleet:
        Fleet(uint32_t max_nodes, uint32_t max_models) except +infcore_translate
        Fleet(const string& shared, uint32_t max_nodes, uint32_t max_models, TimeNs heartbeat,
              TimeNs now) except +infcore_translate
        void bound_pending(NodeId, uint32_t) noexcept
        uint32_t pending_max(NodeId) noexcept
        void beat(TimeNs) noexcept
        void beat_if_due(TimeNs) noexcept
        void end_leases(TimeNs) noexcept
        cbool unlink() noexcept
        uint32_t n_processes() noexcept
        uint32_t n_present() except +infcore_translate
        void declare_model(ModelId, const ModelSize&) except +infcore_translate
        ModelSize size_of(ModelId) noexcept
        cbool is_declared(ModelId) noexcept
        vector[uint64_t] used_bytes() except +infcore_translate
        cbool load_costs(ModelId, float*) except +infcore_translate
        uint32_t n_models() except +infcore_translate
        const string& model_name(ModelId) noexcept
        uint32_t model_version(ModelId) noexcept
        NodeId add(const NodeSpec&) except +infcore_translate
        void drain(NodeId) except +infcore_translate
        void remove(NodeId) except +infcore_translate
        void set_state(NodeId, NodeState) except +infcore_translate
        cbool signal(NodeId, const Signal&) noexcept
        void reserve(NodeId, double, TimeNs) noexcept
        void release(NodeId, double, TimeNs) noexcept
        double wait_s(NodeId) noexcept
        uint32_t inflight(NodeId) noexcept
        NodeState state(NodeId) noexcept
        cbool resident(NodeId, ModelId) noexcept
        void read(NodeId, Credit&, Signal&) noexcept
        const NodeSpec& spec(NodeId) noexcept
        uint32_t n_nodes() noexcept
        uint32_t max_nodes() noexcept
        uint32_t max_models() noexcept
        NodeId find(string) except +infcore_translate
        uint64_t version() noexcept
        uint64_t born(NodeId) noexcept
        uint64_t label_bits(const Labels&, cbool add) except +infcore_translate
        ModelId model_id(string, uint32_t version) except +infcore_translate
        const string& model_name(ModelId) noexcept
        void load_model(NodeId, ModelId) except +infcore_translate
        void unload_model(NodeId, ModelId) except +infcore_translate
        const FleetColumns& columns() noexcept


cdef extern from "<span>" namespace "std" nogil:
    cdef cppclass const_blocks "std::span<const std::uint64_t>":
        const_blocks() noexcept
        const_blocks(const uint64_t*, size_t) noexcept
        size_t size() noexcept
        const uint64_t* data() noexcept


cdef extern from "<infcore/route/routing_options.hpp>" namespace "infcore::route" nogil:
    cdef cppclass OptionValue "infcore::route::RoutingOptions::Value":
        OptionValue(double) except +infcore_translate
        OptionValue(string) except +infcore_translate
        OptionValue(vector[string]) except +infcore_translate
    cdef cppclass RoutingOptions:
        void set(string, OptionValue) except +infcore_translate


cdef extern from "<infcore/route/route_query.hpp>" namespace "infcore::route" nogil:
    cdef cppclass RouteQuery:
        ModelId model
        double work
        uint16_t tier
        TimeNs now_ns, deadline_ns
        uint64_t require, session
        const_blocks blocks
    cdef cppclass CostTerms:
        double wait_us, service_us, pressure_us, load_us, network_us, saving_us, price_us, risk_us, explore_us, cost_us
        cbool late


cdef extern from "<infcore/route/routing_policy.hpp>" namespace "infcore::route" nogil:
    cdef cppclass RoutingPolicy:
        cbool failed() noexcept
        void rethrow() except +infcore_translate
    unique_ptr[RoutingPolicy] make_routing_policy(const string&, uint64_t) except +infcore_translate
    unique_ptr[RoutingPolicy] make_routing_policy(const string&, uint64_t, RoutingOptions) except +infcore_translate
    vector[string] routing_policies() except +infcore_translate


cdef extern from "<span>" namespace "std" nogil:
    cdef cppclass const_doubles "std::span<const double>":
        const_doubles() noexcept
        const_doubles(const double*, size_t) noexcept


cdef extern from "<infcore/route/health_gate.hpp>" namespace "infcore::route" nogil:
    shared_ptr[HealthGate] make_health_gate(Fleet&, unique_ptr[NodeHealth]) except +infcore_translate


cdef extern from "<infcore/route/prefix_index.hpp>" namespace "infcore::route" nogil:
    cdef cppclass PrefixConfig:
        PrefixConfig() noexcept
        uint32_t max_nodes
        uint32_t max_blocks
        float host_credit
        float disk_credit
        cbool approximate
        TimeNs ttl_ns


cdef extern from "<infcore/route/router.hpp>" namespace "infcore::route" nogil:
    cdef cppclass decision_span "std::span<infcore::route::Decision>":
        decision_span(Decision*, size_t) noexcept
    cdef enum class Filtered(uint8_t):
        no
        not_up
        no_model
        no_label
        late
        full
    cdef cppclass PickOptions:
        cbool allow_late
        TimeNs lease_end_ns
    cdef cppclass Decision:
        NodeId node
        ModelId model
        CostTerms terms
        double price_usd
        ModelId next_model
        cbool feasible, begins_load
    cdef cppclass Explanation:
        NodeId node
        CostTerms terms
        Filtered filtered
        string left_out


cdef extern from "<infcore/route/guarded_router.hpp>" namespace "infcore::route" nogil:
    cdef cppclass Router "infcore::route::GuardedRouter":
        Router(Fleet&, string, uint64_t, RoutingOptions, PrefixConfig) except +infcore_translate
        Router(Fleet&, unique_ptr[RoutingPolicy], PrefixConfig) except +infcore_translate
        void pick(const RouteQuery&, const PickOptions&, Decision&) except +infcore_translate
        void pick_many(const RouteQuery&, const_doubles, const PickOptions&, vector[Decision]&) except +infcore_translate
        cbool done(Decision&, cbool ok, double, TimeNs, double confidence) except +infcore_translate
        cbool cancel(Decision&, TimeNs) except +infcore_translate
        size_t done_many(decision_span, cbool ok, const_doubles, TimeNs) except +infcore_translate
        size_t cancel_many(decision_span, TimeNs) except +infcore_translate
        void explain(const RouteQuery&, const PickOptions&, vector[Explanation]&) except +infcore_translate
        void set_prior(ModelId, NodeId, const Curve&) except +infcore_translate
        void use_health(shared_ptr[HealthGate]) except +infcore_translate
        const char* policy() noexcept


cdef extern from "<infcore/contracts/session_hash.hpp>" namespace "infcore::contracts" nogil:
    uint64_t session_hash(const char*, size_t) noexcept
    uint64_t session_hash(uint64_t) noexcept
