cimport numpy as cnp
from libc.stdint cimport int64_t, uint32_t
from libcpp.vector cimport vector

from infcore._cpp.device cimport PadLayout, RowSource
from infcore._cpp.engine cimport LiveRequest


cdef class TensorLayout:
    cdef readonly str name
    cdef readonly object dtype
    cdef int type_num
    cdef int rank
    cdef bint ragged
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
    cdef object bind(self, object inputs, LiveRequest* request)
    cdef double work(self, object inputs, LiveRequest* request) except? -1.0


cdef class Staging:
    """One device's staging memory for one model."""
    cdef ModelSpec spec
    cdef readonly str run_name     # as which the device knows the model
    cdef list owners
    cdef tuple input_axes, output_axes
    cdef vector[RowSource] rows
    cdef cnp.ndarray _memory(self, uint32_t i, int64_t n_bytes)
    cdef dict pack(self, vector[LiveRequest*]& members)
    cdef BatchResult accept(self, str device, object outputs, uint32_t n_requests)


cdef class BatchResult:
    """The outputs of one batch, shared by its requests; each takes its own views."""
    cdef ModelSpec spec
    cdef tuple arrays, axes
    cdef readonly str device
    cdef dict of(self, uint32_t member)
