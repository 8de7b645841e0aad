"""Lists of KV cache blocks, one per request, as block tables and slot mappings."""
from libc.stdint cimport INT32_MAX, int32_t, int64_t
from libcpp.vector cimport vector

cimport numpy as cnp

import numpy

from infcore._cpp.block_tables cimport (BadBlock, BlockRow, BlockRowSpan, CountSpan, NewTokens, SlotSpan,
                                        fill_block_table, fill_slot_mapping, first_bad_block, query_start_loc_of)
from infcore._cpp.device cimport nogil_bytes_min

from infcore.errors import InvalidArgument, InvalidType

cnp.import_array()


cdef class BlockRows:
    """Lists checked to be int32 ids below n_blocks, and kept alive while they are read. Not to be changed meanwhile."""

    cdef list _arrays  # C-contiguous int32: what _rows borrows
    cdef vector[BlockRow] _rows
    cdef readonly int64_t longest

    def __init__(self, blocks, n_blocks=None):
        cdef cnp.ndarray array
        cdef BlockRow row
        cdef int64_t ids_end = <int64_t>INT32_MAX + 1 if n_blocks is None else n_blocks
        if isinstance(blocks, (str, bytes)):
            raise InvalidType(f"blocks is {type(blocks).__name__}; allowed: a sequence of lists of block ids")
        try:
            blocks = list(blocks)  # our own list: the caller's may change under us
        except TypeError:
            raise InvalidType(f"blocks is {type(blocks).__name__}; allowed: a sequence of lists of block ids") from None
        if not blocks:
            raise InvalidArgument("blocks is empty; allowed: at least one request")
        self._arrays = []
        self._rows.clear()
        self._rows.reserve(len(blocks))
        self.longest = 0
        for i, given in enumerate(blocks):
            array = _ids(i, given)
            self._arrays.append(array)
            row.n_blocks = cnp.PyArray_DIM(array, 0)
            row.ids = <const int32_t*>cnp.PyArray_DATA(array)
            self.longest = max(self.longest, row.n_blocks)
            self._rows.push_back(row)
        cdef BadBlock bad = first_bad_block(self._span(), ids_end)
        if bad.row < self._rows.size():
            raise InvalidArgument(f"blocks[{bad.row}][{bad.at}] is {self._rows[bad.row].ids[bad.at]}; allowed: 0 to "
                                  f"{ids_end - 1}")

    cdef BlockRowSpan _span(self) noexcept:
        return BlockRowSpan(self._rows.data(), self._rows.size())

    def __len__(self):
        return self._rows.size()

    def lengths(self):
        """(n,) int64: how many blocks each request has."""
        return numpy.fromiter((self._rows[i].n_blocks for i in range(self._rows.size())), numpy.int64, len(self))

    def table_into(self, int32_t[:, ::1] out not None, int32_t pad_block):
        """Fill out, (n, max_blocks)."""
        if <size_t>out.shape[0] != self._rows.size() or out.shape[1] < self.longest:
            raise InvalidArgument(f"out has shape {out.shape[0], out.shape[1]}; allowed: ({self._rows.size()}, at least "
                                  f"{self.longest})")
        if out.shape[1] == 0:
            return
        cdef BlockRowSpan rows = self._span()
        cdef int64_t max_blocks = out.shape[1]
        if out.shape[0] * max_blocks * sizeof(int32_t) < nogil_bytes_min:
            fill_block_table(rows, max_blocks, pad_block, &out[0, 0])
        else:
            with nogil:
                fill_block_table(rows, max_blocks, pad_block, &out[0, 0])

    def slots_into(self, int64_t[::1] out not None, const int32_t[::1] computed not None,
                   const int32_t[::1] query_lens not None, int32_t block_size):
        """Fill out with the slots of the new tokens, then -1. Counts not negative, one of each a request."""
        cdef NewTokens tokens
        cdef int64_t total = 0
        cdef size_t i, n = self._rows.size()
        if <size_t>computed.shape[0] != n or <size_t>query_lens.shape[0] != n or block_size < 1:
            raise InvalidArgument(f"computed and query_lens have {computed.shape[0]} and {query_lens.shape[0]} entries; "
                                  f"allowed: {n}")
        for i in range(n):
            total += query_lens[i]
            if min(computed[i], query_lens[i]) < 0 or (query_lens[i] > 0 and (
                    <int64_t>computed[i] + query_lens[i] > self._rows[i].n_blocks * block_size)):
                raise InvalidArgument(f"blocks[{i}] has {self._rows[i].n_blocks} blocks of {block_size} tokens; allowed: "
                                      f"as many as computed[{i}] + query_lens[{i}], {computed[i]} + {query_lens[i]}, need")
        if out.shape[0] < total:
            raise InvalidArgument(f"out has {out.shape[0]} slots; allowed: at least {total}")
        if out.shape[0] == 0:
            return
        tokens.computed = CountSpan(&computed[0], n)
        tokens.query_lens = CountSpan(&query_lens[0], n)
        cdef BlockRowSpan rows = self._span()
        cdef SlotSpan slots = SlotSpan(&out[0], out.shape[0])
        if out.shape[0] * sizeof(int64_t) < nogil_bytes_min:
            fill_slot_mapping(rows, tokens, block_size, slots)
        else:
            with nogil:
                fill_slot_mapping(rows, tokens, block_size, slots)


def query_start_loc(const int32_t[::1] query_lens not None):
    """(n + 1,) int32, from n >= 1 counts whose sum an int32 holds."""
    cdef cnp.ndarray out = numpy.empty(query_lens.shape[0] + 1, numpy.int32)
    query_start_loc_of(CountSpan(&query_lens[0], query_lens.shape[0]), <int32_t*>cnp.PyArray_DATA(out))
    return out


cdef cnp.ndarray _ids(object i, object given):
    """A request's ids as C-contiguous int32: an array is taken as it is, a list of integers is converted."""
    cdef cnp.ndarray array
    if not cnp.PyArray_Check(given):
        try:
            array = numpy.asarray(given)
        except (ValueError, TypeError) as ragged:
            raise InvalidType(f"blocks[{i}] is no list of ids: {ragged}") from None
        if cnp.PyArray_NDIM(array) == 1 and cnp.PyArray_DIM(array, 0) == 0:
            return numpy.empty(0, numpy.int32)
        if array.dtype.kind in "iu" and cnp.PyArray_NDIM(array) == 1:
            wide = array
            array = wide.astype(numpy.int32)
            if not numpy.array_equal(array, wide):
                at = int(numpy.flatnonzero(array != wide)[0])
                raise InvalidArgument(f"blocks[{i}][{at}] is {wide[at]}; allowed: an id that int32 holds")
    else:
        array = given
    if not cnp.PyArray_EquivTypenums(array.descr.type_num, cnp.NPY_INT32) or not cnp.PyArray_ISNOTSWAPPED(array):
        raise InvalidType(f"blocks[{i}] has dtype {array.dtype}; allowed: int32, or a list of int")
    if cnp.PyArray_NDIM(array) != 1 or not cnp.PyArray_IS_C_CONTIGUOUS(array):
        raise InvalidArgument(f"blocks[{i}] has shape {(<object>array).shape}, strides {(<object>array).strides}; "
                              "allowed: one axis, C-contiguous")
    return array
