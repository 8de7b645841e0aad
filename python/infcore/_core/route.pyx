"""The router's border: checks a request, crosses once, boxes the decision."""
import numpy as np

from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libcpp.memory cimport unique_ptr
from libcpp.utility cimport move
from libcpp.vector cimport vector

from infcore._core.base cimport Clock, as_clock, finite, now_of, until_ns
from infcore._core.decision cimport Decision, Decisions, of
from infcore._core.fleet cimport Fleet, whole
from infcore._core.python_policy cimport policy_of
from infcore._core.route_args cimport blocks_of, options_of, session_of
from infcore._core.health cimport FleetHealth, health_of
from infcore._cpp.base cimport ModelId, NodeId, border_now_ns, check_not_forked, fork_generation
from infcore._cpp.health cimport HealthGate
from infcore._cpp.latency cimport Curve
from infcore._cpp.route cimport (Explanation, Filtered, PickOptions, PrefixConfig, RouteQuery,
                                 Router as CppRouter, RoutingPolicy, const_doubles, decision_span, name_of, routing_policies)

from infcore.errors import InvalidArgument, InvalidType, NoNodeAvailable


cdef class Router:
    """Choose a node for each request, reserve credit on it, and learn how long nodes take.

    fleet    where requests may go; several routers may share one
    policy   one of Router.policies(), one that register_policy knows, or an object as its factory returns
    seed     of policies that draw; same seed, same calls: same decisions
    clock    None: the fleet's
    **policy_options  the policy's own: numbers, a str, lists of str; policies() names them
    health   True: nodes whose answers are worse than their peers' are ejected for a while; False: this router tells
             nothing of what it sees; or a mapping of what is to be otherwise, the same for all routers of a fleet:
             errors_in_a_row (5), error_rate (0.1 of the last 64 answers), slow_factor (4: times its class's latency),
             ejected_share_max (0.5 of the fleet, and of a model's nodes), eject_s (5, doubled each time up to
             eject_s_max, 60), forgive_s (60), probes (3 good answers before more is sent), slow_start_s (4), forget_s
    prefix   what is known of who holds which prefix: "exact", told by Router.prefix; "approximate", also one's own picks,
             of nodes that tell nothing; or a mapping: mode, max_blocks (1,048,576), ttl_s of picks (120), host_credit
             and disk_credit (.75, .25 of what a block on the device saves), max_engine_blocks (1,048,576)
    Raises   UnknownName, InvalidArgument; ForkedProcess from every method after a fork
    Cost     pick is O(nodes): one pass over float32 columns; of power_of_two it is O(log nodes), of least_outstanding
             O(nodes / 64)
    """

    def __cinit__(self):
        self.built_under = 0xFFFFFFFF

    def __init__(self, fleet, *, policy="slo_cost", seed=0, clock=None, health=True, prefix="exact", **policy_options):
        if not isinstance(fleet, Fleet):
            raise InvalidType(f"fleet is {type(fleet).__name__}; allowed: an infcore.Fleet")
        self.fleet = fleet
        self.fleet.check_alive()
        if self.fleet.gate is not None:
            raise InvalidArgument("fleet is that of an Engine with a log; allowed: one without, since the log would "
                                  "not hold what a Router reserves there")
        cdef unique_ptr[RoutingPolicy] made
        self.clock = self.fleet.clock if clock is None else as_clock(clock)
        self.is_default_clock = type(self.clock) is Clock
        cdef PrefixConfig prefix_config = prefix_config_of(prefix)
        if isinstance(policy, str):
            self.c_obj.reset(new CppRouter(self.fleet.c_obj.get()[0], (<str>policy).encode(),
                                           <uint64_t>whole("seed", seed, 0, 0x7FFFFFFFFFFFFFFF),
                                           options_of(policy_options), prefix_config))
        elif policy_options:
            raise InvalidArgument(f"{next(iter(policy_options))} is given; allowed: no options beside an object as policy")
        else:
            policy_of(policy, made)
            self.c_obj.reset(new CppRouter(self.fleet.c_obj.get()[0], move(made), prefix_config))
        self.health = health_of(self.fleet, health)
        if self.health is not None:
            self.c_obj.get().use_health(self.health.c_obj)
        self.prefix_options = prefix
        self.built_under = fork_generation()

    @staticmethod
    def policies() -> list:
        """Names of the routing policies.

        round_robin        each node in turn
        least_outstanding  fewest requests in flight
        power_of_two       of two at random, fewest requests in flight
        peak_ewma          of two at random, least peak-sensitive average of latency * (requests in flight + 1)
        fastest_finish     least predicted waiting + service + pressure + network
        weighted           each node in turn, as often as its weight says. Options: weight ("slots", "speed", "label")
        prequal            of recent probes, the least latency of nodes that are not hot. Options: q_rif (0.84), probes
                           (3 a pick), pool (16), reuse (2 uses of a probe), age_s (1.0)
        consistent_hash    a session's node, unless it has more than bound (1.25) times its share in flight
        prefix_aware       the node that holds most of the prompt, if at least min_match (0.3) of it, unless it is gap (2.0)
                           requests a slot and gap_ratio (1.5) times fuller than the emptiest; block_size (16)
        priority           slo_cost, with a part of each node's slots kept for tier 0: reserve (0.25)
        locality           slo_cost, nodes of a zone ("") and with the label data ("") first, while they cost at most
                           spill (2.0) times the best
        edge_first         slo_cost, nodes at the edge first, while they have fewer than load (2.0) in flight a slot
        cascade            slo_cost, the first of models first, the next where done() reports less than min_confidence
                           (0.8): Decision.model, Decision.next_model
        slo_cost           least cost of time, model load, money, risk and what a node holds of the prompt. Options:
                           price_us_per_usd (1e8), risk (1.0), block_size (16), explore (0.01: share of requests and
                           cost for nodes that would get none), picker ("least", "power_of_two", "softmax"),
                           temperature (0.1), herd_margin (0.25: how alike nodes must be to share what stale signals
                           would send to one; 0: off)
        """
        return [name.decode() for name in routing_policies()]

    @property
    def policy(self) -> str:
        """The policy's name."""
        return self.c_obj.get().policy().decode()

    @property
    def prefix(self):
        """Which node holds which prefix: infcore.Prefix."""
        self.check_alive()
        if self._prefix is None:
            from infcore._core.prefix import prefix_of  # its modules are loaded for who needs them

            self._prefix = prefix_of(self)
        return self._prefix

    def set_prior(self, model, node, *, base_s=0.0, per_request_s=0.0, per_work_s=0.0, per_padded_work_s=0.0) -> None:
        """Give a known latency curve (a profile's): predictions start there, and forget what was learned before.

        Seconds of n requests of work w: base_s + per_request_s*n + per_work_s*sum(w) + per_padded_work_s*n*max(w)
        Raises  UnknownName, NoNodeAvailable for a model that no node was ever told to hold, InvalidArgument
        """
        self.check_alive()
        cdef Curve curve = curve_named(base_s, per_request_s, per_work_s, per_padded_work_s)
        cdef ModelId model_id
        model_id.value = self.model_of(model)
        self.c_obj.get().set_prior(model_id, self.fleet.node_of(node), curve)

    cdef int check_alive(self) except -1:
        if self.built_under != fork_generation():
            if self.c_obj.get() == NULL:
                raise InvalidType("Router.__init__ was not called")
            check_not_forked(self.built_under, "Router")
        return 0

    cdef uint32_t model_of(self, object model) except? 0xFFFFFFFF:
        if model is self.last_model:
            return self.last_model_id
        if not isinstance(model, str):
            raise InvalidType(f"model is {type(model).__name__}; allowed: a str")
        id = self.fleet.find_model(model)
        if id is None:
            raise NoNodeAvailable(f"no node for model {model!r}: of {len(self.fleet)} nodes, none was ever told to "
                                  "hold it (Fleet.load_model)")
        self.last_model = model
        self.last_model_id = id
        return self.last_model_id

    cdef int read_query(self, RouteQuery& query, PickOptions& options, object model, object tier, object deadline_s,
                        object session, object blocks, object require, object allow_late, object lease_s,
                        object now_s) except -1:
        self.check_alive()
        if session is not None:
            query.session = session_of(session)
        if blocks is not None:
            query.blocks = blocks_of(blocks)
        query.model.value = self.model_of(model)
        if tier is not _tier_0:
            query.tier = <uint16_t>whole("tier", tier, 0, 0xFFFF)
        query.now_ns = time_of(self, now_s)
        if deadline_s is not None:
            query.deadline_ns = until_ns("deadline_s", deadline_s, query.now_ns)
        if require is not None:
            query.require = self.fleet.require_bits(require)
        if allow_late is not False:
            options.allow_late = bool(allow_late)
        if lease_s is not None:
            options.lease_end_ns = until_ns("lease_s", lease_s, query.now_ns)
        return 0

    def pick(self, model, *, work=1.0, tier=0, deadline_s=None, session=None, blocks=None, require=None,
             allow_late=False, lease_s=None, now_s=None) -> Decision:
        """Choose a node and reserve credit on it until done, cancel or the end of the lease.

        work        of the request, >= 0, in the unit of the model's latency curve (items, tokens, pixels)
        tier        0 is the most urgent
        deadline_s  seconds from now; None: none
        session     a str or an int that requests which belong together have in common
        blocks      (n,) uint64, as block_hashes returns: read during the call
        require     {label: value} that the node must have; kind, zone and location count as labels
        allow_late  where no node is in time, the least cost with feasible False instead of an error
        lease_s     seconds until the credit is released by itself; None: never
        Raises      NoNodeAvailable, DeadlineInfeasible, InvalidArgument, InvalidType
        """
        cdef RouteQuery query
        cdef PickOptions options
        query.work = at_least_0("work", work)
        self.read_query(query, options, model, tier, deadline_s, session, blocks, require, allow_late, lease_s, now_s)
        cdef Decision decision = Decision.__new__(Decision)
        decision.fleet = self.fleet
        self.c_obj.get().pick(query, options, decision.own)
        return decision

    def pick_many(self, model, work, *, tier=0, deadline_s=None, session=None, blocks=None, require=None,
                  allow_late=False, lease_s=None, now_s=None) -> Decisions:
        """pick for each of `work`, each seeing the credit of those before it; all or none.

        work    (n,) numbers >= 0; the other arguments are those of pick and hold for all
        Raises  as pick; then no credit is held
        """
        cdef RouteQuery query
        cdef PickOptions options
        self.read_query(query, options, model, tier, deadline_s, session, blocks, require, allow_late, lease_s, now_s)
        cdef const double[::1] works = numbers("work", work)
        cdef size_t n = works.shape[0]
        cdef Decisions decisions = Decisions.__new__(Decisions)
        decisions.fleet = self.fleet
        cdef const_doubles span = const_doubles(&works[0], n) if n else const_doubles()
        self.c_obj.get().pick_many(query, span, options, decisions.c_obj)  # without the GIL
        return decisions

    def done(self, decision, *, ok=True, service_s=None, confidence=None, now_s=None) -> bool:
        """The request has ended: release its credit and, if ok, learn from it.

        service_s  seconds it took on the node without waiting and network, one or (for Decisions) one each. None: if
                   it did not have to wait, the time since pick less the predicted network is learned, else nothing
        confidence of the answer, 0 to 1, for cascade: then decision.next_model says which model goes on, if any
        A policy that learns from outcomes (peak_ewma) is told of the time since pick and of ok, whatever service_s is.
        Returns    False if done, cancel or the end of the lease came before (of Decisions: for all of them)
        Raises     InvalidArgument for another router's decision
        """
        self.check_alive()
        cdef int64_t now_ns = time_of(self, now_s)
        if type(decision) is not Decision:
            return done_each(self, decision, ok, service_s, confidence, now_ns)
        return self.c_obj.get().done(
            of(<Decision>decision)[0], bool(ok),
            0.0 if service_s is None else at_least_0("service_s", service_s), now_ns,
            -1.0 if confidence is None else share("confidence", confidence))

    def cancel(self, decision, *, now_s=None) -> bool:
        """Release the credit and learn nothing. Returns and raises as done."""
        self.check_alive()
        cdef int64_t now_ns = time_of(self, now_s)
        if type(decision) is Decision:
            return self.c_obj.get().cancel(of(<Decision>decision)[0], now_ns)
        cdef Decisions many = decisions_of(decision)
        return self.c_obj.get().cancel_many(decision_span(many.c_obj.data(), many.c_obj.size()), now_ns) > 0

    def report(self, node, *, ok, now_s=None) -> None:
        """Tell of a check of the node itself: good ones bring an ejected node back sooner, bad ones in a row eject.

        Raises  UnknownName, InvalidArgument where the router judges nobody
        """
        self.judge().checked(now_of(self.clock, now_s), self.fleet.node_of(node), bool(ok))

    def probe_due(self, *, now_s=None) -> list:
        """Ids of ejected nodes to be asked how they are, and reported: each once a second."""
        cdef vector[NodeId] due
        self.judge().check_due(now_of(self.clock, now_s), due)
        return [due[i].value for i in range(due.size())]

    cdef HealthGate* judge(self) except NULL:
        self.check_alive()
        if self.health is None:
            raise InvalidArgument("health is False; allowed for this call: a Router that judges its nodes")
        return self.health.c_obj.get()

    def explain(self, model, *, work=1.0, tier=0, deadline_s=None, session=None, blocks=None, require=None,
                allow_late=False, lease_s=None, now_s=None) -> list:
        """What every node would cost this request now, and why those that are out are out; reserves nothing.

        Returns  a mapping per node: node (id), name, terms {name: microseconds, saving as a negative number}, cost_us
                 (None if out), reason (None if not out). cost_us is the sum of the terms in float32, as pick compares
                 it: slo_cost and fastest_finish take the least, the lowest id among equals
        """
        cdef RouteQuery query
        cdef PickOptions options
        cdef vector[Explanation] explanations
        query.work = at_least_0("work", work)
        if isinstance(model, str) and self.fleet.find_model(model) is None:
            return [{"node": int(row["id"]), "name": str(row["name"]), "cost_us": None, "terms": {},
                     "reason": f"model {model!r} is not loaded"} for row in self.fleet.nodes()]
        self.read_query(query, options, model, tier, deadline_s, session, blocks, require, allow_late, lease_s, now_s)
        self.c_obj.get().explain(query, options, explanations)
        return explained(self, explanations, model, deadline_s, require)


include "route_checks.pxi"
include "route_many.pxi"
include "explained.pxi"
