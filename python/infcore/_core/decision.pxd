from libcpp.vector cimport vector

from infcore._cpp.route cimport Decision as CppDecision


cdef class Decisions:
    cdef vector[CppDecision] c_obj  # never resized once pick_many has filled it


cdef class Decision:
    cdef CppDecision own
    cdef CppDecision* c_obj  # &own, or an element of `row_of`
    cdef Decisions row_of
