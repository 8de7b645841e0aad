# Of future.pyx: the answers of requests with a key.

cdef int resolve_aboard(Future future) except -1:
    """As resolve(), once, however many threads ask."""
    cdef Flight flight = <Flight>future.c.seat.flight.owner
    cdef bint is_made = False
    flight.of.lock.get().lock()
    try:
        if not future.is_aboard:
            return 0
        if (not flight.is_taken and landed_of(flight.c) == Landed.answered
                and future.c.payload == flight.c.payload != NULL):
            try:
                future.resolve_own()
                is_made = flight.take(future.value)  # before he gets his arrays
            except BaseException as e:
                flight.failure, flight.is_taken = e, True  # the payload may be gone
                raise
        else:
            is_made = flight.take(None)
        if not future.c.seat.is_passenger or state_of(future.c) == LiveState.cancelled:
            future.resolve_own()
        else:
            future.resolved = True
            if flight.answer is not None:
                future.value = dict(flight.answer)  # the arrays are read-only, the dict is the caller's
            elif landed_of(flight.c) == Landed.failed:
                future.error = _error_of(future, flight.failure)
            else:
                future.error = flight.failure
        future.is_aboard = False
        if not is_made:
            flight.leave()
    finally:
        flight.of.lock.get().unlock()
    if is_made:
        flight.keep(True)
    return 0


cdef int let_go(Future future) except -1:
    """It is gone, whether or not anybody has asked it."""
    cdef Flight flight
    if future.c.seat.flight != NULL:
        flight = <Flight>future.c.seat.flight.owner
        if future.is_aboard or future.c.payload != NULL:
            flight.of.lock.get().lock()
            try:
                if future.is_aboard:
                    flight.leave()
                if future.c.payload != NULL:
                    flight.outlive(&future.c)
            finally:
                flight.of.lock.get().unlock()
        Py_DECREF(flight)
    if future.c.payload != NULL:
        Py_DECREF(<object>future.c.payload)
    return 0
