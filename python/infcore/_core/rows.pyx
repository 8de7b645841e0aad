"""Rows of requests -> one batch in the caller's own array."""
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint32_t

cimport numpy as cnp

import sys

import numpy

from infcore._cpp.device cimport (BatchItem, Item, PaddedForm, RowPointers, RowTable, byte, cast_of, max_item_bytes, max_rank,
                                  nogil_bytes_min, pack_table, pad_table)

from infcore.errors import InvalidArgument, InvalidType

cnp.import_array()

# Borrowed references: counting one up and down for each row would take as long as the rest of the loop.
cdef extern from "numpy/arrayobject.h":
    ctypedef struct Descr "PyArray_Descr":
        pass
    ctypedef struct TypeObject "PyTypeObject":
        pass
    TypeObject array_type "PyArray_Type"
    TypeObject* type_of "Py_TYPE"(PyObject*) noexcept
    Descr* descr_of "PyArray_DESCR"(const ArrayObject*) noexcept
    int flags_of "PyArray_FLAGS"(const ArrayObject*) noexcept
    int rank_of "PyArray_NDIM"(const ArrayObject*) noexcept
    cnp.npy_intp* dims_of "PyArray_DIMS"(ArrayObject*) noexcept
    void* data_of "PyArray_DATA"(ArrayObject*) noexcept
    PyObject** items_of "PySequence_Fast_ITEMS"(object) noexcept
    object array_empty "PyArray_Empty"(int, cnp.npy_intp*, Descr*, int)
    object array_zeros "PyArray_Zeros"(int, cnp.npy_intp*, Descr*, int)

# From here on glibc gives new pages each time, which are zeros already (mallopt(3): M_MMAP_THRESHOLD at its largest).
cdef double new_bytes_min = 32 << 20

# In the order of infcore::device::Item.
item_names = ("float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8")
cdef dict _items = {numpy.dtype(name): item for item, name in enumerate(item_names) if name != "bfloat16"}


cdef class Rows:
    """Rows checked to fit into one batch, and kept alive while they are copied from. Not to be changed meanwhile."""

    def __init__(self, rows, lengths=None):
        cdef const int64_t* wanted = NULL
        cdef cnp.ndarray checked
        cdef cnp.npy_intp n_bounds
        cdef bint dense = isinstance(rows, numpy.ndarray) and rows.ndim > 0
        if not dense and type(rows) is not tuple:
            try:
                rows = list(rows)
            except TypeError:
                raise InvalidType(f"rows is {type(rows).__name__}; allowed: a sequence of arrays") from None
        self.n = len(rows)
        if self.n == 0:
            raise InvalidArgument("rows is empty; allowed: at least one row")
        if dense and not rows[0, ...].flags.c_contiguous:
            rows = numpy.ascontiguousarray(rows)
        self._held = rows
        self._take_form(rows[0, ...] if dense else _array(0, rows[0]))
        if lengths is not None:
            checked = self._checked_lengths(lengths)
            wanted = <const int64_t*>cnp.PyArray_DATA(checked)
        n_bounds = self.n + 1
        self.cu_seqlens = cnp.PyArray_EMPTY(1, &n_bounds, cnp.NPY_INT32, 0)
        PyMem_Free(self._data)
        self._data = <const byte**>PyMem_Malloc(self.n * sizeof(byte*))
        if self._data == NULL:
            raise MemoryError
        self._take_rows(wanted, dense)

    def __dealloc__(self):
        PyMem_Free(self._data)

    cdef int _take_form(self, cnp.ndarray first) except -1:
        cdef uint32_t axis
        self._first = first
        self.dtype = first.dtype
        self.rank = cnp.PyArray_NDIM(first)
        if (self.dtype.kind not in "biufc" or self.dtype.itemsize > max_item_bytes) and not is_bfloat16(self.dtype):
            raise InvalidType(f"rows[0] has dtype {self.dtype}; allowed: a number or bool of fixed size")
        if self.rank > max_rank:
            raise InvalidArgument(f"rows[0] has {self.rank} axes; allowed: at most {max_rank}")
        self._step_items = 1
        for axis in range(1, self.rank):
            self._step_items *= cnp.PyArray_DIM(first, axis)
        return 0

    cdef int _take_rows(self, const int64_t* wanted, bint dense) except -1:
        cdef Py_ssize_t i
        cdef int axis
        cdef int64_t steps
        cdef int64_t total = 0
        cdef int64_t longest = 0
        cdef bint fits
        cdef ArrayObject* array = <ArrayObject*>self._first
        cdef cnp.npy_intp* dims = dims_of(array)
        cdef PyObject** items = NULL
        cdef Py_ssize_t row_stride = 0
        cdef Descr* descr = descr_of(array)
        cdef cnp.npy_intp* first_dims = dims
        cdef int rank = <int>self.rank
        cdef int32_t* bounds = <int32_t*>cnp.PyArray_DATA(self.cu_seqlens)
        cdef const byte** data = self._data
        bounds[0] = 0
        if dense:
            row_stride = cnp.PyArray_STRIDE(<cnp.ndarray>self._held, 0)
        else:
            items = items_of(self._held)
        for i in range(self.n):
            if dense:
                data[i] = <const byte*>(<char*>data_of(array) + i * row_stride)
            else:
                array = <ArrayObject*>items[i]
                fits = (type_of(items[i]) == &array_type and descr_of(array) == descr and rank_of(array) == rank
                        and flags_of(array) & cnp.NPY_ARRAY_C_CONTIGUOUS != 0)
                if fits:
                    dims = dims_of(array)
                    for axis in range(1, rank):
                        fits = fits and dims[axis] == first_dims[axis]
                if not fits:
                    array = self._convert(i, <object>items[i])
                    dims = dims_of(array)
                data[i] = <const byte*>data_of(array)
            steps = dims[0] if rank > 0 else 1
            if wanted != NULL:
                if not 0 <= wanted[i] <= steps:
                    self._overrun(i, wanted[i], steps)
                steps = wanted[i]
            total += steps
            if total > INT32_MAX:
                self._too_many(wanted)
            longest = max(longest, steps)
            bounds[i + 1] = <int32_t>total
        self._steps = total
        self.max_seqlen = longest
        return 0

    cdef ArrayObject* _convert(self, Py_ssize_t i, object row) except NULL:
        """A row that is not yet an array as the first one is, C-contiguous: kept here."""
        cdef cnp.ndarray array = _array(i, row)
        cdef uint32_t axis
        if not cnp.PyArray_EquivTypes(array.descr, self.dtype):
            raise InvalidType(f"rows[{i}] has dtype {array.dtype}; allowed: {self.dtype}, that of rows[0]")
        cdef bint fits = <uint32_t>cnp.PyArray_NDIM(array) == self.rank
        if fits:
            for axis in range(1, self.rank):
                fits = fits and cnp.PyArray_DIM(array, axis) == cnp.PyArray_DIM(self._first, axis)
        if not fits:
            allowed = ", ".join(["any", *map(str, (<object>self._first).shape[1:])]) if self.rank else ""
            raise InvalidArgument(f"rows[{i}] has shape {(<object>array).shape}; allowed: ({allowed}), as rows[0]")
        if not cnp.PyArray_IS_C_CONTIGUOUS(array):
            array = cnp.PyArray_GETCONTIGUOUS(array)
        if self._converted is None:
            self._converted = []
        self._converted.append(array)
        return <ArrayObject*>array

    cdef cnp.ndarray _checked_lengths(self, object lengths):
        given = numpy.asarray(lengths)
        if self.rank == 0:
            raise InvalidArgument("lengths is given; allowed: None, as rows[0] is one number")
        if given.ndim != 1 or given.dtype.kind not in "iu":
            raise InvalidType(f"lengths is {given.dtype} of shape {given.shape}; allowed: {self.n} integers")
        if given.shape[0] != self.n:
            raise InvalidArgument(f"lengths has {given.shape[0]} entries; allowed: {self.n}, one for each row")
        if given.dtype == numpy.uint64:
            given = numpy.minimum(given, numpy.uint64(2**63 - 1))
        return numpy.ascontiguousarray(given, numpy.int64)

    cdef int _overrun(self, Py_ssize_t i, int64_t wanted, int64_t steps) except -1:
        raise InvalidArgument(f"lengths[{i}] is {wanted}; allowed: 0 to {steps}, the steps of rows[{i}]")

    cdef int _too_many(self, const int64_t* wanted) except -1:
        cdef Py_ssize_t i
        steps = sum([<object>wanted[i] for i in range(self.n)]) if wanted != NULL else sum(map(len, self._held))
        raise InvalidArgument(f"rows hold {steps} steps in all; allowed: {INT32_MAX}, as cu_seqlens is int32")

    @property
    def trailing(self) -> tuple:
        """Shape of a step."""
        return (<object>self._first).shape[1:]

    def packed(self, dtype):
        """A fresh array (sum of lengths, *trailing), of dtype."""
        cdef BatchItem item = self._item(dtype)
        cdef cnp.npy_intp dims[max_rank + 1]
        cdef cnp.ndarray out
        cdef RowTable table = self._table()
        cdef byte* dst
        self._copy_trailing(dims)
        dims[0] = self._steps
        out = _array_of(max(1, self.rank), dims, dtype, False)
        dst = <byte*>cnp.PyArray_BYTES(out)
        if cnp.PyArray_NBYTES(out) < nogil_bytes_min:
            pack_table(table, item, dst)
        else:
            with nogil:
                pack_table(table, item, dst)
        return out

    def padded(self, dtype, bytes pad_item not None, uint32_t batch_axis, bint left):
        """A fresh array (max_seqlen, *trailing) with the axis over rows put in, of dtype."""
        cdef BatchItem item = self._item(dtype)
        cdef PaddedForm form
        cdef cnp.npy_intp dims[max_rank + 1]
        cdef cnp.npy_intp row_dims[max_rank + 1]
        cdef uint32_t axis
        cdef cnp.ndarray out
        cdef RowTable table = self._table()
        cdef byte* dst
        self._copy_trailing(row_dims)
        row_dims[0] = self.max_seqlen
        for axis in range(self.rank):
            dims[axis + (axis >= batch_axis)] = row_dims[axis]
        dims[batch_axis] = self.n
        form.steps = self.max_seqlen
        form.chunks = batch_axis > 0
        for axis in range(1, batch_axis):
            form.chunks *= row_dims[axis]
        form.left = left
        form.pad_item = <const byte*><const char*>pad_item
        form.is_filled = <double>self.n * form.steps * self._step_items * item.bytes >= new_bytes_min and not any(pad_item)
        out = _array_of(self.rank + 1, dims, dtype, form.is_filled)
        dst = <byte*>cnp.PyArray_BYTES(out)
        if cnp.PyArray_NBYTES(out) < nogil_bytes_min:
            pad_table(table, item, form, dst)
        else:
            with nogil:
                pad_table(table, item, form, dst)
        return out

    cdef RowTable _table(self) noexcept:
        cdef RowTable table
        table.rows = RowPointers(self._data, self.n)
        table.cu_seqlens = <const int32_t*>cnp.PyArray_DATA(self.cu_seqlens)
        table.step_items = self._step_items
        table.item_bytes = <uint32_t>cnp.PyArray_ITEMSIZE(self._first)
        return table

    cdef void _copy_trailing(self, cnp.npy_intp* dims) noexcept:
        cdef uint32_t axis
        for axis in range(1, self.rank):
            dims[axis] = cnp.PyArray_DIM(self._first, axis)

    cdef BatchItem _item(self, object dtype) except *:
        cdef BatchItem item
        if dtype is self.dtype or dtype == self.dtype:
            item.bytes = <uint32_t>cnp.PyArray_ITEMSIZE(self._first)
            return item
        for name, found in (("dtype", dtype), ("rows[0].dtype", self.dtype)):
            if found not in _items and not is_bfloat16(found):
                raise InvalidType(f"{name} is {found}; allowed where rows are cast: {', '.join(item_names)}")
        item.bytes = dtype.itemsize
        item.cast = cast_of(_item_of(self.dtype), _item_of(dtype))
        return item


cdef Item _item_of(object dtype) except *:
    return <Item><uint8_t>_items.get(dtype, 2)


def is_bfloat16(dtype):
    """NumPy knows bfloat16 from ml_dtypes, which whoever has such an array has imported."""
    ml_dtypes = sys.modules.get("ml_dtypes")
    return ml_dtypes is not None and dtype == ml_dtypes.bfloat16


cdef cnp.ndarray _array(size_t i, object row):
    if cnp.PyArray_Check(row):
        return row
    try:
        return numpy.asarray(row)
    except ValueError as ragged:
        raise InvalidArgument(f"rows[{i}] is no array: {ragged}") from None
    except (TypeError, RuntimeError) as elsewhere:  # a tensor of a device, or of a type that NumPy lacks
        raise InvalidType(f"rows[{i}] is {type(row).__name__}; allowed: an array in host memory ({elsewhere})") from None


cdef cnp.ndarray _array_of(uint32_t rank, cnp.npy_intp* dims, object dtype, bint zeros):
    Py_INCREF(dtype)  # which both take over
    if zeros:
        return array_zeros(<int>rank, dims, <Descr*>dtype, 0)
    return array_empty(<int>rank, dims, <Descr*>dtype, 0)
