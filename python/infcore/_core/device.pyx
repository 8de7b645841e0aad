"""What a device is handed: rows of requests as one batch."""
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp.vector cimport vector

cimport numpy as cnp

import numpy

from infcore._cpp.device cimport (EmulatedTimer, PadLayout, RowSource, RowSpan, byte, cu_seqlens_of, dims_max_of, max_item_bytes, max_rank,
                                  nogil_bytes_min, pack_rows, packed_steps, pad_rows)

from infcore._cpp.latency cimport BatchShape, Curve

from infcore.errors import InvalidArgument, InvalidType

cnp.import_array()


cdef class Rows:
    """Rows checked to fit into one batch, and kept alive while they are copied from. Not to be changed meanwhile."""

    cdef list _arrays  # C-contiguous: what _sources borrows
    cdef readonly object dtype
    cdef readonly uint32_t rank
    cdef uint32_t _axes  # rank, but a scalar counts as one step
    cdef int64_t _dims_max[max_rank]
    cdef vector[int64_t] _dims
    cdef vector[RowSource] _sources

    def __init__(self, rows):
        cdef size_t i
        try:
            rows = list(rows)  # our own list: the caller's may change under us
        except TypeError:
            raise InvalidType(f"rows is {type(rows).__name__}; allowed: a sequence of arrays") from None
        if not rows:
            raise InvalidArgument("rows is empty; allowed: at least one row")
        cdef cnp.ndarray first = _array(0, rows[0])
        self._take_form(first)
        self._arrays = []
        self._dims.clear()
        self._sources.clear()
        self._dims.reserve(len(rows) * self._axes)
        for i in range(len(rows)):
            self._add(i, first, _array(i, rows[i]))
        dims_max_of(self._span(), self._axes, self._dims_max)
        if packed_steps(self._span()) > INT32_MAX:
            raise InvalidArgument(f"rows hold {packed_steps(self._span())} steps in all; allowed: {INT32_MAX}, "
                                  "as cu_seqlens is int32")

    cdef int _take_form(self, cnp.ndarray first) except -1:
        self.dtype = first.dtype
        self.rank = cnp.PyArray_NDIM(first)
        self._axes = max(self.rank, 1)
        if self.dtype.kind not in "biufc" or self.dtype.itemsize > max_item_bytes:
            raise InvalidType(f"rows[0] has dtype {self.dtype}; allowed: a number or bool of fixed size")
        if self.rank > max_rank:
            raise InvalidArgument(f"rows[0] has {self.rank} axes; allowed: at most {max_rank}")
        return 0

    cdef int _add(self, size_t i, cnp.ndarray first, cnp.ndarray array) except -1:
        cdef uint32_t axis
        cdef RowSource source
        cdef cnp.npy_intp* dims = cnp.PyArray_DIMS(array)
        if not cnp.PyArray_EquivTypes(array.descr, self.dtype):
            raise InvalidType(f"rows[{i}] has dtype {array.dtype}; allowed: {self.dtype}, that of rows[0]")
        cdef bint fits = <uint32_t>cnp.PyArray_NDIM(array) == self.rank
        if fits:
            for axis in range(1, self.rank):
                fits = fits and dims[axis] == cnp.PyArray_DIMS(first)[axis]
        if not fits:
            allowed = ", ".join(["any", *map(str, (<object>first).shape[1:])]) if self.rank else ""
            raise InvalidArgument(f"rows[{i}] has shape {(<object>array).shape}; allowed: ({allowed}), as rows[0]")
        if not cnp.PyArray_IS_C_CONTIGUOUS(array):
            array = cnp.PyArray_GETCONTIGUOUS(array)
        self._arrays.append(array)
        source.data = <const byte*>cnp.PyArray_BYTES(array)
        source.dims = self._dims.data() + self._dims.size()  # reserved above: it does not move
        for axis in range(self._axes):
            self._dims.push_back(dims[axis] if self.rank else 1)
        self._sources.push_back(source)
        return 0

    cdef RowSpan _span(self) noexcept:
        return RowSpan(self._sources.data(), self._sources.size())

    @property
    def max_seqlen(self) -> int:
        return self._dims_max[0]

    def cu_seqlens(self):
        cdef cnp.ndarray out = numpy.empty(self._sources.size() + 1, numpy.int32)
        cu_seqlens_of(self._span(), <int32_t*>cnp.PyArray_DATA(out))
        return out

    def packed(self):
        cdef tuple trailing = self._arrays[0].shape[1:]
        cdef cnp.ndarray out = numpy.empty((packed_steps(self._span()), *trailing), self.dtype)
        cdef byte* dst = <byte*>cnp.PyArray_BYTES(out)
        cdef size_t step_bytes = self.dtype.itemsize
        cdef uint32_t axis
        for axis in range(1, self.rank):
            step_bytes *= self._dims_max[axis]
        cdef RowSpan rows = self._span()
        if cnp.PyArray_NBYTES(out) < nogil_bytes_min:
            pack_rows(rows, step_bytes, dst)
        else:
            with nogil:
                pack_rows(rows, step_bytes, dst)
        return out

    def padded(self, bytes pad_item not None, uint32_t batch_axis):
        cdef PadLayout layout
        layout.item_bytes = self.dtype.itemsize
        layout.rank = self.rank
        layout.batch_axis = batch_axis
        memcpy(layout.dims_max, self._dims_max, self.rank * sizeof(int64_t))
        memcpy(layout.pad_item, <const char*>pad_item, layout.item_bytes)
        cdef list shape = [self._dims_max[axis] for axis in range(self.rank)]
        shape.insert(batch_axis, self._sources.size())
        cdef cnp.ndarray out = numpy.empty(shape, self.dtype)
        cdef byte* dst = <byte*>cnp.PyArray_BYTES(out)
        cdef RowSpan rows = self._span()
        if cnp.PyArray_NBYTES(out) < nogil_bytes_min:
            pad_rows(rows, layout, dst)
        else:
            with nogil:
                pad_rows(rows, layout, dst)
        return out


cdef cnp.ndarray _array(size_t i, object row):
    if cnp.PyArray_Check(row):
        return row
    try:
        return numpy.asarray(row)
    except ValueError as ragged:
        raise InvalidArgument(f"rows[{i}] is no array: {ragged}") from None


cdef class Timer:
    """The service times of an emulated device: a curve's times a lognormal factor, from one seed."""

    def __init__(self, double cv, seed):
        self.c_obj.reset(new EmulatedTimer(cv, <uint64_t>seed))

    def service_s(self, curve, uint32_t n_requests, double work_sum, double work_max):
        cdef Curve c
        cdef BatchShape shape
        c.base_s, c.per_request_s, c.per_work_s, c.per_padded_work_s = curve
        shape.n_requests = n_requests
        shape.work_sum = work_sum
        shape.work_max = work_max
        return self.c_obj.get().service_s(c, shape)
