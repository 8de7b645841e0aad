"""How completions come back: one wake-up per batch, for an event loop or for waiting threads."""
cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t
from libcpp.vector cimport vector

from collections import OrderedDict, deque, namedtuple

from infcore._core.fleet cimport Fleet, SignalGate
from infcore._cpp.base cimport ModelId, NodeId
from infcore._cpp.engine cimport ActionKind, Driver, LiveRequest, LoadOrder as CppLoadOrder, Reason
from infcore._cpp.route cimport Signal


LoadOrder = namedtuple("LoadOrder", "node model generation loads")


cdef inline ModelId _model(uint32_t model):
    cdef ModelId id
    id.value = model
    return id


cdef inline NodeId _node(uint32_t node):
    cdef NodeId id
    id.value = node
    return id


cdef class Live:
    def __cinit__(self):
        self.loops = {}
        self.node_names = {}

    cdef Arrivals of_loop(self, object loop):
        """The hub of an event loop. Hubs of closed loops are used again: there are never more than loops at once."""
        cdef Arrivals arrivals = self.last_arrivals
        if arrivals is not None and arrivals.loop is loop:
            return arrivals
        arrivals = self.loops.get(loop)
        if arrivals is None:
            for known in list(self.loops):
                if known.is_closed():
                    arrivals = self.loops.pop(known, None)  # None: another thread's loop was quicker
                    if arrivals is not None:
                        break
            if arrivals is None:
                arrivals = Arrivals.__new__(Arrivals)
                arrivals.live = self
                arrivals.parts = deque()
                arrivals.hub = &self.c_obj.get().add_hub(True)
            arrivals.loop = loop
            loop.add_reader(arrivals.hub.fd(), arrivals.on_ready)
            self.loops[loop] = arrivals
        self.last_arrivals = arrivals
        return arrivals

    def leave_loops(self):
        """At the engine's end: what is left is told, and no loop watches our descriptors any more."""
        for loop, arrivals in list(self.loops.items()):
            try:
                loop.call_soon_threadsafe((<Arrivals>arrivals).leave)  # a loop that stands still does it when it goes on
            except RuntimeError:  # closed: its tasks are no more
                (<Arrivals>arrivals).drain()
        self.loops = {}
        self.last_arrivals = None

    def drain_threads(self):
        self.threads.drain()

    # ---- models that the engine has loaded and dropped

    def may_hold(self, uint32_t model, uint32_t node, bint may):
        self.c_obj.get().may_hold(_model(model), _node(node), may)

    def wait_orders(self) -> list:
        """What is to be loaded and dropped, in order; empty: the engine has ended."""
        cdef vector[CppLoadOrder] orders
        with nogil:
            orders = self.c_obj.get().wait_orders()
        return [LoadOrder(order.node.value, order.model.value, order.generation, order.loads) for order in orders]

    def loaded(self, order, bint ok, double load_s):
        cdef CppLoadOrder carried_out
        carried_out.node, carried_out.model = _node(order.node), _model(order.model)
        carried_out.generation, carried_out.loads = order.generation, True
        self.c_obj.get().loaded(carried_out, ok, load_s)

    # ---- the event log

    def start_log(self, Fleet fleet not None, bytes path not None, size_t buffer_bytes):
        """Before anything else. From here on the fleet's signals are steps of the engine's owner."""
        cdef LoggedSignals gate = LoggedSignals.__new__(LoggedSignals)
        self.c_obj.get().start_log(path, buffer_bytes)
        gate.live = self
        fleet.gate = gate

    def write_log(self):
        """The writer's thread: until end_log()."""
        with nogil:
            self.c_obj.get().log_loop()

    def end_log(self):
        with nogil:
            self.c_obj.get().end_log()

    def log_error(self) -> int:
        """errno of what keeps the log from being written; 0: nothing does."""
        return self.c_obj.get().log_error()


@cython.final
cdef class LoggedSignals(SignalGate):
    cdef Live live

    cdef bint take(self, NodeId id, const Signal& signal) except *:
        cdef bint taken
        with nogil:
            taken = self.live.c_obj.get().signal(id, signal)
        return taken


@cython.final
cdef class Arrivals:
    def on_ready(self):
        """The loop's reader: everything that ended since the last time."""
        self.hub.clear()
        self.deferring = True
        try:
            self.tell_parts()
            self.drain()
            if self.parked:
                self.push_parked()
        finally:
            self.deferring = False
            with nogil:
                self.live.c_obj.get().flush()

    cdef int tell_parts(self) except -1:
        while self.parts:
            (<Told>self.parts.popleft()).tell()
        return 0

    def leave(self):
        self.tell_parts()
        self.drain()
        self.push_parked()  # they hear that the engine is closed
        self.loop.remove_reader(self.hub.fd())

    # ---- futures that wait for room in a full engine

    cdef bint is_behind(self, uint16_t tier) except -1:
        """Whether others of its tier or a more urgent one wait for room: then it waits after them."""
        return bool(self.parked) and min(self.parked) <= tier

    cdef int park(self, Pending future, object timeout_s) except -1:
        """It is pushed once there is room, the most urgent first, then in the order in which they came; ends as expired
        after timeout_s."""
        tier = future.c.request.tier
        if self.parked is None:
            self.parked = {}
        if tier not in self.parked:
            self.parked[tier] = OrderedDict()
        timer = None if timeout_s is None else self.loop.call_later(timeout_s, self.expire, future)
        self.parked[tier][future] = timer
        future.parked = True
        return self.push_parked()

    cdef int push_parked(self) except -1:
        cdef Pending future
        cdef Driver* driver = self.live.c_obj.get()
        if not self.parked:
            return 0
        driver.want_room(self.hub[0])  # before the look: nobody who ends now is missed
        for tier in sorted(self.parked):  # one that is full keeps no other one waiting
            while tier in self.parked:
                future = next(iter(self.parked[tier]))
                if driver.refuses():
                    self.end_parked(future, ActionKind.cancel, Reason.closing)
                    continue
                Py_INCREF(future)
                if not driver.submit(future.c, self.deferring):
                    Py_DECREF(future)
                    break
                self.leave_park(future)
        return 0

    cdef int leave_park(self, Pending future) except -1:
        tier = future.c.request.tier
        waiting = self.parked[tier]
        timer = waiting.pop(future)
        if not waiting:
            del self.parked[tier]
        future.parked = False
        if timer is not None:  # else its answer would be kept until then
            timer.cancel()
        return 0

    def expire(self, Pending future):
        if future.parked:
            self.end_parked(future, ActionKind.shed, Reason.deadline)

    cdef int end_parked(self, Pending future, ActionKind kind, Reason reason) except -1:
        self.leave_park(future)
        if self.live.c_obj.get().end_outside(future.c, kind, reason):
            future.settle()
        return 0

    cdef bint unpark(self, Pending future) except -1:
        """Its caller cancels it: whether he was in time."""
        self.leave_park(future)
        return self.live.c_obj.get().cancel_outside(future.c)

    cdef int tell(self) except -1:
        """As drain, on a thread of ours: whatever callbacks raise, it goes on."""
        try:
            self.drain()
        except BaseException as e:
            import sys
            sys.excepthook(type(e), e, e.__traceback__)
        return 0

    cdef int drain(self) except -1:
        cdef LiveRequest* request = self.hub.chain().take_all()
        cdef LiveRequest* after
        cdef PyObject* owner
        cdef object raised = None
        cdef uint32_t n = 0
        while request != NULL:
            after = request.next
            owner = <PyObject*>request.owner
            try:
                (<Pending>owner).settle()
            except BaseException as e:  # from a callback, and no Exception: the rest must be told all the same
                raised = e
            Py_DECREF(<object>owner)
            request = after
            n += 1
        if self.loop is None:
            self.live.c_obj.get().drained(n)
        if raised is not None:
            raise raised
        return 0


cdef class Told:
    cdef int tell(self) except -1:
        return 0


cdef class Pending:
    """What the engine borrows of a future."""

    cdef int settle(self) except -1:
        return 0
