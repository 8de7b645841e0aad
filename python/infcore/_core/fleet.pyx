"""The fleet table's border: checks what comes in, converts, calls."""
import operator

import numpy as np

from libc.math cimport isnan
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.pair cimport pair
from libcpp.string cimport string

from infcore._core.base cimport as_clock, finite
from infcore._cpp.base cimport ModelId, NodeId, check_not_forked, fork_generation, to_ns
from infcore._cpp.route cimport Credit, Fleet as CppFleet, Labels, NodeSpec, NodeState, Signal, name_of, no_node

from infcore.errors import InvalidArgument, InvalidType, UnknownName

_SIGNALS = ("queue_depth", "inflight", "cpu", "gpu", "memory", "network", "packet_loss", "queue_wait_s")
_FRACTIONS = frozenset(("cpu", "gpu", "memory", "network", "packet_loss"))


cdef int64_t whole(str field, object value, int64_t least, int64_t most) except? -1:
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: an int") from None
    if not least <= number <= most:
        raise InvalidArgument(f"{field} is {number}; allowed: an int from {least} to {most}")
    return number


cdef string text(str field, object value) except *:
    if not isinstance(value, str):
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a str")
    return (<str>value).encode()


cdef Labels labels_of(str field, object labels) except *:
    cdef Labels out
    cdef pair[string, string] label
    if not hasattr(labels, "items"):
        raise InvalidType(f"{field} is {type(labels).__name__}; allowed: a mapping of str to str")
    for key, value in labels.items():
        label.first = text(f"a key of {field}", key)
        label.second = text(f"{field}[{key!r}]", value)
        out.push_back(label)
    return out


include "signal_figures.pxi"


cdef class SignalGate:
    cdef bint take(self, NodeId id, const Signal& signal) except *:
        return False


cdef class Fleet:
    """The nodes that requests may go to: who is there, what each holds, how busy it is.

    shared     None: private memory (a name, for several processes on one host, is not there yet)
    max_nodes  capacity, fixed; node ids are below it
    clock      stamps signals and credit; None: the machine's monotonic clock
    Raises     InvalidArgument, InvalidType; ForkedProcess from every method after a fork
    """

    def __cinit__(self):
        self.built_under = 0xFFFFFFFF

    def __init__(self, *, shared=None, max_nodes=1024, clock=None):
        if shared is not None:
            raise InvalidArgument(f"shared is {shared!r}; allowed: None (memory of this process)")
        cdef uint32_t n = whole("max_nodes", max_nodes, 1, 1 << 20)
        self.clock = as_clock(clock)
        self.model_ids = {}
        self.c_obj.reset(new CppFleet(n))
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
            id = self.c_obj.get().find((<str>node).encode())
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
            slots=1, labels=None) -> int:
        """Add a node, up and without a model, and return its id.

        kind    device class: nodes of one kind start from each other's latency curves
        slots   requests or batches that it runs at once
        labels  {key: value}; kind, zone and location count as labels too
        Raises  InvalidArgument: a name in use, a negative figure, more than max_nodes
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
        if labels is not None:
            spec.labels = labels_of("labels", labels)
        return self.c_obj.get().add(spec).value

    def signal(self, node, *, as_of_s=None, queue_depth=None, inflight=None, cpu=None, gpu=None, memory=None,
               network=None, packet_loss=None, queue_wait_s=None) -> bool:
        """Tell what a node says of itself; what is None stays as it was.

        as_of_s       the clock's time at which the figures held; None, or later than now: now
        inflight      the node's own total, running and waiting; queue_depth: those that wait
        cpu, gpu, memory, network, packet_loss  fractions 0..1;  queue_wait_s: what a new request would wait
        Returns       False where the node already said something newer
        Raises        UnknownName, InvalidArgument
        """
        self.check_alive()
        cdef Signal signal
        cdef NodeId id = self.node_of(node)
        cdef int64_t now_ns = self.clock.now_ns()
        signal.as_of_ns = now_ns if as_of_s is None else min(now_ns, to_ns(finite("as_of_s", as_of_s, -9e9)))
        if queue_depth is not None:
            signal.queue_depth = figure("queue_depth", queue_depth)
        if inflight is not None:
            signal.inflight = figure("inflight", inflight)
        if cpu is not None:
            signal.cpu = figure("cpu", cpu)
        if gpu is not None:
            signal.gpu = figure("gpu", gpu)
        if memory is not None:
            signal.memory = figure("memory", memory)
        if network is not None:
            signal.network = figure("network", network)
        if packet_loss is not None:
            signal.packet_loss = figure("packet_loss", packet_loss)
        if queue_wait_s is not None:
            signal.queue_wait_s = figure("queue_wait_s", queue_wait_s)
        return self.take(id, signal)

    cdef bint take(self, NodeId id, const Signal& signal) except *:
        return self.c_obj.get().signal(id, signal) if self.gate is None else self.gate.take(id, signal)

    def signal_many(self, rows) -> int:
        """signal() for each row of a structured array; all rows are checked before the first is taken.

        rows     fields: node (ids) and any of signal()'s; NaN: not given
        Returns  how many were taken, not being older than what is known
        """
        self.check_alive()
        names = getattr(getattr(rows, "dtype", None), "names", None)
        if names is None or "node" not in names:
            raise InvalidType("rows is no structured array with a field 'node'")
        unknown = set(names) - {"node", "as_of_s", *_SIGNALS}
        if unknown:
            raise InvalidArgument(f"rows has fields {sorted(unknown)}; allowed: node, as_of_s, {', '.join(_SIGNALS)}")
        rows = np.atleast_1d(rows)
        table = np.full((1 + len(_SIGNALS), len(rows)), np.nan)
        for i, name in enumerate(("as_of_s", *_SIGNALS)):
            if name in names:
                table[i] = _checked_column(name, rows[name])
        cdef uint32_t[::1] ids = np.array([self.node_of(node).value for node in rows["node"].tolist()], np.uint32)
        return self._signal_all(ids, table)

    cdef size_t _signal_all(self, const uint32_t[::1] ids, const double[:, ::1] table) except? 0:
        cdef Signal signal
        cdef NodeId id
        cdef Py_ssize_t i
        cdef size_t n_taken = 0
        cdef int64_t now_ns = self.clock.now_ns()
        for i in range(ids.shape[0]):
            id.value = ids[i]
            signal.as_of_ns = now_ns if isnan(table[0, i]) else min(now_ns, to_ns(table[0, i]))
            signal.queue_depth, signal.inflight = table[1, i], table[2, i]
            signal.cpu, signal.gpu = table[3, i], table[4, i]
            signal.memory, signal.network = table[5, i], table[6, i]
            signal.packet_loss, signal.queue_wait_s = table[7, i], table[8, i]
            n_taken += self.take(id, signal)
        return n_taken

    def load_model(self, node, model, *, version=1) -> None:
        """Say that a node holds a version of a model and may be sent its requests.

        version  1 to 2**31 - 1
        Raises   UnknownName for a node that is not there; InvalidArgument beyond 1,024 names and versions
        """
        self.check_free("load_model")
        cdef NodeId id = self.node_of(node)
        cdef string name = text("model", model)
        cdef ModelId exact = self.c_obj.get().model_id(name, <uint32_t>whole("version", version, 1, 0x7FFFFFFF))
        self.c_obj.get().load_model(id, exact)
        self.model_ids[model] = self.c_obj.get().model_id(name, 0).value

    def unload_model(self, node, model, *, version=1) -> None:
        """Take load_model back; nothing if the node did not hold that version.

        Raises  UnknownName for a node that is not there, or a model that none was ever told to hold
        """
        self.check_free("unload_model")
        cdef NodeId id = self.node_of(node)
        cdef string name = text("model", model)
        if model not in self.model_ids:
            raise UnknownName(f"model is {model!r}; known: {', '.join(self.model_ids) or 'none yet'}")
        self.c_obj.get().unload_model(
            id, self.c_obj.get().model_id(name, <uint32_t>whole("version", version, 1, 0x7FFFFFFF)))

    def drain(self, node) -> None:
        """Send the node nothing new; what is in flight ends there."""
        self.check_free("drain")
        self.c_obj.get().drain(self.node_of(node))

    def remove(self, node) -> None:
        """Take the node out. Its id is used again once the last credit on it is released."""
        self.check_free("remove")
        self.c_obj.get().remove(self.node_of(node))

    def lose(self, node) -> bool:
        """Take an up node for lost: nothing is sent there until restore(). Returns False where it was not up."""
        return self._turn("lose", node, NodeState.up, NodeState.lost)

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

        Fields  id, name, kind, zone, location, state ("up", "draining", "lost"), slots, memory_bytes, price_per_hour,
                rtt_s, inflight, wait_s (before a new request would start), and the last signals (NaN: never given)
        """
        self.check_alive()
        cdef CppFleet* fleet = self.c_obj.get()
        cdef NodeId id
        cdef Credit own
        cdef Signal last
        cdef const NodeSpec* spec
        rows = []
        for id.value in range(fleet.n_nodes()):
            if fleet.state(id) == NodeState.absent:
                continue
            spec = &fleet.spec(id)
            fleet.read(id, own, last)
            rows.append((id.value, spec.name.decode(), spec.kind.decode(), spec.zone.decode(), spec.location.decode(),
                         name_of(fleet.state(id)).decode(), spec.slots, spec.memory_bytes, spec.price_per_hour,
                         spec.rtt_s, fleet.inflight(id), fleet.wait_s(id), last.queue_depth, last.cpu, last.gpu,
                         last.memory, last.network, last.packet_loss, last.queue_wait_s))
        widest = [max([len(row[i]) for row in rows], default=1) or 1 for i in range(1, 5)]
        return np.array(rows, dtype=[
            ("id", "u4"), ("name", f"U{widest[0]}"), ("kind", f"U{widest[1]}"), ("zone", f"U{widest[2]}"),
            ("location", f"U{widest[3]}"), ("state", "U8"), ("slots", "u4"), ("memory_bytes", "u8"),
            ("price_per_hour", "f8"), ("rtt_s", "f8"), ("inflight", "u4"), ("wait_s", "f8"), ("queue_depth", "f8"),
            ("cpu", "f8"), ("gpu", "f8"), ("memory", "f8"), ("network", "f8"), ("packet_loss", "f8"),
            ("queue_wait_s", "f8")])

    def _names(self) -> str:
        return ", ".join(self.nodes()["name"].tolist()) or "none yet"

    def __len__(self) -> int:
        self.check_alive()
        return len(self.nodes())

    def __repr__(self) -> str:
        return f"<infcore.Fleet of {len(self)} nodes: {self._names()}>"
