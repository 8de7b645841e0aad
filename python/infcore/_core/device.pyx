"""What the workers of an emulated device are handed."""
from libc.stdint cimport uint32_t, uint64_t

from infcore._cpp.device cimport EmulatedTimer
from infcore._cpp.latency cimport BatchShape, Curve


cdef class Timer:
    """The service times of an emulated device: a curve's times a lognormal factor, from one seed."""

    def __init__(self, double cv, seed):
        self.c_obj.reset(new EmulatedTimer(cv, <uint64_t>seed))

    def service_s(self, curve, uint32_t n_requests, double work_sum, double work_max):
        cdef Curve c
        cdef BatchShape shape
        c.base_s, c.per_request_s, c.per_work_s, c.per_padded_work_s = curve
        shape.n_requests = n_requests
        shape.work_sum = work_sum
        shape.work_max = work_max
        return self.c_obj.get().service_s(c, shape)
