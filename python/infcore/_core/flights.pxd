from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr

from infcore._core.base cimport Clock
from infcore._core.cache cimport Store
from infcore._core.model_spec cimport ModelSpec
from infcore._cpp.flight cimport Flight as CFlight, ReentrantBorderMutex
from infcore._cpp.engine cimport LiveRequest


cdef class Flights:
    cdef unique_ptr[ReentrantBorderMutex] lock
    cdef Store cache
    cdef Clock clock               # the engine's
    cdef dict by_key               # flights to which a request may be added
    cdef object __weakref__
    cdef object board(self, LiveRequest* request, ModelSpec spec, Store cache, Clock clock, object key)


cdef class Flight:
    cdef CFlight c
    cdef Flights of
    cdef ModelSpec spec
    cdef object key
    cdef Py_ssize_t n_aboard       # who may still ask what came of it
    cdef object payload            # kept where who landed with it is gone
    cdef object answer             # read-only, of all that waited; and the cache's
    cdef object failure            # a device's; or why there is no answer to be had
    cdef Py_ssize_t n_bytes
    cdef cbool is_taken            # from the payload
    cdef cbool is_outdated         # the cache was told to forget it meanwhile
    cdef bint take(self, dict outputs) except -1
    cdef object left_s(self)
    cdef int keep(self, bint leaves) except -1
    cdef int leave(self) except -1
    cdef int outlive(self, const LiveRequest* request) except -1
    cdef int forget(self) except -1
