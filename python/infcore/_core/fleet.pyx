"""The fleet table's border: checks what comes in, converts, calls."""
import operator

import numpy as np

from libc.math cimport INFINITY, isnan
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.vector cimport vector

from infcore._core.base cimport as_clock, finite, now_of
from infcore._cpp.base cimport ModelId, NodeId, check_not_forked, fork_generation, to_ns
from infcore._cpp.route cimport (Credit, Fleet as CppFleet, Labels, ModelSize, NodeSpec, NodeState, Signal, models_max,
                                 name_of, no_node, not_given, untimed)

from infcore.errors import InvalidArgument, InvalidType, UnknownName

_SIGNALS = ("queue_depth", "inflight", "cpu", "gpu", "memory", "network", "packet_loss", "queue_wait_s", "error_rate")
_FRACTIONS = frozenset(("cpu", "gpu", "memory", "network", "packet_loss", "error_rate"))


include "fleet_arguments.pxi"
include "signal_figures.pxi"
include "fleet_rows.pxi"


cdef class SignalGate:
    cdef bint take(self, NodeId id, const Signal& signal) except *:
        return False


cdef class Fleet:
    """The nodes that requests may go to: who is there, what each holds, how busy it is.

    shared       None: private memory. A name: one fleet for all processes of this host that give it; nodes, models and
                 signals are everybody's, credit is each one's own. They give one clock, max_nodes, max_models, heartbeat_s
    max_nodes    capacity, fixed; node ids are below it
    max_models   likewise: names, and versions of them
    heartbeat_s  of a shared fleet: the credit of a process that gave no sign for so long is taken back, until its next.
                 A pick, done, signal, nodes() or beat() is one
    clock        stamps signals and credit; None: the machine's monotonic clock
    Raises       InvalidArgument, InvalidType; ForkedProcess from every method after a fork
    """

    def __cinit__(self):
        self.built_under = 0xFFFFFFFF

    def __init__(self, *, shared=None, max_nodes=1024, max_models=models_max, heartbeat_s=5.0, clock=None):
        cdef uint32_t n_models = <uint32_t>whole("max_models", max_models, 2, 1 << 20)
        cdef uint32_t n = <uint32_t>whole("max_nodes", max_nodes, 1, 1 << 20)
        cdef double heartbeat = finite("heartbeat_s", heartbeat_s, 1e-3)
        self.clock = as_clock(clock)
        self.model_ids = {}
        if shared is None:
            self.c_obj.reset(new CppFleet(n, n_models))
        else:
            self.c_obj.reset(new CppFleet(text("shared", shared), n, n_models, to_ns(heartbeat), self.clock.now_ns()))
        self.built_under = fork_generation()

    cdef int check_alive(self) except -1:
        if self.built_under != fork_generation():
            if self.c_obj.get() == NULL:
                raise InvalidType("Fleet.__init__ was not called")
            check_not_forked(self.built_under, "Fleet")
        return 0

    cdef NodeId node_of(self, object node) except *:
        cdef NodeId id
        if isinstance(node, str):
            id = self.c_obj.get().find(text("node", node))
            if id.value == no_node.value:
                raise UnknownName(f"node is {node!r}; known: {self._names()}")
            return id
        id.value = <uint32_t>whole("node", node, 0, 0xFFFFFFFE)
        if id.value >= self.c_obj.get().n_nodes() or self.c_obj.get().state(id) == NodeState.absent:
            raise UnknownName(f"node is {node}; known: the ids that add() returned, until remove()")
        return id

    cdef uint64_t require_bits(self, object require) except? 0:
        return 0 if not require else self.c_obj.get().label_bits(labels_of("require", require), False)

    cdef int check_free(self, str what) except -1:
        self.check_alive()
        if self.owner is not None:
            raise InvalidArgument(f"{what}() was called on the fleet of {self.owner}; allowed there: its add_device, "
                                  f"remove_device, lose_device, restore_device, load_model and unload_model")
        return 0

    def add(self, name, *, kind="gpu", zone="", location="cloud", memory_bytes=0, price_per_hour=0.0, rtt_s=0.0,
            slots=1, pending_max=None, labels=None) -> int:
        """Add a node, up and without a model, and return its id.

        kind          device class: nodes of one kind start from each other's latency curves
        memory_bytes  for the weights of models, see add_model
        slots         requests or batches that it runs at once
        pending_max   requests in flight at which it is sent nothing more; None: no bound
        labels        {key: value}; kind, zone and location count as labels too
        Raises        InvalidArgument: a name in use, a negative figure, more than max_nodes; of a shared fleet: more
                      than 256 bytes of name, kind, zone, location and labels
        """
        self.check_free("add")
        cdef NodeSpec spec
        spec.name = text("name", name)
        spec.kind = text("kind", kind)
        spec.zone = text("zone", zone)
        spec.location = text("location", location)
        spec.memory_bytes = <uint64_t>whole("memory_bytes", memory_bytes, 0, (1 << 62))
        spec.price_per_hour = finite("price_per_hour", price_per_hour, 0.0)
        spec.rtt_s = finite("rtt_s", rtt_s, 0.0)
        spec.slots = <uint32_t>whole("slots", slots, 1, 1 << 20)
        spec.pending_max = pending_of(pending_max)
        if labels is not None:
            spec.labels = labels_of("labels", labels)
        try:
            return self.c_obj.get().add(spec).value
        except InvalidArgument:  # no id is free, unless a lease on a removed node is over
            self.c_obj.get().end_leases(self.clock.now_ns())
        return self.c_obj.get().add(spec).value

    def signal(self, node, *, as_of_s=None, queue_depth=None, inflight=None, cpu=None, gpu=None, memory=None,
               network=None, packet_loss=None, queue_wait_s=None, error_rate=None) -> bool:
        """Tell what a node says of itself; what is None stays as it was.

        as_of_s       the clock's time at which the figures held; None, or later than now: now
        inflight      the node's own total, running and waiting; queue_depth: those that wait
        cpu, gpu, memory, network, packet_loss, error_rate  fractions 0..1
        queue_wait_s  what a new request would wait
        Returns       False where the node already said something newer
        Raises        UnknownName, InvalidArgument
        """
        self.check_alive()
        cdef Signal signal
        cdef NodeId id = self.node_of(node)
        cdef int64_t now_ns = self.clock.now_ns()
        self.c_obj.get().beat_if_due(now_ns)
        signal.as_of_ns = now_ns if as_of_s is None else min(now_ns, to_ns(finite("as_of_s", as_of_s, -9e9)))
        signal.queue_depth, signal.inflight = said("queue_depth", queue_depth), said("inflight", inflight)
        signal.cpu, signal.gpu = said("cpu", cpu), said("gpu", gpu)
        signal.memory, signal.network = said("memory", memory), said("network", network)
        signal.packet_loss = said("packet_loss", packet_loss)
        signal.queue_wait_s, signal.error_rate = said("queue_wait_s", queue_wait_s), said("error_rate", error_rate)
        return self.take(id, signal)

    cdef bint take(self, NodeId id, const Signal& signal) except *:
        return self.c_obj.get().signal(id, signal) if self.gate is None else self.gate.take(id, signal)

    def signal_many(self, rows) -> int:
        """signal() for each row of a structured array; all rows are checked before the first is taken.

        rows     fields: node (ids) and any of signal()'s; NaN: not given
        Returns  how many were taken, not being older than what is known
        """
        self.check_alive()
        table = _signal_table(rows)
        return _signal_all(self, _ids_of(self, rows["node"]), table)

    def add_model(self, model, *, version=1, weights_bytes=0, load_s=0.0, require=None) -> None:
        """Say that a version of a model may be loaded where it is not, and what that takes; again: from now on.

        weights_bytes  of a node's memory_bytes, while it is there
        load_s         seconds until a node that was told to load it can run it
        require        {label: value} that a node must have to hold it
        Raises         InvalidArgument, InvalidType
        """
        self.check_free("add_model")
        cdef ModelSize size
        size.weights_bytes = <uint64_t>whole("weights_bytes", weights_bytes, 0, 1 << 62)
        size.load_s = finite("load_s", load_s, 0.0)
        size.require = 0 if not require else self.c_obj.get().label_bits(labels_of("require", require), True)
        self.c_obj.get().declare_model(self.exact_model(model, version), size)
        self.find_model(model)

    def load_model(self, node, model, *, version=1) -> None:
        """Say that a node holds a version of a model and may be sent its requests.

        version  1 to 2**31 - 1
        Raises   UnknownName for a node that is not there; InvalidArgument beyond 1,024 names and versions
        """
        self.check_free("load_model")
        cdef NodeId id = self.node_of(node)
        self.c_obj.get().load_model(id, self.exact_model(model, version))
        self.find_model(model)

    def unload_model(self, node, model, *, version=1) -> None:
        """Take load_model back; nothing if the node did not hold that version.

        Raises  UnknownName for a node that is not there, or a model that none was ever told to hold
        """
        self.check_free("unload_model")
        cdef NodeId id = self.node_of(node)
        text("model", model)
        if self.find_model(model) is None:
            raise UnknownName(f"model is {model!r}; known: {', '.join(self.model_ids) or 'none yet'}")
        self.c_obj.get().unload_model(id, self.exact_model(model, version))

    cdef ModelId exact_model(self, object model, object version) except *:
        return self.c_obj.get().model_id(text("model", model), <uint32_t>whole("version", version, 1, 0x7FFFFFFF))

    cpdef object find_model(self, str model):
        """The id of "any version" of a model that anybody made known, else None; model_ids has it then."""
        cdef ModelId id
        if model not in self.model_ids:  # another process may have, too
            for id.value in range(self.c_obj.get().n_models()):
                if self.c_obj.get().model_version(id) == 0:
                    self.model_ids[self.c_obj.get().model_name(id).decode()] = id.value
        return self.model_ids.get(model)

    def models(self, node=None):
        """Every version of a model that is known, or that a node holds: a structured array, one row each.

        Fields  model, version, weights_bytes and load_s (0 unless declared), declared (by add_model), n_nodes (that
                hold it)
        """
        self.check_alive()
        return _models_of(self, None if node is None else self.node_of(node).value)

    def load_costs(self, model):
        """Seconds before each node could run the model, by node id: 0 where it is, inf where it cannot be loaded.

        load_s, and the load_s of what must go to make room (what was not asked for longest goes first), which has to
        be loaded again some day. A model without add_model is loaded nowhere.
        Raises  UnknownName for a model that nobody made known
        """
        self.check_alive()
        return _load_costs_of(self, model)

    def bound_pending(self, node, pending_max=None) -> None:
        """From now on send the node nothing more at so many requests in flight; None: no bound."""
        self.check_free("bound_pending")
        self.c_obj.get().bound_pending(self.node_of(node), pending_of(pending_max))

    def beat(self, *, now_s=None) -> None:
        """Of a shared fleet: say that this process lives, and take back the credit of those that no longer do."""
        self.check_alive()
        self.c_obj.get().beat(now_of(self.clock, now_s))

    def unlink(self) -> bool:
        """Of a shared fleet: take its name away. Who has it keeps it; who gives the name from now on makes another.

        The last process out does so itself. Returns False where the name was gone, or the memory is private.
        """
        self.check_alive()
        return self.c_obj.get().unlink()

    @property
    def n_processes(self) -> int:
        """How many processes' credit counts: 1 in private memory."""
        self.check_alive()
        self.c_obj.get().beat_if_due(self.clock.now_ns())
        return self.c_obj.get().n_processes()

    def drain(self, node) -> None:
        """Send the node nothing new; what is in flight ends there."""
        self.check_free("drain")
        self.c_obj.get().drain(self.node_of(node))

    def remove(self, node) -> None:
        """Take the node out. Its id is used again once the last credit on it is released."""
        self.check_free("remove")
        self.c_obj.get().remove(self.node_of(node))

    def lose(self, node) -> bool:
        """Take a node for lost: nothing is sent there until restore(). False where it was neither up nor ejected."""
        return self._turn("lose", node, NodeState.up, NodeState.lost) or self._turn(
            "lose", node, NodeState.ejected, NodeState.lost)

    def restore(self, node) -> bool:
        """Take a lost node back. Returns False where it was not lost."""
        return self._turn("restore", node, NodeState.lost, NodeState.up)

    cdef bint _turn(self, str what, object node, NodeState old, NodeState new) except *:
        self.check_free(what)
        cdef NodeId id = self.node_of(node)
        if self.c_obj.get().state(id) != old:
            return False
        self.c_obj.get().set_state(id, new)
        return True

    def nodes(self):
        """Every node that is there, by id: a structured array, one row each.

        Fields  id, name, kind, zone, location, state ("up", "draining", "lost", "ejected"), slots, pending_max (0: no
                bound), memory_bytes, used_bytes (of models whose weights_bytes are known), price_per_hour, rtt_s,
                inflight, wait_s (before a new request would start), signal_age_s and the last signals (NaN: never given)
        """
        self.check_alive()
        return _rows_of(self)

    def _names(self) -> str:
        return ", ".join(self.nodes()["name"].tolist()) or "none yet"

    def __len__(self) -> int:
        self.check_alive()
        return self.c_obj.get().n_present()

    def __repr__(self) -> str:
        return f"<infcore.Fleet of {len(self)} nodes: {self._names()}>"
