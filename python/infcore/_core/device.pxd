from libcpp.memory cimport unique_ptr

from infcore._cpp.device cimport EmulatedTimer


cdef class Timer:
    cdef unique_ptr[EmulatedTimer] c_obj
