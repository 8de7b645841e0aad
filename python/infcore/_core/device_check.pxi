# Of workers.pyx: a device is asked how it is while it has nothing to run.

cdef int64_t ask_every_ns = 250_000_000  # how often a worker looks whether its device is to be asked


cdef Wake next_of(Driver* driver, NodeId id, bint may_ask) noexcept nogil:
    """As wait_batch; Wake.nothing once in a while where the device can be asked."""
    return driver.wait_batch_until(id, monotonic_ns() + ask_every_ns if may_ask else never_ns)


cdef int ask(Driver* driver, NodeId id, object device) except -1:
    cdef cbool ok = True
    if not driver.wants_check(id):
        return 0
    try:
        device.check()
    except BaseException:  # whatever it is: it is not well, and its worker lives on
        ok = False
    driver.checked(id, ok)
    return 0
