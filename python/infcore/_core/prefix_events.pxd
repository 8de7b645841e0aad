from libc.stdint cimport uint64_t
from libcpp.memory cimport unique_ptr
from libcpp.vector cimport vector

from infcore._core.fleet cimport Fleet
from infcore._cpp.base cimport NodeId
from infcore._cpp.prefix cimport EngineBlocks, KvTier, RouterPrefix


cdef class EngineEvents:
    """What engines say of their blocks, in their own words."""
    cdef unique_ptr[EngineBlocks] c_obj
    cdef Fleet fleet
    cdef vector[uint64_t] born  # Fleet::born of the node that names are of
    cdef dict groups  # node -> the group of caches that counts, where an engine has several
    cdef readonly uint64_t n_unknown
    cdef size_t apply(self, RouterPrefix& index, NodeId node, object event) except? 0
    cdef size_t _stored(self, RouterPrefix& index, NodeId node, object event, bint is_row) except? 0
    cdef size_t _removed(self, RouterPrefix& index, NodeId node, object event, bint is_row) except? 0
    cdef list _apart(self, object extra_keys, object lora, size_t n)
    cdef int clear(self, NodeId node) except -1
    cdef vector[uint64_t] _known(self, NodeId node, list ids) except *
    cdef bint _counts(self, NodeId node, object group, object kind, bint stored) except *


cdef KvTier tier_of(str field, object tier) except *
