cimport numpy as cnp
from libc.stdint cimport int64_t
from libcpp.memory cimport unique_ptr

from infcore._core.token_sequence cimport TokenSpec
from infcore._cpp.token_run cimport SequenceRequest, TokenRun as Core


cdef class TokenRun:
    cdef unique_ptr[Core] c_obj
    cdef object make_step
    cdef int64_t clock_ns          # where nobody hands in a time
    cdef int add_tokens(self, cnp.ndarray tokens, const SequenceRequest& request) except -1
    cdef object step_at(self, int64_t now_ns)
    cdef object _arrays(self)


cdef cnp.ndarray checked_tokens(str device, TokenSpec spec, object made, Py_ssize_t n)
