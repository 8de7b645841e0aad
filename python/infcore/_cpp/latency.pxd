from libc.stdint cimport uint32_t, uint64_t
from libcpp cimport bool as cbool

from infcore._cpp.base cimport ModelId, NodeId
from infcore._cpp.errors cimport infcore_translate


cdef extern from "<infcore/contracts/latency.hpp>" namespace "infcore::contracts" nogil:
    cdef cppclass BatchShape:
        uint32_t n_requests
        double work_sum
        double work_max
    cdef cppclass Curve:
        double base_s
        double per_request_s
        double per_work_s
        double per_padded_work_s
    cdef cppclass LatencyModel:
        LatencyModel() noexcept
        LatencyModel(const Curve&) noexcept
        void observe(const BatchShape&, double) noexcept
        double service_s(const BatchShape&) noexcept
        double upper_s(const BatchShape&) noexcept
        const Curve& curve() noexcept
        uint64_t n_observed() noexcept
        double spread() noexcept
        cbool has_prior() noexcept


cdef extern from "<infcore/contracts/latency_table.hpp>" namespace "infcore::contracts" nogil:
    cdef cppclass LatencyTable:
        LatencyTable(uint32_t max_nodes, uint32_t max_models) except +infcore_translate
        void set_class(NodeId, uint32_t) noexcept
        void set_prior(ModelId, NodeId, const Curve&) except +infcore_translate
        void observe(ModelId, NodeId, const BatchShape&, double) except +infcore_translate
        void forget(NodeId) noexcept
        const LatencyModel& at(ModelId, NodeId) noexcept
