from libcpp.memory cimport unique_ptr

from infcore._cpp.route cimport RoutingPolicy

# A policy that asks this object: select(query, view), and observe(outcome) if it has that.
cdef unique_ptr[RoutingPolicy] policy_of(object policy) except *
