"""Who of a fleet's nodes answers as it should: the options, the one judge of a fleet that all its routers share, and a
rig that tests hold against a plain model."""
from libc.stdint cimport int64_t, uint32_t
from libcpp.memory cimport unique_ptr
from libcpp.utility cimport move

from cython.operator cimport dereference as deref

from infcore._core.base cimport finite
from infcore._core.fleet cimport Fleet, whole
from infcore._core.latency cimport curve_of
from infcore._cpp.base cimport ModelId, NodeId, never_ns, to_ns
from infcore._cpp.health cimport Answer, HealthStage, HealthStatus, NodeHealth, make_health_tracker, name_of
from infcore._cpp.latency cimport LatencyTable
from infcore._cpp.route cimport NodeState, make_health_gate

from infcore.errors import InvalidArgument, InvalidType

_STAGES = ("well", "ejected", "half_open", "slow_start", "lost")
_STATES = {"absent": NodeState.absent, "up": NodeState.up, "draining": NodeState.draining, "lost": NodeState.lost}
_OPTIONS = ("errors_in_a_row", "error_rate", "slow_factor", "ejected_share_max", "eject_s", "eject_s_max", "forgive_s",
            "probes", "slow_start_s", "forget_s")


cdef bint read_health(object health, HealthConfig& config) except -1:
    if health is True or health is False:
        return health
    if not hasattr(health, "items"):
        raise InvalidType(f"health is {type(health).__name__}; allowed: True, False or a mapping of {list(_OPTIONS)}")
    for name, value in health.items():
        if name == "errors_in_a_row":
            config.errors_in_a_row = <uint32_t>whole("errors_in_a_row", value, 1, 64)
        elif name == "probes":
            config.probes = <uint32_t>whole("probes", value, 1, 1000)
        elif name == "error_rate":
            config.error_rate = finite("error_rate", value, 0.0)
        elif name == "slow_factor":
            config.slow_factor = finite("slow_factor", value, 0.0)
        elif name == "ejected_share_max":
            config.ejected_share_max = finite("ejected_share_max", value, 0.0)
        elif name == "eject_s":
            config.eject_ns = to_ns(finite("eject_s", value, 0.0))
        elif name == "eject_s_max":
            config.eject_ns_max = to_ns(finite("eject_s_max", value, 0.0))
        elif name == "forgive_s":
            config.forgive_ns = to_ns(finite("forgive_s", value, 0.0))
        elif name == "slow_start_s":
            config.slow_start_ns = to_ns(finite("slow_start_s", value, 0.0))
        elif name == "forget_s":
            config.forget_ns = to_ns(finite("forget_s", value, 0.0))
        else:
            raise InvalidArgument(f"health has {name!r}; allowed: {list(_OPTIONS)}")
    return True


cdef class FleetHealth:
    """One for a fleet: its routers tell it what they see, and each sees in the fleet what follows."""

    def __init__(self):
        raise InvalidType("a FleetHealth is made by the fleet's first Router")


cdef FleetHealth health_of(Fleet fleet, object health):
    """None where nothing is judged."""
    cdef HealthConfig config
    cdef FleetHealth found = fleet.health
    cdef unique_ptr[NodeHealth] tracker
    if not read_health(health, config):
        return None
    options = {} if health is True else dict(health)
    if found is None:
        tracker = make_health_tracker(fleet.c_obj.get().columns(), config)
        found = FleetHealth.__new__(FleetHealth)
        found.options = options
        found.c_obj = make_health_gate(deref(fleet.c_obj), move(tracker))
        fleet.health = found
    elif options and options != found.options:
        raise InvalidArgument(f"health is {options}; allowed: True, or {found.options} as the fleet's first Router has "
                              "it: nodes are judged once for all routers")
    return found


cdef class HealthRig:
    """Answers in, states out, over a fleet and latency curves that the test gives. Not public."""

    cdef Fleet fleet
    cdef FleetHealth health
    cdef unique_ptr[LatencyTable] latency

    def __init__(self, Fleet fleet not None, dict options):
        self.fleet = fleet
        self.health = health_of(fleet, options)
        self.latency.reset(new LatencyTable(fleet.c_obj.get().max_nodes(), fleet.c_obj.get().max_models()))

    def prior(self, uint32_t model, uint32_t node, curve) -> None:
        cdef ModelId model_id
        cdef NodeId id
        model_id.value, id.value = model, node
        self.latency.get().set_prior(model_id, id, curve_of(curve))

    def set_state(self, int64_t now_ns, uint32_t node, str state) -> None:
        cdef NodeId id
        id.value = node
        self.fleet.c_obj.get().set_state(id, _STATES[state])
        self.follow(now_ns)

    def follow(self, int64_t now_ns) -> None:
        self.health.c_obj.get().follow(now_ns)

    def tick(self, int64_t now_ns) -> None:
        self.health.c_obj.get().tick(now_ns)

    def checked(self, int64_t now_ns, uint32_t node, bint ok) -> None:
        cdef NodeId id
        id.value = node
        self.health.c_obj.get().checked(now_ns, id, ok)

    def answered(self, int64_t now_ns, uint32_t node, uint32_t model, uint32_t n_requests, double work_sum,
                 double work_max, double service_s, bint ok) -> None:
        cdef Answer answer
        answer.node.value, answer.model.value = node, model
        answer.shape.n_requests, answer.shape.work_sum, answer.shape.work_max = n_requests, work_sum, work_max
        answer.service_s, answer.ok = service_s, ok
        self.health.c_obj.get().answered(now_ns, answer, deref(self.latency))

    def status(self, uint32_t node) -> tuple:
        """(stage, why, until_ns or None, ejections)"""
        cdef NodeId id
        id.value = node
        cdef HealthStatus s = self.health.c_obj.get().status(id)
        until_ns = None if s.until_ns == never_ns else s.until_ns
        return _STAGES[<int>s.stage], name_of(s.why).decode(), until_ns, s.n_ejections
