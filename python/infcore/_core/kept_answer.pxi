# Of future.pyx: an answer that the engine's cache is to keep.

cdef int keep_answer(Future future) except -1:
    """A copy, since the caller may change his, and his is a part of a whole batch's."""
    cdef dict kept = {}
    cdef Py_ssize_t n_bytes = 0
    for name, array in (<dict>future.value).items():
        copy = array.copy() if isinstance(array, ndarray) else array
        if copy is not array:
            copy.flags.writeable = False
            n_bytes += copy.nbytes
        kept[name] = copy
    cache, future.cache = future.cache, None
    cache.put(future.cache_key, kept, size_bytes=n_bytes or 1,
              cost_us=1e6 * seconds(future.c.end_ns - future.c.request.arrival_ns))
    return 0
