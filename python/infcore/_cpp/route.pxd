from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.vector cimport vector

from infcore._cpp.base cimport ModelId, NodeId, TimeNs
from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.latency cimport Curve


cdef extern from "<infcore/base/ids.hpp>" namespace "infcore::base" nogil:
    const NodeId no_node


cdef extern from "<infcore/contracts/node_credit.hpp>" namespace "infcore::contracts" nogil:
    const double not_given
    cdef cppclass Signal:
        TimeNs as_of_ns
        double queue_depth, inflight, cpu, gpu, memory, network, packet_loss, queue_wait_s
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
        uint32_t slots
        Labels labels
    cdef cppclass Fleet:
        Fleet(uint32_t max_nodes) except +infcore_translate
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
        void load_model(NodeId, ModelId) except +infcore_translate
        void unload_model(NodeId, ModelId) except +infcore_translate


cdef extern from "<infcore/route/route_query.hpp>" namespace "infcore::route" nogil:
    cdef cppclass RouteQuery:
        ModelId model
        double work
        uint16_t tier
        TimeNs now_ns, deadline_ns
        uint64_t require, session
    cdef cppclass CostTerms:
        double wait_us, service_us, pressure_us, load_us, network_us, saving_us, price_us, risk_us, explore_us, cost_us
        cbool late


cdef extern from "<infcore/route/routing_policy.hpp>" namespace "infcore::route" nogil:
    cdef cppclass RoutingPolicy:
        pass
    unique_ptr[RoutingPolicy] make_routing_policy(const string&, uint64_t) except +infcore_translate
    vector[string] routing_policies() except +infcore_translate


cdef extern from "<span>" namespace "std" nogil:
    cdef cppclass const_doubles "std::span<const double>":
        const_doubles() noexcept
        const_doubles(const double*, size_t) noexcept


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
    cdef cppclass PickOptions:
        cbool allow_late
        TimeNs lease_end_ns
    cdef cppclass Decision:
        NodeId node
        RouteQuery query
        CostTerms terms
        double price_usd
        cbool feasible
    cdef cppclass Explanation:
        NodeId node
        CostTerms terms
        Filtered filtered
    cdef cppclass Router:
        Router(Fleet&, string, uint64_t, PrefixConfig) except +infcore_translate
        void pick(const RouteQuery&, const PickOptions&, Decision&) except +infcore_translate
        void pick_many(const RouteQuery&, const_doubles, const PickOptions&, vector[Decision]&) except +infcore_translate
        cbool done(Decision&, cbool ok, double, TimeNs) except +infcore_translate
        cbool cancel(Decision&, TimeNs) except +infcore_translate
        size_t done_many(decision_span, cbool ok, const_doubles, TimeNs) except +infcore_translate
        size_t cancel_many(decision_span, TimeNs) except +infcore_translate
        void explain(const RouteQuery&, const PickOptions&, vector[Explanation]&) except +infcore_translate
        void set_prior(ModelId, NodeId, const Curve&) except +infcore_translate
        const char* policy() noexcept
