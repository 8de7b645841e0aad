from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.vector cimport vector

from infcore._cpp.base cimport ModelId, NodeId, TimeNs
from infcore._cpp.engine cimport Action, ModelConfig, NodeConfig, Reason, Request, RunConfig
from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.latency cimport BatchShape, Curve
from infcore._cpp.route cimport Labels, NodeSpec, Signal


cdef extern from "<fstream>" namespace "std" nogil:
    cdef cppclass istream:
        pass
    cdef cppclass ifstream(istream):
        ifstream(const char*, int) except +infcore_translate
        cbool is_open() noexcept
    const int binary "std::ios_base::binary"


cdef extern from *:
    """
    #include <infcore/engine/event_format.hpp>
    typedef std::array<float, infcore::engine::cost_terms.size()> InfcoreCostFigures;
    """
    cdef cppclass CostFigures "InfcoreCostFigures":
        float operator[](size_t) noexcept


cdef extern from "<infcore/engine/event_format.hpp>" namespace "infcore::engine" nogil:
    cdef enum class EventKind(uint8_t):
        run
        model
        label
        add_model
        remove_model
        add_node
        residency
        drain_node
        remove_node
        node_lost
        node_back
        prior
        signal
        arrive
        cancel
        cancel_all
        claim
        started
        complete
        tick
        schedule
        first_token
        progress
        node_failed
        prompt
        checked
        may_hold
        loaded
        end


cdef extern from "<infcore/engine/event_format.hpp>" namespace "infcore::engine" nogil:
    const char** cost_term_names "((const char**)infcore::engine::cost_term_names.data())"
    size_t n_cost_terms "infcore::engine::cost_term_names.size()"


cdef extern from "<infcore/engine/event_reader.hpp>" namespace "infcore::engine" nogil:
    cdef cppclass EventRecord:
        EventRecord() noexcept
        EventKind kind
        cbool is_action
        uint64_t byte, index
        TimeNs now_ns
        NodeId node
        ModelId model
        uint64_t request, batch_id
        cbool ok
        Reason reason
        Action action
        cbool has_terms
        CostFigures terms
        Request arrived
        RunConfig run
        ModelConfig model_config
        NodeConfig node_config
        NodeSpec spec
        Curve curve
        double load_s
        Signal signal
        vector[ModelId] held
        Request prompt
        vector[uint64_t] blocks
        string name, value
        uint32_t version
        uint64_t n_requests, n_actions, n_records
    cdef cppclass EventReader:
        EventReader(istream&, string, cbool) except +infcore_translate
        cbool next(EventRecord&) except +infcore_translate


cdef extern from "<infcore/sim/replay.hpp>" namespace "infcore::sim" nogil:
    cdef cppclass RecordedNode:
        NodeId id
        TimeNs added_ns, removed_ns
        NodeSpec spec
        NodeConfig config
    cdef cppclass RecordedModel:
        ModelId id
        string name
        uint32_t version
        ModelConfig config
    cdef cppclass RecordedBatch:
        uint32_t model, node
        BatchShape shape
        TimeNs start_ns, end_ns
        cbool ok
    cdef cppclass RecordedCurve:
        uint32_t model, node
        Curve curve
        double spread
        uint64_t n_observed
    cdef cppclass Difference:
        uint64_t byte, record
        TimeNs now_ns
        string recorded, replayed
    cdef cppclass MaybeDifference "std::optional<infcore::sim::Difference>":
        cbool has_value() noexcept
        const Difference& value() noexcept
    cdef cppclass Replay:
        Replay(istream&, string, cbool partial, cbool collect) except +infcore_translate
        cbool run(uint64_t) except +infcore_translate
        uint64_t digest() noexcept
        uint64_t recorded_digest() noexcept
        const MaybeDifference& first_difference() noexcept
        uint64_t n_events() noexcept
        uint64_t n_requests() noexcept
        uint64_t n_actions() noexcept
        cbool complete() noexcept
        const RunConfig& config() noexcept
        const vector[RecordedNode]& nodes() noexcept
        const vector[RecordedModel]& models() noexcept
        const Labels& labels() noexcept
        const vector[Request]& arrivals() noexcept
        const vector[RecordedBatch]& batches() noexcept
        const vector[RecordedCurve]& curves() noexcept
