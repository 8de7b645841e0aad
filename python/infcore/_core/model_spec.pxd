cimport numpy as cnp
from libc.stdint cimport int64_t, uint32_t

from infcore._cpp.device cimport PadLayout
from infcore._cpp.engine cimport LiveRequest


cdef class TensorLayout:
    cdef readonly str name
    cdef readonly object dtype
    cdef int type_num
    cdef int rank
    cdef bint ragged
    cdef bint steps_differ         # ragged in the first axis alone, the batch in front: what a device can pack
    cdef int64_t step_bytes        # of one entry of that axis
    cdef int64_t dims[8]           # -1: ragged
    cdef PadLayout layout
    cdef bint holds(self, cnp.ndarray array)


cdef class ModelSpec:
    """A Model as the hot path wants it: type numbers and lengths instead of Python objects."""
    cdef readonly object model
    cdef readonly str name
    cdef readonly uint32_t id
    cdef public uint32_t epoch     # of this definition of the id, see Driver::add_model
    cdef tuple inputs, outputs
    cdef object work_of
    cdef int work_input            # index of the input whose elements are the work; -1: constant, -2: work_of
    cdef uint32_t n_ragged_dims
    cdef bint by_token             # a TokenModel: its one input is the prompt
    cdef int64_t defer_ns          # how long its requests may be put off, unless they say otherwise
    cdef object bind(self, object inputs, LiveRequest* request)
    cdef double work(self, object inputs, LiveRequest* request) except? -1.0
