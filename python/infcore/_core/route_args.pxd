from libc.stdint cimport uint64_t

from infcore._cpp.route cimport RoutingOptions, const_blocks

# A policy's options by name: numbers, texts, lists of texts.
cdef RoutingOptions options_of(object policy_options) except *
# What routing knows a session by: 0 for None.
cdef uint64_t session_of(object session) except? 0
# The hashes where they lie; valid while `blocks` lives and is not resized.
cdef const_blocks blocks_of(object blocks) except *
