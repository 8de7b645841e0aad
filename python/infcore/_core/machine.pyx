"""The engine's state machine under a virtual clock: what the simulator drives, and what tests compare with a model.

Times are int nanoseconds on the caller's clock, >= 0; None where there is none. Nothing here is public.
"""
from cython.operator cimport dereference as deref
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp.memory cimport unique_ptr
from libcpp.utility cimport move
from libcpp.vector cimport vector

from infcore._core.base cimport finite
from infcore._core.fleet cimport Fleet, SignalGate, whole
from infcore._core.health cimport read_health
from infcore._core.latency cimport curve_of
from infcore._core.route_args cimport options_of
from infcore._cpp.base cimport ModelId, NodeId, TimeNs, never_ns
from infcore._cpp.engine cimport (Action, Batch, BatchingPolicy, EngineConfig, ModelConfig, NodeConfig, LoggedMachine,
                                  Reason, Request, RunConfig, Stats, action_names, make_batching_policy, n_actions,
                                  n_reasons, reason_names, request_work_max)
from infcore._cpp.latency cimport LatencyTable
from infcore._cpp.route cimport Credit, RoutingOptions, RoutingPolicy, Signal, make_routing_policy, no_node

from infcore.errors import InvalidArgument, InvalidType, UnknownName

_ACTIONS = [action_names[i].decode() for i in range(n_actions)]
_REASONS = [reason_names[i].decode() for i in range(n_reasons)]


cdef int64_t time_of(str field, object value) except? -1:
    return never_ns if value is None else whole(field, value, 0, never_ns)


cdef class Machine:
    """The engine's decisions: events in, actions out, time handed in.

    fleet      infcore.Fleet; nodes are added to it first, under ids that it gives
    log        path of an event log, or None; complete after end_log()
    Raises     InvalidArgument, InvalidType, UnknownName naming the argument
    One thread at a time. After events: tick(), schedule(), then actions().
    """

    cdef readonly Fleet fleet
    cdef unique_ptr[LatencyTable] latency
    cdef unique_ptr[LoggedMachine] c_obj
    cdef uint32_t n_tiers
    cdef set models
    cdef list prompts  # blocks that requests point to, as long as this lives

    def __init__(self, Fleet fleet not None, *, str policy="slo_cost", str batching="dynamic", uint64_t seed=0,
                 max_requests=8192, n_tiers=8, ageing_ns=None, attempts_max=3, str log=None, admission=(),
                 overload_wait_ns=None, tier_capacity=(), bint shed_lowest=False,
                 double hedge_quantile=0.0, double hedge_budget=0.05, double retry_budget=0.2, bint log_terms=False,
                 health=False, policy_options=None, str residency=""):
        cdef EngineConfig config
        cdef RunConfig run
        cdef LoggedSignals gate
        cdef RoutingOptions options = options_of(policy_options)
        cdef unique_ptr[RoutingPolicy] routing = make_routing_policy(policy.encode(), seed, options)
        cdef unique_ptr[BatchingPolicy] rule = make_batching_policy(batching.encode())
        self.fleet = fleet
        self.n_tiers = <uint32_t>whole("n_tiers", n_tiers, 1, 64)
        self.models, self.prompts = set(), []
        config.max_requests = <uint32_t>whole("max_requests", max_requests, 1, 1 << 30)
        config.max_nodes = fleet.c_obj.get().max_nodes()
        config.max_models = fleet.c_obj.get().max_models()
        config.n_tiers = <uint16_t>self.n_tiers
        config.ageing_ns = time_of("ageing_ns", ageing_ns)
        config.attempts_max = <uint8_t>whole("attempts_max", attempts_max, 1, 255)
        config.admission = [name.encode() for name in admission]
        config.overload_wait_ns = time_of("overload_wait_ns", overload_wait_ns)
        config.tier_capacity = [whole("tier_capacity", each, 1, 1 << 30) for each in tier_capacity]
        config.shed_lowest, config.log_terms, config.residency = shed_lowest, log_terms, residency.encode()
        config.judges_health = read_health(health, config.health)
        config.hedge_quantile, config.hedge_budget, config.retry_budget = hedge_quantile, hedge_budget, retry_budget
        self.latency.reset(new LatencyTable(config.max_nodes, config.max_models))
        self.c_obj.reset(new LoggedMachine(config, deref(fleet.c_obj), deref(self.latency), move(routing), move(rule)))
        if log is not None:
            run.engine, run.policy, run.batching, run.seed = config, policy.encode(), batching.encode(), seed
            run.options = options
            self.c_obj.get().start_log(log.encode(), 1 << 16, run)
            gate = LoggedSignals.__new__(LoggedSignals)
            gate.machine = self
            fleet.gate = gate

    def end_log(self) -> None:
        """The log is complete: nothing that comes later is written."""
        self.c_obj.get().end_log()

    # ---- membership

    def add_model(self, str name, *, version=1, max_batch_size=64, batch_delay_ns_max=2_000_000, bint idempotent=True,
                  bint runs_share=False, fallback=None, length_buckets=(), preferred_batch_sizes=(), weights_bytes=0,
                  double load_s=0.0) -> int:
        """Make a model known; returns its id."""
        cdef ModelConfig config
        cdef ModelId id = self.fleet.c_obj.get().model_id(name.encode(), <uint32_t>whole("version", version, 1, 1 << 30))
        config.max_batch_size = <uint32_t>whole("max_batch_size", max_batch_size, 1, 1 << 20)
        config.batch_delay_ns_max = time_of("batch_delay_ns_max", batch_delay_ns_max)
        config.idempotent, config.runs_share = idempotent, runs_share
        if fallback is not None:
            config.fallback = self.model_of(fallback)
        config.length_buckets, config.preferred_batch_sizes = length_buckets, preferred_batch_sizes
        config.weights_bytes, config.load_s = <uint64_t>whole("weights_bytes", weights_bytes, 0, 1 << 62), load_s
        self.c_obj.get().add_model(id, config)
        self.models.add(id.value)
        return id.value

    def remove_model(self, now_ns, model) -> None:
        self.c_obj.get().remove_model(time_of("now_ns", now_ns), self.model_of(model))

    def add_node(self, node, *, run_limit_ns=None, kv_blocks=0, bint loads_beside_runs=False) -> None:
        """After Fleet.add."""
        cdef NodeConfig config
        config.run_limit_ns = time_of("run_limit_ns", run_limit_ns)
        config.kv_blocks = <uint32_t>whole("kv_blocks", kv_blocks, 0, 0x7FFFFFFF)
        config.loads_beside_runs = loads_beside_runs
        self.c_obj.get().add_node(self.fleet.node_of(node), config)

    def set_resident(self, now_ns, model, node, bint resident=True, *, prior=None) -> None:
        """A node holds a model from now on, or no longer. prior: its curve there, as four seconds."""
        cdef ModelId held = self.model_of(model)
        cdef NodeId id = self.fleet.node_of(node)
        if prior is not None:
            self.c_obj.get().set_prior(held, id, curve_of(prior))
        if resident:
            self.fleet.c_obj.get().load_model(id, held)
        else:
            self.fleet.c_obj.get().unload_model(id, held)
        self.c_obj.get().residency_changed(time_of("now_ns", now_ns), id)

    def may_hold(self, now_ns, model, node, bint may=True) -> None:
        self.c_obj.get().may_hold(time_of("now_ns", now_ns), self.fleet.node_of(node), self.model_of(model), may)

    def loaded(self, now_ns, model, node, *, bint ok=True, double load_s=0.0) -> bool:
        return self.c_obj.get().loaded(time_of("now_ns", now_ns), self.fleet.node_of(node), self.model_of(model), ok, load_s)

    def preload(self, now_ns, model) -> None:
        self.c_obj.get().preload(time_of("now_ns", now_ns), self.model_of(model))

    def drain_node(self, now_ns, node) -> None:
        self.c_obj.get().drain_node(time_of("now_ns", now_ns), self.fleet.node_of(node))

    def node_empty(self, node) -> bool:
        return self.c_obj.get().node_empty(self.row_of(node))

    def remove_node(self, now_ns, node) -> None:
        """Takes it out of the fleet, too; what it has not finished goes elsewhere."""
        self.c_obj.get().remove_node(time_of("now_ns", now_ns), self.fleet.node_of(node))

    # ---- events

    def arrive(self, now_ns, cookie, model, *, work=1.0, tier=0, deadline_ns=None, require=None, arrival_ns=None,
               tenant=0, defer_ns=0, bint has_stale=False, bint is_cached=False, uint64_t session=0, const uint64_t[::1] blocks=None, block_size=16,
               prompt_tokens=0) -> int:
        """One request; returns the handle that cancel() takes, 0 where the machine is full.

        require     {label: value} that a node must have
        blocks      names of the full blocks of a prompt of so many tokens; not to be changed
        """
        cdef Request r
        cdef TimeNs now = time_of("now_ns", now_ns)
        r.cookie, r.has_stale, r.is_cached = cookie, has_stale, is_cached
        r.model = self.model_of(model)
        r.require = self.fleet.require_bits(require)
        tell_limits(self, r, now, work, tenant, tier, deadline_ns, arrival_ns, defer_ns)
        tell_prompt(self, r, session, blocks, block_size, prompt_tokens)
        return self.c_obj.get().arrive(now, r)

    def cancel(self, now_ns, uint64_t handle) -> bool:
        return self.c_obj.get().cancel(time_of("now_ns", now_ns), handle, Reason.caller)

    def cancel_all(self, now_ns) -> None:
        self.c_obj.get().cancel_all(time_of("now_ns", now_ns), Reason.closing)

    def claim(self, now_ns, node):
        """The node takes its oldest open batch: (batch id, model, cookies of its members), or None."""
        cdef size_t i
        cdef const Batch* batch = self.c_obj.get().claim(time_of("now_ns", now_ns), self.row_of(node))
        if batch == NULL:
            return None
        return batch.id, batch.model.value, [self.c_obj.get().cookie(batch.members[i])
                                             for i in range(batch.members.size())]

    def started(self, now_ns, node, uint64_t batch_id) -> None:
        self.c_obj.get().started(time_of("now_ns", now_ns), self.row_of(node), batch_id)

    def complete(self, now_ns, node, uint64_t batch_id, bint ok=True) -> bool:
        """Whether the batch was still the node's."""
        return self.c_obj.get().complete(time_of("now_ns", now_ns), self.row_of(node), batch_id, ok)

    def first_token(self, now_ns, node, uint64_t batch_id) -> None:
        self.c_obj.get().first_token(time_of("now_ns", now_ns), self.row_of(node), batch_id)

    def progress(self, now_ns, node) -> None:
        self.c_obj.get().progress(time_of("now_ns", now_ns), self.row_of(node))

    def node_failed(self, now_ns, node) -> None:
        self.c_obj.get().node_failed(time_of("now_ns", now_ns), self.fleet.node_of(node))

    def node_lost(self, now_ns, node) -> None:
        self.c_obj.get().node_lost(time_of("now_ns", now_ns), self.fleet.node_of(node))

    def node_back(self, now_ns, node) -> None:
        self.c_obj.get().node_back(time_of("now_ns", now_ns), self.fleet.node_of(node))

    def wants_check(self, now_ns, node) -> bool:
        return self.c_obj.get().wants_check(time_of("now_ns", now_ns), self.fleet.node_of(node))

    def checked(self, now_ns, node, bint ok) -> None:
        self.c_obj.get().checked(time_of("now_ns", now_ns), self.fleet.node_of(node), ok)

    def tick(self, now_ns) -> None:
        self.c_obj.get().tick(time_of("now_ns", now_ns))

    def schedule(self, now_ns) -> None:
        self.c_obj.get().schedule(time_of("now_ns", now_ns))

    # ---- what came of it

    def actions(self) -> list:
        """What was decided since the last call: (kind, cookie, node or None, batch id, place in the batch, reason)."""
        cdef const vector[Action]* actions = &self.c_obj.get().actions()
        cdef const Action* a
        cdef size_t i
        out = []
        for i in range(actions.size()):
            a = &deref(actions)[i]
            out.append((_ACTIONS[<uint8_t>a.kind], a.cookie, None if a.node.value == no_node.value else a.node.value,
                        a.batch_id, a.member, _REASONS[<uint8_t>a.reason]))
        self.c_obj.get().clear_actions()
        return out

    def hints(self) -> list:
        """Of what actions() will tell: (kind, cookie, reason, hint_s)."""
        cdef const vector[Action]* actions = &self.c_obj.get().actions()
        cdef size_t i
        return [(_ACTIONS[<uint8_t>deref(actions)[i].kind], deref(actions)[i].cookie,
                 _REASONS[<uint8_t>deref(actions)[i].reason], deref(actions)[i].hint_s) for i in range(actions.size())]

    def admission(self, now_ns, model) -> dict:
        """How the model's door stands: rung, n_open, n_put_off, wait_s, limit."""
        f = self.c_obj.get().admission_figures(time_of("now_ns", now_ns), self.model_of(model))
        return {"rung": f.rung, "n_open": f.n_open, "n_put_off": f.n_put_off, "wait_s": f.wait_s, "limit": f.limit}

    @property
    def next_timer_ns(self):
        """When tick() should be called at the latest; None: no timer."""
        cdef TimeNs at_ns = self.c_obj.get().next_timer_ns()
        return None if at_ns == never_ns else at_ns

    @property
    def n_pending(self) -> int:
        """Accepted and not yet ended."""
        return self.c_obj.get().n_pending()

    @property
    def n_timers(self) -> int:
        """How many are set: one per node and lane at most."""
        return self.c_obj.get().n_timers()

    @property
    def n_lanes(self) -> int:
        """Queues that there are: per model and set of labels, or per model and node."""
        return self.c_obj.get().n_lanes()

    def has_open_batch(self, node) -> bool:
        return self.c_obj.get().has_open_batch(self.row_of(node))

    def credit(self, node) -> tuple:
        """(requests, nanoseconds) reserved on the node and not released."""
        cdef Credit own
        cdef Signal last
        self.fleet.c_obj.get().read(self.row_of(node), own, last)
        return own.inflight, own.reserved_ns

    def counts(self, *, model=None, node=None) -> dict:
        """How many of a model's or a node's requests ended in which way."""
        cdef const Stats* s = self.c_obj.get().node_stats(self.row_of(node)) if model is None else \
            self.c_obj.get().model_stats(self.model_of(model))
        if s == NULL:
            raise UnknownName(f"node is {node!r}; known: those of add_node()")
        return counts_of(s)

    # ---- ids

    cdef ModelId model_of(self, object model) except *:
        cdef ModelId id
        if model not in self.models:
            raise UnknownName(f"model is {model!r}; known: {sorted(self.models)}")
        id.value = <uint32_t>model
        return id

    cdef NodeId row_of(self, object node) except *:
        """Also of a node that was removed: its batches may still complete."""
        cdef NodeId id
        id.value = <uint32_t>whole("node", node, 0, self.fleet.c_obj.get().max_nodes() - 1)
        return id


include "machine_request.pxi"
