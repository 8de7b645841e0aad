cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t, uint32_t
from libcpp.vector cimport vector

from infcore._core.arena cimport Arena, Region
from infcore._core.model_spec cimport ModelSpec, TensorLayout
from infcore._cpp.device cimport PadLayout, RowSource, RowSpan, RowTable, byte
from infcore._cpp.engine cimport LiveRequest


cdef struct InputPlace:
    int64_t at          # in the batch's region
    int64_t n_bytes
    bint staged         # as staged rows, which the device packs; else dense, padded where ragged


cdef class Staging:
    """How one device's batches of one model are laid into that device's staging memory."""
    cdef ModelSpec spec
    cdef readonly str run_name     # as which the device knows the model
    cdef Arena arena
    cdef tuple input_axes, output_axes
    cdef vector[InputPlace] places
    # Of the input at hand: what _rows and _table lend.
    cdef vector[RowSource] rows
    cdef vector[const byte*] addresses
    cdef vector[int32_t] cu_seqlens
    cdef RowSpan _rows(self, uint32_t i, vector[LiveRequest*]& members)
    cdef RowTable _table(self, uint32_t i, vector[LiveRequest*]& members) except *
    cdef int64_t _dense_bytes(self, TensorLayout t, RowSpan rows) except -1
    cdef Region _place(self, vector[LiveRequest*]& members, bint staged)
    cdef void _write_rows(self, const RowTable& table, InputPlace place, byte* region) noexcept
    cdef void _write_dense(self, RowSpan rows, const PadLayout& layout, InputPlace place, byte* region) noexcept
    cdef object _view(self, TensorLayout t, InputPlace place, Region region)
    cdef dict pack(self, vector[LiveRequest*]& members)
    cdef tuple stage(self, vector[LiveRequest*]& members)
    cdef BatchResult accept(self, str device, object outputs, uint32_t n_requests)


cdef class BatchResult:
    """The outputs of one batch, shared by its requests; each takes its own views."""
    cdef ModelSpec spec
    cdef tuple arrays, axes
    cdef readonly str device
    cdef dict of(self, uint32_t member)


cdef object failure_of(device, model, e)
