"""What runs behind the engine's border: the dispatcher, one worker per device, membership, figures."""
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

from infcore._cpp.base cimport ManualTime, ModelId, NodeId, monotonic_ns, never_ns, to_ns
from infcore._cpp.engine cimport (AdmissionFigures, Driver, EngineConfig, ModelConfig, NodeConfig, Stats,
                                  Wake, WorkBatch, unbounded)
from infcore._cpp.latency cimport BatchShape, Curve, LatencyModel, LatencyTable
from infcore._cpp.route cimport RoutingOptions
from infcore._cpp.telemetry cimport Histogram
from infcore._core.arena cimport Arena
from infcore._core.base cimport Clock, ManualClock, as_clock
from infcore._core.device cimport Timer
from infcore._core.fleet cimport Fleet
from infcore._core.health cimport read_health
from infcore._core.live cimport Arrivals, Live
from infcore._core.model_spec cimport ModelSpec
from infcore._core.staging cimport Staging, failure_of
from infcore._core.token_sequence cimport TokenSpec
from infcore._core.route_args cimport options_of

from infcore.errors import InvalidArgument, InvalidType

include "figures.pxi"
include "engine_config.pxi"
include "device_check.pxi"


cdef class Workers:
    def _setup(self, Fleet fleet, *, str policy, str batching, uint64_t seed, uint32_t max_requests, int n_tiers,
               double ageing_s, object clock, object door, object faults, object policy_options=None,
               object cache=None, bint cache_is_shared=False, str residency=""):
        cdef EngineConfig config = _config_of(fleet, max_requests, n_tiers, ageing_s, door, faults, residency)
        self.fleet = fleet
        self.clock = as_clock(clock)
        cdef const ManualTime* manual = _manual_of(self.clock, clock)
        self.latency.reset(new LatencyTable(config.max_nodes, config.max_models))
        self.live = Live()
        self.live.c_obj.reset(new Driver(config, fleet.c_obj.get()[0], self.latency.get()[0], policy.encode(),
                                         batching.encode(), seed, manual, options_of(policy_options)))
        self.driver = self.live.c_obj.get()
        self.live.threads = Arrivals.__new__(Arrivals)
        self.live.threads.live = self.live
        self.live.threads.hub = &self.driver.add_hub(False)
        self.newest = {}
        self.versions = {}
        self.by_id = [None] * config.max_models
        self.run_names = {}
        self.n_tiers = n_tiers
        self.ageing_ns = config.ageing_ns
        self.door, self.stale, self.blocks = door, door.stale, door.overflow == "block"
        self.stale_rung = <uint32_t>door.stale_rung
        self.cache, self.cache_is_shared = cache, cache_is_shared

    # ---- the dispatcher and the workers, each on a thread of its own

    def _dispatch(self):
        cdef cbool stopped = False
        Driver.want_punctual_sleeps()
        while not stopped:
            with nogil:
                stopped = self.driver.dispatch_loop(self.live.threads.hub[0])
            self.live.threads.tell()

    def _work(self, uint32_t node, device, controls):
        """Runs batches of one device until it is removed.

        controls  a deque of calls to be made on this thread; None: it was abandoned, and its node may be another's
        """
        cdef NodeId id
        cdef WorkBatch batch
        cdef Wake wake
        cdef dict stagings = {}
        cdef Arena arena = Arena(memory=device.staging_memory)
        cdef Driver* driver = self.driver
        cdef cbool ok, may_ask = device.check is not None
        cdef uint32_t unused, n
        cdef object payload
        cdef PyObject* carried
        id.value = node
        Driver.want_punctual_sleeps()
        with nogil:
            wake = next_of(driver, id, may_ask)
        while wake != Wake.stop:
            if not self.live.threads.hub.chain().empty():
                self.live.threads.tell()
            if wake == Wake.control:
                while controls:
                    call = controls.popleft()
                    if call is None or not call():
                        return
            elif wake == Wake.nothing:
                ask(driver, id, device)
                if controls and controls[0] is None:
                    return
            elif driver.claim(id, batch):
                ok = True
                try:
                    payload = self._run(id, batch, device, arena, stagings)
                except BaseException as e:  # whatever it is, it is this batch's failure, and the worker lives on
                    ok = False
                    payload = failure_of(device.name, self.by_id[batch.model.value].name, e)
                if controls and controls[0] is None:
                    return
                n = <uint32_t>batch.members.size()
                for _ in range(n):
                    Py_INCREF(payload)
                carried = <PyObject*>payload
                payload = None  # an idle device keeps nothing of its last batch
                with nogil:
                    unused = driver.finish(id, batch, ok, <void*>carried)
                    if unused == 0 and not driver.prompt():
                        wake = next_of(driver, id, may_ask)
                        ok = True
                    else:
                        ok = False
                for _ in range(unused):
                    Py_DECREF(<object>carried)
                if ok:
                    continue
                self.live.threads.tell()
                if controls and controls[0] is None:
                    return
            with nogil:
                wake = next_of(driver, id, may_ask)

    cdef object _run(self, NodeId id, WorkBatch& batch, object device, Arena arena, dict stagings):
        cdef ModelSpec spec = <ModelSpec>self.by_id[batch.model.value]
        cdef Staging staging = stagings.get(spec.id)
        cdef bint staged = device.takes_staged
        cdef object inputs
        if staging is None or staging.spec is not spec:
            staging = stagings[spec.id] = Staging(spec, device.batch_axis, self.run_names[id.value, spec.id], arena)
        try:
            inputs = staging.stage(batch.members) if staged else staging.pack(batch.members)
        finally:
            self.driver.started(id, batch)
        if staged:
            outputs = device.run_staged(staging.run_name, device.staged_batch(staging.run_name, *inputs))
        else:
            outputs = device.run(staging.run_name, inputs)
        return staging.accept(device.name, outputs, <uint32_t>batch.members.size())

    def _emulate(self, uint32_t node, device, controls):
        """As _work, for a device that only takes time: never holds the GIL while requests pass."""
        cdef NodeId id
        cdef vector[Curve] curves
        cdef Wake wake
        cdef Timer timer = device.timer
        cdef uint32_t generation
        id.value = node
        generation = self.driver.generation(id)
        Driver.want_punctual_sleeps()
        curves.resize(len(self.by_id))
        while True:
            for spec in self.by_id:
                known_as = None if spec is None else self.run_names.get((node, (<ModelSpec>spec).id))
                curve = None if known_as is None else device.curve(known_as)
                if curve is not None:
                    curves[(<ModelSpec>spec).id] = _curve_of(curve)
                    curves[(<ModelSpec>spec).id].base_s += <double>device.rtt_s
            with nogil:
                wake = self.driver.run_emulated(id, timer.c_obj.get()[0], curves, generation)
            if wake == Wake.stop:
                return
            while controls:
                call = controls.popleft()
                if call is None or not call():
                    return

    # ---- membership

    def _define(self, model):
        cdef ModelId id = self.fleet.c_obj.get().model_id(<string>model.name.encode(), <uint32_t>model.version)
        cdef ModelSpec spec = (TokenSpec if model.by_token else ModelSpec)(model, id.value)
        spec.epoch = self.driver.add_model(id, _model_config_of(model, self.newest_of(model.fallback)))
        self.by_id[id.value] = spec
        self.versions[model.name, model.version] = spec
        newest = max(v for name, v in self.versions if name == model.name)
        self.newest[model.name] = self.versions[model.name, newest]
        self.tell_fallback(model.name)

    def _undefine(self, str name, version):
        """Nobody finds it any more; returns its spec, for those who still hold it."""
        cdef ModelSpec spec = self.versions.pop((name, version))
        self.driver.remove_model(_model(spec.id))
        left = [v for known, v in self.versions if known == name]
        if left:
            self.newest[name] = self.versions[name, max(left)]
        else:
            self.newest.pop(name)
        self.tell_fallback(name)
        return spec

    cdef ModelSpec newest_of(self, object name):
        held = [v for known, v in self.versions if known == name]
        return self.versions[name, max(held)] if held else None

    cdef int tell_fallback(self, str name) except -1:
        """A model came or went: who falls back to it has another one, or none."""
        for spec in list(self.versions.values()):
            if spec.model.fallback == name:
                self.driver.set_fallback(_model((<ModelSpec>spec).id), _model_config_of(spec.model, self.newest_of(name)))
        return 0

    def _spec(self, str name, version):
        return self.versions[name, version]

    def _route_alias(self, str name, choose):
        self.newest[name] = choose

    def _own_fleet(self, owner):
        """What the fleet's errors call its owner; None lets go of it, for a change of the engine's own."""
        self.fleet.owner = owner

    def _add_node(self, uint32_t node, run_limit_s, uint32_t kv_blocks, uint32_t block_size):
        cdef NodeId id
        id.value = node
        if self.block_size == 0:
            self.block_size = block_size  # prompts are named as the first token device pages them
        self.driver.add_node(id, node_config_of(run_limit_s, kv_blocks))
        return self.driver.generation(id)

    def _set_run_name(self, ModelSpec spec, uint32_t node, str run_name):
        """As which a device knows a model; before it is loaded there, so that its worker finds it."""
        self.run_names[node, spec.id] = run_name

    def _set_prior(self, ModelSpec spec, uint32_t node, prior):
        if prior is not None:
            self.driver.set_prior(_model(spec.id), _node(node), _curve_of(prior))

    def _set_resident(self, ModelSpec spec, uint32_t node, bint resident):
        self.driver.set_resident(_model(spec.id), _node(node), resident)

    def _drain_node(self, uint32_t node):
        self.driver.drain_node(_node(node))

    def _node_empty(self, uint32_t node):
        return self.driver.node_empty(_node(node))

    def _remove_node(self, uint32_t node):
        self.driver.remove_node(_node(node))

    def _give_up_node(self, uint32_t node):
        self.driver.give_up_node(_node(node))

    def _lose_node(self, uint32_t node, uint32_t generation):
        return self.driver.lose_node(_node(node), generation)

    def _restore_node(self, uint32_t node, uint32_t generation):
        return self.driver.restore_node(_node(node), generation)

    def _control(self, uint32_t node):
        self.driver.control(_node(node))

    def _accept(self, bint accepting):
        self.accepting = accepting
        if not accepting:
            self.driver.refuse()

    def _check_not_forked(self):
        self.driver.check_not_forked()

    def _cancel_all(self):
        with nogil:
            self.driver.cancel_all()

    def _stop(self):
        with nogil:
            self.driver.stop()

    def _live(self):
        return self.live

    @property
    def n_open(self) -> int:
        """Requests accepted and not yet ended."""
        return self.driver.n_open()

    def _model_stats(self, str name, version):
        cdef ModelId id
        cdef unique_ptr[Stats] stats
        id.value = (<ModelSpec>self.versions[name, version]).id
        stats = self.driver.model_stats(id)
        return {**_figures(stats.get()[0]), **_door_figures(self.driver.admission_figures(id), self.door.steps)}

    def _latencies(self, uint32_t node):
        """What is known of each model that the device holds, by name and version."""
        held = [(key, (<ModelSpec>spec).id) for key, spec in list(self.versions.items())]
        return {key: _latency_figures(self.driver.latency(_model(id), _node(node)))
                for key, id in held if self.fleet.c_obj.get().resident(_node(node), _model(id))}

    def _node_stats(self, uint32_t node):
        cdef unique_ptr[Stats] stats = self.driver.node_stats(_node(node))
        return _figures(stats.get()[0])
