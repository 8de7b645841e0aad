from libcpp.vector cimport vector

from infcore._core.fleet cimport Fleet
from infcore._cpp.route cimport Decision as CppDecision


cdef class Decisions:
    cdef Fleet fleet
    cdef vector[CppDecision] c_obj  # never resized once pick_many has filled it


cdef class Decision:
    cdef Fleet fleet  # whose names its models have
    cdef CppDecision own
    cdef CppDecision* element  # of `row_of`; NULL: `own` is it
    cdef Decisions row_of


cdef inline CppDecision* of(Decision decision) noexcept:
    return &decision.own if decision.element == NULL else decision.element
