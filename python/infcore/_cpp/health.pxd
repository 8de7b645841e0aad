from libc.stdint cimport uint8_t, uint32_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

from infcore._cpp.base cimport ModelId, NodeId, TimeNs
from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.latency cimport BatchShape, LatencyTable


cdef extern from "<infcore/contracts/fleet_columns.hpp>" namespace "infcore::contracts" nogil:
    cdef cppclass FleetColumns:
        pass


cdef extern from "<infcore/contracts/node_health.hpp>" namespace "infcore::contracts" nogil:
    cdef enum class HealthStage(uint8_t):
        well
        ejected
        half_open
        slow_start
        lost
    cdef enum class EjectedFor(uint8_t):
        nothing
    const char* name_of(EjectedFor) noexcept
    cdef cppclass HealthConfig:
        HealthConfig() noexcept
        uint32_t errors_in_a_row, probes
        double error_rate, slow_factor, ejected_share_max
        TimeNs eject_ns, eject_ns_max, forgive_ns, slow_start_ns, forget_ns
    cdef cppclass HealthStatus:
        HealthStage stage
        EjectedFor why
        TimeNs until_ns
        uint32_t n_ejections
    cdef cppclass Answer:
        Answer() noexcept
        NodeId node
        ModelId model
        BatchShape shape
        double service_s
        cbool ok
    cdef cppclass NodeHealth:
        pass


cdef extern from "<infcore/health/health_tracker.hpp>" namespace "infcore::health" nogil:
    unique_ptr[NodeHealth] make_health_tracker(const FleetColumns&, const HealthConfig&) except +infcore_translate


cdef extern from "<infcore/route/health_gate.hpp>" namespace "infcore::route" nogil:
    cdef cppclass HealthGate:
        void tick(TimeNs) except +infcore_translate
        void answered(TimeNs, const Answer&, const LatencyTable&) except +infcore_translate
        void checked(TimeNs, NodeId, cbool ok) except +infcore_translate
        void check_due(TimeNs, vector[NodeId]&) except +infcore_translate
        void follow(TimeNs) except +infcore_translate
        HealthStatus status(NodeId) except +infcore_translate
        string why_out(NodeId) except +infcore_translate
