from libc.stdint cimport int64_t, uint32_t
from libcpp.memory cimport unique_ptr

from infcore._cpp.engine cimport Driver, WorkBatch
from infcore._cpp.latency cimport LatencyTable
from infcore._cpp.base cimport NodeId
from infcore._core.arena cimport Arena
from infcore._core.base cimport Clock
from infcore._core.fleet cimport Fleet
from infcore._core.live cimport Live
from infcore._core.model_spec cimport ModelSpec


cdef class Workers:
    cdef readonly Fleet fleet
    cdef Live live
    cdef Driver* driver            # live's
    cdef unique_ptr[LatencyTable] latency
    cdef Clock clock
    cdef dict newest               # name -> ModelSpec, or what an alias chooses with
    cdef dict versions             # (name, version) -> ModelSpec
    cdef list by_id                # model id -> ModelSpec, or None
    cdef dict run_names            # (node, model id) -> as which that device knows the model
    cdef int n_tiers
    cdef uint32_t block_size       # in which prompts are named; 0: there is no token device
    cdef int64_t ageing_ns         # token devices order what waits there as the engine does
    cdef bint accepting
    cdef object door               # infcore._door.Door
    cdef object stale              # its callable, or None
    cdef uint32_t stale_rung
    cdef bint blocks               # full, submit waits for room
    cdef object cache              # infcore.Cache, or None
    cdef bint cache_is_shared      # by all tenants
    cdef ModelSpec newest_of(self, object name)
    cdef int tell_fallback(self, str name) except -1
    cdef object _run(self, NodeId id, WorkBatch& batch, object device, Arena arena, dict stagings)
