from libcpp.memory cimport shared_ptr

from infcore._core.fleet cimport Fleet
from infcore._cpp.health cimport HealthConfig, HealthGate


cdef class FleetHealth:
    cdef shared_ptr[HealthGate] c_obj
    cdef readonly dict options


# Whether nodes are judged at all; then config says how.
cdef bint read_health(object health, HealthConfig& config) except -1
cdef FleetHealth health_of(Fleet fleet, object health)
