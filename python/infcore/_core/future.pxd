from infcore._core.live cimport Pending
from infcore._core.model_spec cimport ModelSpec


cdef class Future(Pending):
    cdef ModelSpec spec
    cdef object loop
    cdef object held               # the inputs, until the engine is done with them
    cdef object callback, context  # the first one: a task's wake-up, mostly
    cdef list more_callbacks
    cdef object value, error
    cdef object at_hand            # an answer that was there on submit: from before, or the cache's
    cdef object answered_by        # kept from the batch's result: a removed device's id may be another's by now
    cdef bint resolved, settled
    cdef bint is_aboard            # of a flight that it has not asked yet
    cdef public bint _asyncio_future_blocking
    cdef int resolve(self) except -1
    cdef int resolve_own(self) except -1
    cdef object take(self)
    cdef int _run(self, object callback, object context) except -1
