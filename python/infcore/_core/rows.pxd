cimport numpy as cnp
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t

from infcore._cpp.device cimport BatchItem, RowTable, byte

cdef extern from "numpy/arrayobject.h":
    ctypedef struct ArrayObject "PyArrayObject":
        pass


cdef class Rows:
    cdef object _held  # our own list, or a tuple: the caller's list may change under us
    cdef list _converted  # what is not in _held itself
    cdef cnp.ndarray _first
    cdef readonly object dtype
    cdef readonly uint32_t rank
    cdef readonly Py_ssize_t n
    cdef readonly int64_t max_seqlen
    cdef readonly cnp.ndarray cu_seqlens
    cdef const byte** _data  # n pointers to C-contiguous rows
    cdef int64_t _steps
    cdef int64_t _step_items
    cdef int _take_form(self, cnp.ndarray first) except -1
    cdef int _take_rows(self, const int64_t* wanted, bint dense) except -1
    cdef ArrayObject* _convert(self, Py_ssize_t i, object row) except NULL
    cdef cnp.ndarray _checked_lengths(self, object lengths)
    cdef int _overrun(self, Py_ssize_t i, int64_t wanted, int64_t steps) except -1
    cdef int _too_many(self, const int64_t* wanted) except -1
    cdef RowTable _table(self) noexcept
    cdef void _copy_trailing(self, cnp.npy_intp* dims) noexcept
    cdef BatchItem _item(self, object dtype) except *
