from libc.stdint cimport uint16_t
from libcpp.memory cimport unique_ptr

from infcore._cpp.engine cimport ActionKind, Driver, Hub, LiveRequest, Reason


cdef class Live:
    """Owns the driver; futures, hubs and threads keep it, so that it outlives them."""
    cdef unique_ptr[Driver] c_obj
    cdef Arrivals threads          # where completions for threads arrive
    cdef dict loops                # event loop -> Arrivals
    cdef Arrivals last_arrivals    # of the loop that submitted last
    cdef public dict node_names    # id -> device name
    cdef Arrivals of_loop(self, object loop)


cdef class Arrivals:
    """One hub, and what runs when something arrives on it."""
    cdef Hub* hub
    cdef Live live
    cdef object loop
    cdef bint deferring            # inside its loop's drain: the dispatcher is told once, at its end
    cdef object parts              # a deque: what has more for its reader on this loop; drained with the rest
    cdef int tell_parts(self) except -1
    cdef dict parked               # tier -> futures that wait for room, in order, and their timers; None: never any
    cdef bint is_behind(self, uint16_t tier) except -1
    cdef int park(self, Pending future, object timeout_s) except -1
    cdef int push_parked(self) except -1
    cdef int end_parked(self, Pending future, ActionKind kind, Reason reason) except -1
    cdef int leave_park(self, Pending future) except -1
    cdef bint unpark(self, Pending future) except -1
    cdef int drain(self) except -1
    cdef int tell(self) except -1


cdef class Pending:
    cdef LiveRequest c
    cdef Live live
    cdef Arrivals arrivals
    cdef bint parked               # it waits for room, in arrivals.parked
    cdef int settle(self) except -1


cdef class Told:
    """What is told on its loop that there is more of it, before it has ended."""
    cdef int tell(self) except -1
