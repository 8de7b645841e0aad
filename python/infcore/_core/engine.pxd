from infcore._core.base cimport TenantNames
from infcore._core.flights cimport Flights
from infcore._core.future cimport Future
from infcore._core.token_worker cimport TokenWorkers


cdef class EngineCore(TokenWorkers):
    cdef TenantNames tenants
    cdef Flights flights           # of requests with a key
    cdef Future begin(self, object model, object inputs, object work, object version, object tenant, object tier,
                      object deadline_s, object session, object blocks, object key, object require, object defer_s)
    cdef int _push(self, Future future, bint defer) except -1
    cdef int _wait_for_room(self, Future future) except -1
    cdef object _patience_left_s(self, Future future)
    cdef int _refuse(self, Future future) except -1
