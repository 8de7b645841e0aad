from libc.stdint cimport int32_t, uint32_t
from libcpp.memory cimport unique_ptr
from libcpp.vector cimport vector

from infcore._core.base cimport Clock
from infcore._core.fleet cimport Fleet
from infcore._core.prefix_events cimport EngineEvents
from infcore._cpp.prefix cimport RouterPrefix


cdef class Prefix:
    cdef unique_ptr[RouterPrefix] c_obj
    cdef object router  # keeps what c_obj borrows
    cdef Fleet fleet
    cdef Clock clock
    cdef EngineEvents events
    cdef uint32_t built_under
    cdef bint forgets  # picks, by the time
    cdef vector[int32_t] nodes, held
    cdef RouterPrefix* alive(self) except NULL
