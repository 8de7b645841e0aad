from libc.stdint cimport uint64_t
from libcpp.memory cimport unique_ptr

from infcore._cpp.device cimport StagingRing, byte


cdef class Block:
    """One piece of memory and the ring that divides it; lives as long as a region of it."""
    cdef unique_ptr[StagingRing] ring
    cdef object memory
    cdef byte* data


cdef class Region:
    cdef Block block
    cdef uint64_t ticket
    cdef byte* data
    cdef readonly size_t nbytes


cdef class Arena:
    cdef Block block
    cdef object memory_of
    cdef readonly uint64_t n_allocations
    cdef Region take(self, size_t n_bytes)
    cdef int _grow(self, size_t n_bytes) except -1
