from libc.stdint cimport uint32_t
from libcpp.memory cimport unique_ptr

from infcore._cpp.latency cimport (BatchShape, Curve, LatencyModel as CppLatencyModel,
                                   LatencyTable as CppLatencyTable)


cdef class LatencyModel:
    cdef CppLatencyModel c_obj


cdef class LatencyTable:
    cdef unique_ptr[CppLatencyTable] c_obj


cdef BatchShape shape_of(uint32_t n_requests, double work_sum, double work_max)
# Four seconds; raises InvalidArgument or InvalidType for a term that is none.
cdef Curve curve_of(prior) except *
