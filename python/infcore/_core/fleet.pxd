from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string

from infcore._core.base cimport Clock
from infcore._cpp.base cimport ModelId, NodeId
from infcore._cpp.route cimport Fleet as CppFleet, Labels, NodeState, Signal


cdef class SignalGate:
    """Takes a fleet's signals for whoever must know when they came: an engine that keeps a log."""
    cdef bint take(self, NodeId id, const Signal& signal) except *


cdef class Fleet:
    cdef unique_ptr[CppFleet] c_obj  # what borrows it keeps a reference to this object
    cdef Clock clock
    cdef uint32_t built_under
    cdef dict model_ids  # name -> id of "any version"

    cdef object health  # a FleetHealth, once a Router judges its nodes

    cdef object owner  # an engine's: its members change through that engine alone, which has to know
    cdef SignalGate gate  # None: signals go straight to the table
    cdef bint take(self, NodeId id, const Signal& signal) except *
    cdef int check_alive(self) except -1
    cdef int check_free(self, str what) except -1
    cdef NodeId node_of(self, object node) except *
    cdef ModelId exact_model(self, object model, object version) except *
    cpdef object find_model(self, str model)
    cdef uint64_t require_bits(self, object require) except? 0
    cdef bint _turn(self, str what, object node, NodeState old, NodeState new) except *


# An int from least to most, or an InvalidArgument/InvalidType that names the field.
cdef int64_t whole(str field, object value, int64_t least, int64_t most) except? -1
# UTF-8 of a str, or an InvalidArgument/InvalidType that names the field.
cdef string text(str field, object value) except *
cdef Labels labels_of(str field, object labels) except *
