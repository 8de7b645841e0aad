"""The latency model alone, for tests, profiles and fits of recorded batches."""
from libc.stdint cimport uint32_t

from infcore._core.base cimport finite
from infcore._cpp.latency cimport BatchShape, Curve, LatencyModel as CppLatencyModel


cdef BatchShape shape_of(uint32_t n_requests, double work_sum, double work_max):
    cdef BatchShape shape
    shape.n_requests = n_requests
    shape.work_sum = work_sum
    shape.work_max = work_max
    return shape


cdef class LatencyModel:
    """Seconds of a batch, learned online: base + per_request*n + per_work*sum(work) + per_padded_work*n*max(work).

    prior   those four, in seconds, or None: nothing is known
    Cost    about 0.2 us an observation
    Source  csrc/infcore/contracts/latency.hpp
    """

    cdef CppLatencyModel c_obj

    def __init__(self, prior=None):
        cdef Curve curve
        if prior is not None:
            curve.base_s, curve.per_request_s, curve.per_work_s, curve.per_padded_work_s = [
                finite("a term of prior", term, 0.0) for term in prior]
            self.c_obj = CppLatencyModel(curve)

    def observe(self, uint32_t n_requests, double work_sum, double work_max, double service_s) -> None:
        """Learn from a batch of n_requests that took service_s seconds."""
        self.c_obj.observe(shape_of(n_requests, work_sum, work_max), service_s)

    def service_s(self, uint32_t n_requests, double work_sum, double work_max) -> float:
        """Expected seconds, > 0."""
        return self.c_obj.service_s(shape_of(n_requests, work_sum, work_max))

    def upper_s(self, uint32_t n_requests, double work_sum, double work_max) -> float:
        """Seconds that about 99 of 100 such batches stay below."""
        return self.c_obj.upper_s(shape_of(n_requests, work_sum, work_max))

    @property
    def curve(self) -> tuple:
        """(base_s, per_request_s, per_work_s, per_padded_work_s), none negative."""
        cdef Curve curve = self.c_obj.curve()
        return curve.base_s, curve.per_request_s, curve.per_work_s, curve.per_padded_work_s

    @property
    def spread(self) -> float:
        """Standard deviation of the relative residual."""
        return self.c_obj.spread()

    @property
    def n_observed(self) -> int:
        """Batches learned from."""
        return self.c_obj.n_observed()
