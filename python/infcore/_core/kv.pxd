from libc.stdint cimport uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr

cimport numpy as cnp

from infcore._cpp.kv cimport KVBlocks as CppKVBlocks


cdef class KVBlocks:
    cdef unique_ptr[CppKVBlocks] c_obj
    cdef cbool taken  # a batcher runs over it, and all uses are that one's

    cdef CppKVBlocks* ours(self) except NULL
    cdef const CppKVBlocks* read(self) except NULL
    cdef int _used_blocks(self, object blocks, bint share) except -1


# One axis of the given type of integers, C-contiguous: an array that is so is taken as it is, other whole numbers are
# converted where they fit.
cdef cnp.ndarray integers(str field, object given, int typenum)
# An array of tokens as it is where int32 or int64; anything else as int64.
cdef cnp.ndarray tokens_of(str field, object given)
cdef uint64_t word(str field, object value) except? 0
cdef cnp.ndarray names_of(cnp.ndarray tokens, uint64_t block_size, uint64_t salt)
