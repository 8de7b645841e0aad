cimport cython

from libc.stdint cimport uint32_t
from libcpp.memory cimport unique_ptr
from libcpp.vector cimport vector

from infcore._core.base cimport Clock
from infcore._core.fleet cimport Fleet
from infcore._cpp.route cimport Explanation, PickOptions, RouteQuery, Router as CppRouter
from infcore._core.health cimport FleetHealth
from infcore._cpp.health cimport HealthGate


cdef class Router:
    cdef unique_ptr[CppRouter] c_obj
    cdef Fleet fleet
    cdef Clock clock
    cdef bint is_default_clock
    cdef uint32_t built_under
    cdef object last_model  # the str of the last pick, and its id
    cdef uint32_t last_model_id
    cdef FleetHealth health  # None: nobody is judged
    cdef object prefix_options
    cdef object _prefix  # made when first asked for

    @cython.final
    cdef inline int check_alive(self) except -1
    cdef HealthGate* judge(self) except NULL
    @cython.final
    cdef inline uint32_t model_of(self, object model) except? 0xFFFFFFFF
    @cython.final
    cdef inline int read_query(self, RouteQuery& query, PickOptions& options, object model, object tier, object deadline_s,
                        object session, object blocks, object require, object allow_late, object lease_s,
                        object now_s) except -1
