from libcpp.memory cimport unique_ptr

from infcore._cpp.engine cimport Driver
from infcore._cpp.latency cimport LatencyTable
from infcore._core.base cimport Clock
from infcore._core.fleet cimport Fleet
from infcore._core.live cimport Future, Live


cdef class EngineCore:
    cdef readonly Fleet fleet
    cdef Live live
    cdef Driver* driver            # live's
    cdef unique_ptr[LatencyTable] latency
    cdef Clock clock
    cdef dict newest               # name -> ModelSpec, or an alias' choose()
    cdef dict versions             # (name, version) -> ModelSpec
    cdef list by_id                # model id -> ModelSpec, or None
    cdef int n_tiers
    cdef bint accepting
    cdef Future begin(self, object model, object inputs, object work, object version, object tenant, object tier,
                      object deadline_s, object session, object blocks, object key, object require)
