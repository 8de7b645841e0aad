from libc.stdint cimport int64_t, uint32_t

from infcore._cpp.base cimport ManualTime


cdef class Clock:
    cdef int64_t now_ns(self) except? -1


cdef class ManualClock(Clock):
    cdef ManualTime now  # atomic: engines read it on threads of their own


cdef class TenantNames:
    cdef dict numbers
    cdef uint32_t number(self, object tenant) except? 0xFFFFFFFF


cdef Clock as_clock(object clock)
# Deadline, TTL or time-out in seconds from now -> nanoseconds on the same clock; None is never_ns.
cdef int64_t until_ns(str field, object seconds_s, int64_t now_ns) except? -1
# now_s= of a call, or one read of its owner's clock.
cdef int64_t now_of(Clock clock, object now_s) except? -1
cdef double finite(str field, object value, double at_least) except? -1.0
