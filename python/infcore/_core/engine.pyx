"""The border of the live engine: submit on the caller's thread. What it does is in csrc/infcore/engine."""
from cpython.number cimport PyIndex_Check
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint16_t

from infcore._cpp.base cimport never_ns, seconds, to_ns
from infcore._cpp.engine cimport AdmissionFigures, request_work_max
from infcore._cpp.route cimport no_such_label
from infcore._core.base cimport TenantNames, finite, until_ns
from infcore._core.flights cimport Flights
from infcore._core.future cimport Future
from infcore._core.model_spec cimport ModelSpec
from infcore._core.token_worker cimport TokenWorkers

from infcore.errors import DeadlineExceeded, EngineClosed, InvalidArgument, InvalidType, NoNodeAvailable, QueueFull, UnknownName

include "prompt.pxi"

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

cdef object NO_TENANT = ""
cdef object ZERO = 0  # small integers are one object each: the common tier costs one comparison
cdef object get_running_loop = None  # asyncio's, imported at the first asubmit: it costs more than all of infcore


cdef class EngineCore(TokenWorkers):
    """Submitting; infcore.Engine adds what is done once in a while."""

    def __cinit__(self):
        self.tenants = TenantNames()
        self.flights = Flights()

    def submit(self, model, inputs, *, work=None, version=None, tenant="", tier=0, deadline_s=None, session=None,
               blocks=None, key=None, require=None, defer_s=None) -> Future:
        """Queue one request; any thread.

        model       name of a model or alias
        inputs      {name: ndarray} as the model describes them, without a batch axis; borrowed and not to be changed
                    until the future ends
        work        >= 0, in the unit of the model's latency curve; None: as the model says
        version     of the model; None: as its alias says, else the newest
        tenant      whose it is, a name of at most 256 characters; in a tier of a model's queue the tenant that was served
                    the least work goes first. Beyond 65,536 names some share a place
        tier        0 (most urgent) to n_tiers - 1
        deadline_s  seconds from now, > 0; a request that can't be answered by then ends with DeadlineExceeded
        defer_s     how long it may be put off while devices have more to do than they can; None: as the model says
        session     a str or an int that requests which belong together have in common: for policies that keep a session
                    on one device
        blocks      (n,) uint64, as block_hashes(prompt, the devices' block_size) gives: names of the prompt's full
                    blocks, where the caller has them or salts them; copied. None: those of a TokenModel's prompt
        key         hashable; a request with an equal one to the same model and version, of the same tenant (unless
                    Engine(cache_is_shared=True)), is answered from the engine's cache, without a device and past the
                    queue (a full engine refuses it as any); its arrays are read-only. An answer is put there when its
                    future is first asked for it, as worth the seconds that it took; its ttl_s counts from its end.
                    While one runs, equal ones wait for its answer, or share its device's failure: future.cached is
                    True of them. Who is more urgent than each that runs (tier, deadline_s, defer_s), or requires other
                    labels, does not wait, but runs as well, and so does the first of those who wait once the one that
                    ran is cancelled, late or given up; a cancel or a deadline of one's own ends nobody else. None: the
                    cache has nothing to do with it
        require     labels that a device must have, {"region": "eu"}; some device must carry them now, if only a lost one
        Returns     infcore.Future
        Raises      UnknownName, InvalidArgument, InvalidType, NoNodeAvailable (require), QueueFull, EngineClosed,
                    ForkedProcess: nothing was queued. The future: DeadlineInfeasible where no device could meet its
                    deadline, Overloaded (a QueueFull) where the engine's policies refuse or give it up
        Costs       one check of the inputs and one push to a lock-free ring; O(inputs)
        """
        cdef Future future = self.begin(model, inputs, work, version, tenant, tier, deadline_s, session, blocks, key,
                                        require, defer_s)
        future.arrivals = self.live.threads
        self._push(future, False)
        return future

    def asubmit(self, model, inputs, *, work=None, version=None, tenant="", tier=0, deadline_s=None, session=None,
                blocks=None, key=None, require=None, defer_s=None) -> Future:
        """As submit, from a coroutine: `outputs = await engine.asubmit(...)`."""
        global get_running_loop
        cdef Future future
        if get_running_loop is None:
            from asyncio import get_running_loop as found
            get_running_loop = found
        loop = get_running_loop()
        future = self.begin(model, inputs, work, version, tenant, tier, deadline_s, session, blocks, key, require,
                            defer_s)
        future.loop = loop
        future.arrivals = self.live.of_loop(loop)
        self._push(future, future.arrivals.deferring)
        return future

    cdef Future begin(self, object model, object inputs, object work, object version, object tenant, object tier,
                      object deadline_s, object session, object blocks, object key, object require, object defer_s):
        cdef Future future
        cdef ModelSpec spec
        cdef object known
        cdef int64_t now_ns
        if not self.accepting:
            raise EngineClosed("the engine is not running; allowed: submit inside `with engine:`")
        self.driver.check_not_forked()
        if self.driver.routing().failed():  # a policy in Python
            self.driver.routing().rethrow()
        if not isinstance(model, str) or not (version is None or PyIndex_Check(version)):
            self._unknown(model, version)
        known = self.newest.get(model) if version is None else self.versions.get((model, version))
        if known is None:
            self._unknown(model, version)
        spec = <ModelSpec>known if isinstance(known, ModelSpec) else <ModelSpec>known()
        future = Future.__new__(Future)
        future.live = self.live
        future.spec = spec
        future.c.owner = <void*>future
        future.held = spec.bind(inputs, &future.c)
        if work is None:
            future.c.request.work = spec.work(inputs, &future.c)
        else:
            future.c.request.work = finite("work", work, 0.0)
        if future.c.request.work > request_work_max:  # curves add up squares of it: nothing would be chosen any more
            raise InvalidArgument(f"work is {future.c.request.work!r}; allowed: at most {request_work_max:g}")
        future.c.request.model.value = spec.id
        future.c.epoch = spec.epoch
        now_ns = self.driver.now_ns()
        future.c.request.arrival_ns = now_ns
        future.c.request.deadline_ns = until_ns("deadline_s", deadline_s, now_ns)
        if tier is not ZERO:
            if not PyIndex_Check(tier) or isinstance(tier, bool):
                raise InvalidType(f"tier is {type(tier).__name__}; allowed: an integer, 0 to {self.n_tiers - 1}")
            if not 0 <= tier < self.n_tiers:
                raise InvalidArgument(f"tier is {tier!r}; allowed: an integer, 0 to {self.n_tiers - 1}")
            future.c.request.tier = <uint16_t>tier
        if require is not None:
            future.c.request.require = self.fleet.require_bits(require)
            if future.c.request.require & no_such_label:
                raise NoNodeAvailable(f"require is {require!r}; allowed: labels that some device of the engine carries")
        if tenant is not NO_TENANT:
            future.c.request.tenant = self.tenants.number(tenant)
        future.c.request.defer_ns = spec.defer_ns if defer_s is None else to_ns(finite("defer_s", defer_s, 0.0))
        if self.stale is not None and self.driver.rung(future.c.request.model) >= self.stale_rung:
            future.at_hand = self.stale(spec.name, inputs)
            future.c.request.has_stale = future.at_hand is not None
        if session is not None:
            future.c.request.session = session_of(session)
        if spec.by_token or blocks is not None:
            tell_prompt(self, future, spec, blocks)
        if key is not None:
            ask_cache(self, future, spec, tenant, key)
        return future

    cdef int _push(self, Future future, bint defer) except -1:
        future.c.hub = future.arrivals.hub
        if future.arrivals.parked and future.arrivals.is_behind(future.c.request.tier):
            return future.arrivals.park(future, self._patience_left_s(future))
        Py_INCREF(future)  # the engine's; Arrivals.drain gives it back
        if self.driver.submit(future.c, defer):
            return 0
        Py_DECREF(future)
        if self.accepting and self.blocks:
            if future.loop is not None:
                return future.arrivals.park(future, self._patience_left_s(future))
            return self._wait_for_room(future)
        return self._refuse(future)

    cdef int _wait_for_room(self, Future future) except -1:
        cdef double slice_s
        while self.accepting:
            left_s = self._patience_left_s(future)
            if left_s is not None and left_s <= 0.0:
                error = DeadlineExceeded(f"request to model {future.spec.name!r}: the engine was full until its deadline")
                error.reason = "deadline"
                raise error
            slice_s = 0.1 if left_s is None else min(0.1, left_s)
            with nogil:
                self.driver.wait_for_room(future.c, slice_s)
            PyErr_CheckSignals()
            Py_INCREF(future)
            if self.driver.submit(future.c, False):
                return 0
            Py_DECREF(future)
        return self._refuse(future)

    cdef object _patience_left_s(self, Future future):
        if future.c.request.deadline_ns == never_ns:
            return None
        return seconds(future.c.request.deadline_ns - self.driver.now_ns())

    cdef int _refuse(self, Future future) except -1:
        cdef AdmissionFigures figures
        self.driver.refused(future.c.request.model)
        if not self.accepting:
            raise EngineClosed("the engine is being closed; allowed: submit inside `with engine:`")
        figures = self.driver.admission_figures(future.c.request.model)
        error = QueueFull(f"the engine holds {self.driver.n_open()} requests; allowed: max_requests, and tier_capacity of "
                          f"tier {future.c.request.tier}, then try later")
        error.reason, error.retry_after_s = "queue_full", figures.retry_after_s
        raise error

    def _n_flights(self) -> int:
        """Keys under way, and those whose answers nobody has asked for yet."""
        return len(self.flights.by_key)

    def _unknown(self, model, version):
        if not isinstance(model, str):
            raise InvalidType(f"model is {type(model).__name__}; allowed: a name, one of {sorted(self.newest)}")
        if version is not None and not PyIndex_Check(version):
            raise InvalidType(f"version is {type(version).__name__}; allowed: an integer, or None")
        if model in self.newest:
            there = sorted(v for name, v in self.versions if name == model)
            raise UnknownName(f"version of model {model!r} is {version!r}; allowed: None or one of {there}")
        raise UnknownName(f"model is {model!r}; allowed: one of {sorted(self.newest)}")


cdef int ask_cache(EngineCore engine, Future future, ModelSpec spec, object tenant, object key) except -1:
    """Marks what is there as answered; what is not has equal ones of its time wait for it, or waits for one of them."""
    if engine.cache is None:
        raise InvalidArgument(f"key is {key!r}; allowed without Engine(cache=): None")
    if spec.by_token:
        raise InvalidArgument(f"key is {key!r}; allowed for a TokenModel, whose answers come in parts: None")
    whose = NO_TENANT if engine.cache_is_shared else tenant
    cache_key = (spec.name, spec.model.version, whose, key)
    answer = engine.cache.get(cache_key)
    if answer is None:
        answer = engine.flights.board(&future.c, spec, engine.cache, engine.clock, cache_key)
    if answer is None:
        future.is_aboard = True
    else:
        future.at_hand = dict(answer)  # the arrays are read-only, the dict is the caller's
        future.c.request.is_cached = True
    return 0
