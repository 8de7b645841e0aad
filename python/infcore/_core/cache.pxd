from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr

from infcore._core.base cimport Clock
from infcore._cpp.cache cimport CacheShard


cdef class Shard:
    cdef unique_ptr[CacheShard] c_obj
    cdef list pairs     # of each entry id its key, then its value; None where free. The collector sees a list


cdef class Store:
    cdef object __weakref__
    cdef Shard only         # None where there are several
    cdef CacheShard* c_only  # these two are that one's: what a hit needs, at hand
    cdef PyObject* pairs
    cdef list shards
    cdef Clock clock
    cdef cbool timed    # whether anything was ever put with an end to its life
    cdef int64_t ttl_ns
    cdef cbool goes_on  # a miss is asked of missed(): values may be kept elsewhere, too
    cdef readonly object capacity_bytes
    cdef readonly str policy
    cdef object estimate

    cdef int64_t now_ns(self) except? -1
