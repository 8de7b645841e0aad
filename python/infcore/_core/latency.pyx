"""Latency models alone, for tests, profiles and fits of recorded batches."""
from libc.stdint cimport uint32_t

from infcore._core.base cimport finite
from infcore._cpp.base cimport ModelId, NodeId
from infcore._cpp.latency cimport (BatchShape, Curve, LatencyModel as CppLatencyModel,
                                   LatencyTable as CppLatencyTable)


cdef BatchShape shape_of(uint32_t n_requests, double work_sum, double work_max):
    cdef BatchShape shape
    shape.n_requests = n_requests
    shape.work_sum = work_sum
    shape.work_max = work_max
    return shape


cdef Curve curve_of(prior) except *:
    cdef Curve curve
    curve.base_s, curve.per_request_s, curve.per_work_s, curve.per_padded_work_s = [
        finite("a term of prior", term, 0.0) for term in prior]
    return curve


cdef class LatencyModel:
    """Seconds of a batch, learned online: base + per_request*n + per_work*sum(work) + per_padded_work*n*max(work).

    prior   those four, in seconds, or None: nothing is known
    Cost    about 0.2 us an observation
    Source  csrc/infcore/contracts/latency.hpp
    """

    def __init__(self, prior=None):
        if prior is not None:
            self.c_obj = CppLatencyModel(curve_of(prior))

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

    @property
    def has_prior(self) -> bool:
        """Whether it began from a given curve, or from what a node of the same class had learned."""
        return self.c_obj.has_prior()


cdef class LatencyTable:
    """The latency models of all pairs of a model and a node, by number.

    A pair that nothing is known of starts from the best-observed node of its device class.
    """

    def __init__(self, uint32_t max_nodes, uint32_t max_models):
        self.c_obj.reset(new CppLatencyTable(max_nodes, max_models))

    def set_class(self, uint32_t node, uint32_t device_class) -> None:
        self.c_obj.get().set_class(node_id(node), device_class)

    def set_prior(self, uint32_t model, uint32_t node, prior) -> None:
        self.c_obj.get().set_prior(model_id(model), node_id(node), curve_of(prior))

    def observe(self, uint32_t model, uint32_t node, uint32_t n_requests, double work_sum, double work_max,
                double service_s) -> None:
        """Learn from a batch; its device class learns with it."""
        self.c_obj.get().observe(model_id(model), node_id(node), shape_of(n_requests, work_sum, work_max), service_s)

    def forget(self, uint32_t node) -> None:
        """The node is gone, and its class with it."""
        self.c_obj.get().forget(node_id(node))

    def at(self, uint32_t model, uint32_t node) -> LatencyModel:
        """A copy of the pair's model."""
        cdef LatencyModel copy = LatencyModel.__new__(LatencyModel)
        copy.c_obj = self.c_obj.get().at(model_id(model), node_id(node))
        return copy


cdef NodeId node_id(uint32_t value):
    cdef NodeId id
    id.value = value
    return id


cdef ModelId model_id(uint32_t value):
    cdef ModelId id
    id.value = value
    return id
