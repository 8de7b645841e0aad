"""The border of the live engine: submit on the caller's thread, one worker per device. What it does is in csrc/infcore/engine."""
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.vector cimport vector

from infcore._cpp.base cimport ModelId, NodeId, add_ns, never_ns, to_ns
from infcore._cpp.engine cimport (Driver, EmulatedTimer, EngineConfig, ManualTime, ModelConfig, NodeConfig, Wake,
                                  WorkBatch)
from infcore._cpp.latency cimport Curve, LatencyTable
from infcore._core.base cimport Clock, ManualClock, as_clock, finite, until_ns
from infcore._core.fleet cimport Fleet
from infcore._core.live cimport Arrivals, Future, Live
from infcore._core.staging cimport BatchResult, ModelSpec, Staging

from infcore.errors import (DeviceError, EngineClosed, InvalidArgument, InvalidType, QueueFull, UnknownName)

cdef object get_running_loop = None  # asyncio's, imported at the first asubmit: it costs more than all of infcore


cdef class EngineCore:
    """Submitting and running; infcore.Engine adds what is done once in a while."""

    def __cinit__(self, Fleet fleet, *, str policy, str batching, uint64_t seed, uint32_t max_requests, int n_tiers,
                  double ageing_s, object clock, **_):
        cdef EngineConfig config
        cdef const ManualTime* manual = NULL
        self.fleet = fleet
        self.clock = as_clock(clock)
        if isinstance(self.clock, ManualClock):
            manual = &(<ManualClock>self.clock).now
        elif type(self.clock) is not Clock:
            raise InvalidArgument(f"clock is {clock!r}; allowed for a live engine: None or infcore.ManualClock")
        config.max_requests = max_requests
        config.max_nodes = fleet.c_obj.get().max_nodes()
        config.max_models = fleet.c_obj.get().max_models()
        config.n_tiers = <uint16_t>n_tiers
        config.ageing_ns = to_ns(ageing_s) if ageing_s >= 0 else never_ns
        self.latency.reset(new LatencyTable(config.max_nodes, config.max_models))
        self.live = Live()
        self.live.c_obj.reset(new Driver(config, fleet.c_obj.get()[0], self.latency.get()[0], policy.encode(),
                                         batching.encode(), seed, manual))
        self.driver = self.live.c_obj.get()
        self.live.threads = Arrivals.__new__(Arrivals)
        self.live.threads.live = self.live
        self.live.threads.hub = &self.driver.add_hub(False)
        self.newest = {}
        self.versions = {}
        self.by_id = [None] * config.max_models
        self.n_tiers = n_tiers

    # ---- callers

    def submit(self, model, inputs, *, work=None, version=None, tenant="", tier=0, deadline_s=None, session=None,
               blocks=None, key=None, require=None) -> Future:
        """Queue one request; any thread.

        model       name of a model or alias
        inputs      {name: ndarray} as the model describes them, without a batch axis; borrowed and not to be changed
                    until the future ends
        work        >= 0, in the unit of the model's latency curve; None: as the model says
        version     of the model; None: as its alias says, else the newest
        tier        0 (most urgent) to n_tiers - 1
        deadline_s  seconds from now, > 0; a request that can't be answered by then ends with DeadlineExceeded
        require     labels that a device must have, {"region": "eu"}
        Returns     infcore.Future
        Raises      UnknownName, InvalidArgument, InvalidType, QueueFull, EngineClosed, ForkedProcess: nothing was queued
        Costs       one check of the inputs and one push to a lock-free ring; O(inputs)
        """
        cdef Future future = self.begin(model, inputs, work, version, tenant, tier, deadline_s, session, blocks, key,
                                        require)
        future.arrivals = self.live.threads
        self._push(future, False)
        return future

    def asubmit(self, model, inputs, *, work=None, version=None, tenant="", tier=0, deadline_s=None, session=None,
                blocks=None, key=None, require=None) -> Future:
        """As submit, from a coroutine: `outputs = await engine.asubmit(...)`."""
        global get_running_loop
        cdef Future future
        if get_running_loop is None:
            from asyncio import get_running_loop as found
            get_running_loop = found
        loop = get_running_loop()
        future = self.begin(model, inputs, work, version, tenant, tier, deadline_s, session, blocks, key, require)
        future.loop = loop
        future.arrivals = self.live.of_loop(loop)
        self._push(future, self.live.deferring and loop is self.live.last_loop)
        return future

    cdef Future begin(self, object model, object inputs, object work, object version, object tenant, object tier,
                      object deadline_s, object session, object blocks, object key, object require):
        cdef Future future
        cdef ModelSpec spec
        cdef object known
        cdef int64_t now_ns
        self.driver.check_not_forked()
        if not self.accepting:
            raise EngineClosed("the engine is not running; allowed: submit inside `with engine:`")
        known = self.newest.get(model) if version is None else self.versions.get((model, version))
        if known is None:
            self._unknown(model, version)
        spec = <ModelSpec>known if type(known) is ModelSpec else <ModelSpec>known()
        future = Future.__new__(Future)
        future.live = self.live
        future.spec = spec
        future.c.owner = <void*>future
        future.held = spec.bind(inputs, &future.c)
        if work is None:
            future.c.request.work = spec.work(inputs, &future.c)
        else:
            future.c.request.work = finite("work", work, 0.0)
        future.c.request.model.value = spec.id
        now_ns = self.driver.now_ns()
        future.c.request.arrival_ns = now_ns
        future.c.request.deadline_ns = until_ns("deadline_s", deadline_s, now_ns)
        if tier != 0:
            if type(tier) is not int or not 0 <= tier < self.n_tiers:
                raise InvalidArgument(f"tier is {tier!r}; allowed: an integer, 0 to {self.n_tiers - 1}")
            future.c.request.tier = <uint16_t>tier
        if require is not None:
            future.c.request.require = self.fleet.label_bits(require, True)
        if session is not None or blocks is not None or key is not None or tenant:
            self._not_yet(session=session, blocks=blocks, key=key, tenant=tenant or None)
        return future

    cdef int _push(self, Future future, bint defer) except -1:
        future.c.hub = future.arrivals.hub
        Py_INCREF(future)  # the engine's; Arrivals.drain gives it back
        if not self.driver.submit(future.c, defer):
            Py_DECREF(future)
            raise QueueFull(f"the engine holds {self.driver.n_open()} requests; allowed: max_requests, then try later")
        return 0

    def _unknown(self, model, version):
        if type(model) is not str:
            raise InvalidType(f"model is {type(model).__name__}; allowed: a name, one of {sorted(self.newest)}")
        if model in self.newest:
            there = sorted(v for name, v in self.versions if name == model)
            raise UnknownName(f"version of model {model!r} is {version!r}; allowed: None or one of {there}")
        raise UnknownName(f"model is {model!r}; allowed: one of {sorted(self.newest)}")

    def _not_yet(self, **given):
        for name, value in given.items():
            if value is not None:
                raise InvalidArgument(f"{name} is {value!r}; allowed in this release: its default")

    # ---- the dispatcher and the workers, each on a thread of its own

    def _dispatch(self):
        cdef cbool stopped = False
        while not stopped:
            with nogil:
                stopped = self.driver.dispatch_loop(self.live.threads.hub[0])
            self.live.threads.drain()

    def _work(self, uint32_t node, device, controls):
        """Runs batches of one device until it is removed. `controls`: a deque of calls to be made on this thread."""
        cdef NodeId id
        cdef WorkBatch batch
        cdef Wake wake
        cdef dict stagings = {}
        cdef Driver* driver = self.driver
        cdef Live live = self.live
        cdef cbool ok
        cdef uint32_t unused, n
        cdef object payload
        id.value = node
        with nogil:
            wake = driver.wait_batch(id)
        while wake != Wake.stop:
            if not live.threads.hub.chain().empty():
                live.threads.drain()
            if wake == Wake.control:
                while controls:
                    if not controls.popleft()():
                        return
            elif driver.claim(id, batch):
                ok = True
                try:
                    payload = self._run(id, batch, device, stagings)
                except BaseException as e:  # whatever it is, it is this batch's failure, and the worker lives on
                    ok = False
                    payload = _failure(device.name, self.by_id[batch.model.value].name, e)
                n = <uint32_t>batch.members.size()
                for _ in range(n):
                    Py_INCREF(payload)
                with nogil:
                    unused = driver.finish(id, batch, ok, <void*>payload)
                    if unused == 0 and not driver.prompt():
                        wake = driver.wait_batch(id)
                        ok = True
                    else:
                        ok = False
                for _ in range(unused):
                    Py_DECREF(payload)
                payload = None
                if ok:
                    continue
                live.threads.drain()
            with nogil:
                wake = driver.wait_batch(id)

    cdef object _run(self, NodeId id, WorkBatch& batch, object device, dict stagings):
        cdef ModelSpec spec = <ModelSpec>self.by_id[batch.model.value]
        cdef Staging staging = stagings.get(spec.id)
        if staging is None or staging.spec is not spec:
            staging = stagings[spec.id] = Staging(spec, device.batch_axis)
        try:
            inputs = staging.pack(batch.members)
        finally:
            self.driver.started(id, batch)
        return staging.accept(device.name, device.run(spec.name, inputs), <uint32_t>batch.members.size())

    def _emulate(self, uint32_t node, device, controls):
        """As _work, for a device that only takes time: never holds the GIL while requests pass."""
        cdef NodeId id
        cdef vector[Curve] curves
        cdef Wake wake
        cdef EmulatedTimer* timer = new EmulatedTimer(device.cv, device.seed)
        id.value = node
        curves.resize(len(self.by_id))
        try:
            while True:
                for spec in self.by_id:
                    if spec is not None:
                        curves[(<ModelSpec>spec).id] = _curve_of(device.curve(spec.name))
                with nogil:
                    wake = self.driver.run_emulated(id, timer[0], curves)
                if wake == Wake.stop:
                    return
                while controls:
                    if not controls.popleft()():
                        return
        finally:
            del timer

    # ---- membership

    def _define(self, model):
        cdef ModelConfig config
        cdef ModelId id = self.fleet.c_obj.get().model_id(<string>model.name.encode(), <uint32_t>model.version)
        cdef ModelSpec spec = ModelSpec(model, id.value)
        config.max_batch_size = model.max_batch_size
        config.batch_delay_ns_max = to_ns(model.max_batch_delay_s)
        config.idempotent = model.idempotent
        self.driver.add_model(id, config)
        self.by_id[id.value] = spec
        self.versions[model.name, model.version] = spec
        newest = max(v for name, v in self.versions if name == model.name)
        self.newest[model.name] = self.versions[model.name, newest]

    def _undefine(self, str name, version):
        self.versions.pop((name, version))
        left = [v for known, v in self.versions if known == name]
        if left:
            self.newest[name] = self.versions[name, max(left)]
        else:
            self.newest.pop(name)

    def _route_alias(self, str name, choose):
        self.newest[name] = choose

    def _add_node(self, uint32_t node, run_limit_s):
        cdef NodeConfig config
        cdef NodeId id
        id.value = node
        config.run_limit_ns = never_ns if run_limit_s is None else to_ns(run_limit_s)
        self.driver.add_node(id, config)

    def _set_resident(self, str name, version, uint32_t node, bint resident, prior):
        cdef ModelSpec spec = self.versions[name, version]
        cdef ModelId model
        cdef NodeId id
        model.value = spec.id
        id.value = node
        if prior is not None:
            self.driver.set_prior(model, id, _curve_of(prior))
        self.driver.set_resident(model, id, resident)

    def _drain_node(self, uint32_t node):
        cdef NodeId id
        id.value = node
        self.driver.drain_node(id)

    def _node_empty(self, uint32_t node):
        cdef NodeId id
        id.value = node
        return self.driver.node_empty(id)

    def _control(self, uint32_t node):
        cdef NodeId id
        id.value = node
        self.driver.control(id)

    def _accept(self, bint accepting):
        self.accepting = accepting

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


cdef Curve _curve_of(curve):
    cdef Curve c
    c.base_s, c.per_request_s, c.per_work_s, c.per_padded_work_s = curve
    return c


def _failure(device, model, e):
    if isinstance(e, DeviceError):
        return e
    error = DeviceError(f"device {device!r}, model {model!r}: {type(e).__name__}: {e}")
    error.__cause__ = e
    return error
