from libcpp.memory cimport unique_ptr

from infcore._cpp.route cimport RoutingPolicy

# A policy that asks this object: select(query, view), and observe(outcome) if it has that.
cdef int policy_of(object policy, unique_ptr[RoutingPolicy]& made) except -1
