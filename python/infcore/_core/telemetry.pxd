from libcpp.memory cimport unique_ptr

from infcore._cpp.telemetry cimport Histogram as CppHistogram


cdef class Histogram:
    cdef unique_ptr[CppHistogram] c_obj


# A copy of what a live histogram of the core holds now: its writers go on undisturbed.
cdef Histogram copy_of(const CppHistogram& live)
