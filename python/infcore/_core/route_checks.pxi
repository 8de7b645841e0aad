# Of route.pyx: what numbers a caller may give.

cdef object _tier_0 = 0  # the default, so that it needs no conversion


cdef inline double at_least_0(str field, object value) except? -1.0:
    cdef double x
    if type(value) is float:
        x = <double>value
        if x >= 0.0 and x < INFINITY:
            return x
    return finite(field, value, 0.0)


cdef inline int64_t time_of(Router router, object now_s) except? -1:
    if now_s is not None:
        return now_of(router.clock, now_s)
    return border_now_ns() if router.is_default_clock else router.clock.now_ns()


cdef Curve curve_named(base_s, per_request_s, per_work_s, per_padded_work_s) except *:
    cdef Curve curve
    curve.base_s = finite("base_s", base_s, 0.0)
    curve.per_request_s = finite("per_request_s", per_request_s, 0.0)
    curve.per_work_s = finite("per_work_s", per_work_s, 0.0)
    curve.per_padded_work_s = finite("per_padded_work_s", per_padded_work_s, 0.0)
    return curve


cdef double share(str field, object value) except? -1.0:
    if finite(field, value, 0.0) > 1.0:
        raise InvalidArgument(f"{field} is {value!r}; allowed: 0 to 1")
    return value


def numbers(str field, values):
    try:
        column = np.ascontiguousarray(values, np.float64)
    except (TypeError, ValueError):
        raise InvalidType(f"{field} is no array of numbers") from None
    if column.ndim != 1:
        raise InvalidArgument(f"{field} has {column.ndim} dimensions; allowed: 1")
    wrong = ~(np.isfinite(column) & (column >= 0.0))
    if wrong.any():
        raise InvalidArgument(f"{field} is {column[wrong][0]} at {int(np.flatnonzero(wrong)[0])}; "
                              "allowed: finite numbers >= 0")
    return column


cdef PrefixConfig prefix_config_of(object prefix) except *:
    cdef PrefixConfig config
    if prefix != "exact":
        from infcore._core.prefix import config_of

        (config.approximate, config.max_blocks, config.host_credit, config.disk_credit,
         config.ttl_ns) = config_of(prefix)
    return config
