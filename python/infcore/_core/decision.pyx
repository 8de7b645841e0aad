"""What a pick comes to: one decision with its credit, or a column of them."""
import numpy as np

cimport cython

from infcore._core.fleet cimport whole
from infcore._cpp.route cimport no_model

from infcore.errors import InvalidType


@cython.final
@cython.freelist(64)
@cython.no_gc
cdef class Decision:
    """Where a request goes, what that was predicted to cost, and the credit it holds until done or cancel."""

    def __init__(self):
        raise InvalidType("a Decision is made by Router.pick")

    @property
    def node(self) -> int:
        """The node's id in the fleet."""
        return of(self).node.value

    @property
    def model(self) -> str:
        """The model to run: the one asked for, or where cascade would start instead."""
        return self.fleet.c_obj.get().model_name(of(self).model).decode()

    @property
    def next_model(self) -> str | None:
        """After done(confidence=): the model that goes on, for want of confidence; None: the answer is good enough."""
        if of(self).next_model == no_model:
            return None
        return self.fleet.c_obj.get().model_name(of(self).next_model).decode()

    @property
    def cost_us(self) -> float:
        """What nodes were compared by, in microseconds: the sum of the terms that Router.explain gives, in float32."""
        return of(self).terms.cost_us

    @property
    def wait_s(self) -> float:
        """Predicted seconds before the node starts on it."""
        return of(self).terms.wait_us * 1e-6

    @property
    def service_s(self) -> float:
        """Predicted seconds of service for all of the work: less saving_s, this is what is reserved on the node."""
        return of(self).terms.service_us * 1e-6

    @property
    def pressure_s(self) -> float:
        """Seconds added for a node whose processors or memory are nearly full."""
        return of(self).terms.pressure_us * 1e-6

    @property
    def load_s(self) -> float:
        """Seconds until the model is there, and those that what is evicted for it costs to bring back."""
        return of(self).terms.load_us * 1e-6

    @property
    def begins_load(self) -> bool:
        """Whether its node is to be told to load the model: nobody had it do so before. Others count on that load from
        now on, until Fleet.load_model() says that it is there, cancel() of this, or twice its time."""
        return of(self).begins_load

    @property
    def network_s(self) -> float:
        """Seconds on the way: round trip, a busy link, packets lost."""
        return of(self).terms.network_us * 1e-6

    @property
    def saving_s(self) -> float:
        """Seconds of service saved by what the node holds of the prompt."""
        return of(self).terms.saving_us * 1e-6

    @property
    def price_usd(self) -> float:
        """US dollars: predicted service less saving, at the node's price per hour."""
        return of(self).price_usd

    @property
    def feasible(self) -> bool:
        """Whether the deadline, if any, is met at the upper quantile of the service time."""
        return of(self).feasible

    def __repr__(self) -> str:
        return f"<infcore.Decision: node {self.node}, {self.cost_us:.6g} us>"


@cython.final
cdef class Decisions:
    """The decisions of one pick_many, in order: a sequence of Decision, and columns.

    node is uint32, feasible is bool, the other columns are float64, all of shape (len,).
    """

    def __init__(self):
        raise InvalidType("Decisions are made by Router.pick_many")

    def __len__(self) -> int:
        return self.c_obj.size()

    def __getitem__(self, index):
        cdef Py_ssize_t n = self.c_obj.size()
        cdef Py_ssize_t i = whole("index", index, -n, n) if n else 0
        if i < 0:
            i += n
        if i >= n:
            raise IndexError(f"index is {index}; allowed: {-n} to {n - 1}")
        cdef Decision decision = Decision.__new__(Decision)
        decision.row_of = self
        decision.fleet = self.fleet
        decision.element = &self.c_obj[i]
        return decision

    def _column(self, name, dtype):
        return np.array([getattr(decision, name) for decision in self], dtype=dtype)

    node = property(lambda self: self._column("node", np.uint32))
    cost_us = property(lambda self: self._column("cost_us", np.float64))
    wait_s = property(lambda self: self._column("wait_s", np.float64))
    service_s = property(lambda self: self._column("service_s", np.float64))
    pressure_s = property(lambda self: self._column("pressure_s", np.float64))
    load_s = property(lambda self: self._column("load_s", np.float64))
    network_s = property(lambda self: self._column("network_s", np.float64))
    saving_s = property(lambda self: self._column("saving_s", np.float64))
    price_usd = property(lambda self: self._column("price_usd", np.float64))
    feasible = property(lambda self: self._column("feasible", np.bool_))

    def __repr__(self) -> str:
        return f"<infcore.Decisions: {len(self)}>"
