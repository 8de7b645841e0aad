# Of route.pyx: what is asked of all the decisions of a pick_many. Apart, since the views of arrays that it holds would
# have to be made and let go in each call about one.

cdef Decisions decisions_of(object decision):
    if type(decision) is not Decisions:
        raise InvalidType(f"decision is {type(decision).__name__}; allowed: what pick or pick_many returned")
    return decision


cdef bint done_each(Router router, object decision, object ok, object service_s, object confidence,
                    int64_t now_ns) except -1:
    cdef Decisions many = decisions_of(decision)
    if confidence is not None:
        raise InvalidArgument(f"confidence is {confidence!r}; allowed: None for Decisions, report them one by one")
    cdef size_t n = many.c_obj.size()
    cdef const double[::1] each
    cdef const_doubles span = const_doubles()
    if service_s is not None and n:
        each = numbers("service_s", np.full(n, service_s) if np.ndim(service_s) == 0 else service_s)
        if <size_t>each.shape[0] != n:
            raise InvalidArgument(f"service_s has {each.shape[0]} figures; allowed: one, or one for each of {n}")
        span = const_doubles(&each[0], n)
    return router.c_obj.get().done_many(decision_span(many.c_obj.data(), n), bool(ok), span, now_ns) > 0
