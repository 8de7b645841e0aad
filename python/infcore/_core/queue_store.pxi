# Part of queue.pyx: the mechanism under Queue. A lock, two gates and a list of items around the core's TieredQueue.

cdef extern from "Python.h":
    # Raw: under the lock nothing may be released, since a finaliser could call back.
    PyObject* PyList_GET_ITEM(PyObject*, Py_ssize_t)
    void PyList_SET_ITEM(PyObject*, Py_ssize_t, PyObject*)
    Py_ssize_t PyList_GET_SIZE(PyObject*)
    int PyLong_CheckExact(object)
    long long PyLong_AsLongLongAndOverflow(object, int*)
    int PyList_Append(PyObject*, PyObject*)
    list PyList_New(Py_ssize_t)
    void Py_SET_SIZE(PyObject*, Py_ssize_t)
    void retain "Py_INCREF"(PyObject*)
    void release "Py_DECREF"(PyObject*)

cdef enum:
    n_expired_at_once = 64

cdef int64_t not_read = INT64_MIN   # the clock has not been asked yet
cdef int64_t one_units = units_of(1.0)
# How often a blocked put asks a clock that is not the machine's own: between idle wake-ups and noticing expiry late.
cdef int64_t poll_ns = 50_000_000
cdef object nothing = object()


cdef object one = 1.0   # the default work, as one object
cdef object zero = 0    # small integers are one object each


cdef inline int64_t whole(str field, object value, int64_t low, int64_t high) except? -1:
    cdef int overflow = 0
    cdef int64_t number
    if PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow == 0 and low <= number <= high:
            return number
    return whole_or_raise(field, value, low, high)


cdef int64_t whole_or_raise(str field, object value, int64_t low, int64_t high) except? -1:
    try:
        number = index(value)
    except TypeError:
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a whole number") from None
    if not low <= number <= high:
        raise InvalidArgument(f"{field} is {value!r}; allowed: a whole number from {low} to {high}")
    return number


@cython.no_gc_clear  # methods lean on the members to the very end; a cycle breaks at the list of items instead
cdef class QueueStore:
    cdef int _check(self) except -1:
        if not self.c_queue:
            raise InvalidArgument("Queue is not initialised; allowed: use after Queue.__init__")
        if self._fork_generation != fork_generation():
            check_not_forked(self._fork_generation, "Queue")
        return 0

    cdef PyObject* _lift(self, uint32_t slot) noexcept:
        """Under the lock: the item of a slot, with the list's reference to it."""
        cdef PyObject* item = PyList_GET_ITEM(<PyObject*>self._items, slot)
        retain(<PyObject*>None)
        PyList_SET_ITEM(<PyObject*>self._items, slot, <PyObject*>None)
        return item

    cdef bint _hold(self, uint32_t slot, PyObject* item) noexcept:
        """Under the lock: the reverse, for a slot that holds None or is new to the list. False: out of memory."""
        while slot >= <size_t>PyList_GET_SIZE(<PyObject*>self._items):
            if PyList_Append(<PyObject*>self._items, <PyObject*>None) != 0:
                return False
        retain(item)
        release(<PyObject*>None)
        PyList_SET_ITEM(<PyObject*>self._items, slot, item)
        return True

    cdef int _want(self, Wanted* wanted, object tier, object deadline_s, object tenant, object work) except -1:
        """The arguments that put and put_many share. Reads the clock if the time matters."""
        wanted.tier = 0 if tier is zero else <uint32_t>whole("tier", tier, 0, self._n_tiers - 1)
        wanted.tenant = self._tenants.number(tenant)
        wanted.units = one_units if work is one else units_of(finite("work", work, 0.0))
        wanted.now_ns, wanted.deadline_ns = not_read, never_ns
        if deadline_s is not None or self._always_now:
            wanted.now_ns = self._clock.now_ns()
            wanted.deadline_ns = until_ns("deadline_s", deadline_s, wanted.now_ns)
        return 0

    cdef bint _put_again(self, object item, const Wanted* wanted, uint64_t* ticket, uint32_t token) except -1:
        """After a _try_put that found no room: makes or awaits some. False: there is none, and the queue does not block."""
        cdef uint32_t n_expired
        while True:
            try:
                n_expired = self._expire(not_read)
                if n_expired == 0 and not self._blocks:
                    return False
                if n_expired == 0:
                    self._wait(&self._departures, token, self._next_expiry_ns())
            finally:
                if self._blocks:
                    self._departures.leave()
            if self._try_put(item, wanted, ticket, &token):
                return True

    cdef bint _try_put(self, object item, const Wanted* wanted, uint64_t* ticket, uint32_t* token) except -1:
        """One attempt. False: no room; a queue that blocks has then entered its gate with `token`."""
        cdef PyObject* shed = NULL
        cdef cbool wake = False, watch = False, closed
        cdef Placed placed
        cdef Share share
        share.tenant, share.units = wanted.tenant, wanted.units
        self._lock.lock()
        closed = self._closed
        if not closed:
            placed = self.c_queue.get().put(wanted.tier, wanted.deadline_ns, wanted.now_ns, share)
        while placed.slot == placed_full_of_expired:
            self._lock.unlock()
            self._expire(wanted.now_ns)
            self._lock.lock()
            placed.slot = placed_full
            closed = self._closed
            if not closed:
                placed = self.c_queue.get().put(wanted.tier, wanted.deadline_ns, wanted.now_ns, share)
        if not closed and placed.shed != no_slot:
            shed = self._lift(placed.shed)
        if placed.slot < placed_out_of_memory:
            ticket[0] = self.c_queue.get().ticket(placed.slot)
            if self._hold(placed.slot, <PyObject*>item):
                wake = self._arrivals.open()
                watch = wanted.deadline_ns < self._watched_ns and self._deadlines.open()
            else:
                self.c_queue.get().cancel(ticket[0])
                placed.slot = placed_out_of_memory
        elif placed.slot == placed_full and self._blocks and not closed:
            token[0] = self._departures.enter()
        self._lock.unlock()
        if closed:
            raise QueueClosed("the queue is closed; allowed: put before close()")
        if wake:
            self._arrivals.wake(1)
        if watch:
            self._deadlines.wake(0x7FFFFFFF)
        if PyList_GET_SIZE(<PyObject*>self._async_waiters) != 0:
            self._wake_async(1)
        if shed != NULL:
            self._drop(&shed, 1, "shed")
        if placed.slot == placed_out_of_memory:
            PyErr_Clear()
            raise MemoryError
        return placed.slot != placed_full

    cdef object _next(self, int64_t until_ns):
        """The next item, waiting until then on the machine's monotonic clock; `nothing` if none came."""
        cdef int64_t now_ns = not_read
        cdef uint32_t slot, token = 0
        cdef PyObject* item
        cdef cbool closed, wake
        while True:
            self._lock.lock()
            if now_ns == not_read and self.c_queue.get().needs_now():
                if not self._clock_is_ours:
                    self._lock.unlock()
                    now_ns = self._clock.now_ns()
                    continue
                now_ns = self._clock.now_ns()
            if self.c_queue.get().has_expired(now_ns):
                self._lock.unlock()
                self._expire(now_ns)
                continue
            slot = self.c_queue.get().pop(now_ns)
            if slot != no_slot:
                item = self._lift(slot)
                wake = self._departures.open()
                self._lock.unlock()
                if wake:
                    self._departures.wake(self._n_wake_room)
                taken = <object>item
                release(item)
                return taken
            closed = self._closed
            if until_ns > 0 and not closed:
                token = self._arrivals.enter()
            self._lock.unlock()
            if closed:
                raise QueueClosed("the queue is closed and empty")
            if until_ns <= 0:
                return nothing
            try:
                if not self._wait(&self._arrivals, token, until_ns):
                    until_ns = 0  # one last look
            finally:
                self._arrivals.leave()
            now_ns = not_read

    cdef bint _wait(self, WaitGate* gate, uint32_t token, int64_t until_ns) except -1:
        """False: timed out. Raises what a signal handler raised, and passes a wake-up on that it may have swallowed."""
        cdef WaitOutcome outcome
        with nogil:
            outcome = gate.wait(token, until_ns)
        if outcome == WaitOutcome.interrupted:
            try:
                PyErr_CheckSignals()
            except BaseException:
                gate.wake(0x7FFFFFFF)
                raise
        return outcome != WaitOutcome.timed_out

    cdef int64_t _next_expiry_ns(self) except -1:
        """When the next item expires, on the machine's monotonic clock; another clock is asked every so often."""
        cdef int64_t next_ns, wait_ns
        self._lock.lock()
        next_ns = self.c_queue.get().next_deadline_ns()
        self._lock.unlock()
        if next_ns == never_ns:
            return never_ns
        wait_ns = max(next_ns - self._clock.now_ns(), 0)
        if type(self._clock) is not Clock:
            wait_ns = min(wait_ns, poll_ns)
        return add_ns(monotonic_ns(), wait_ns)

    cdef int _watch(self) except -1:
        """Gives up what expires, when it does, until the queue is closed and nothing in it has a deadline."""
        cdef uint32_t token
        cdef int64_t next_ns = 0
        cdef cbool closed = False
        self._n_watching += 1
        try:
            while not closed or next_ns != never_ns:
                if self._expire(not_read) != 0:
                    continue
                self._lock.lock()
                closed = self._closed
                next_ns = self._watched_ns = self.c_queue.get().next_deadline_ns()
                token = self._deadlines.enter()
                self._lock.unlock()
                try:
                    if not closed or next_ns != never_ns:
                        self._wait(&self._deadlines, token, self._next_expiry_ns())
                finally:
                    self._deadlines.leave()
        finally:
            self._n_watching -= 1
            if self._n_watching == 0:
                self._watched_ns = INT64_MIN
        return 0

    cdef uint32_t _expire(self, int64_t now_ns) except? 0xFFFFFFFF:
        """Gives up every expired item; returns how many. Reads the clock if now_ns is not_read and it matters."""
        cdef PyObject* gone[n_expired_at_once]
        cdef uint32_t slot, n = n_expired_at_once, n_in_all = 0
        cdef cbool wake
        if now_ns == not_read:
            self._lock.lock()
            wake = self.c_queue.get().needs_now()
            self._lock.unlock()
            if not wake:
                return 0
            now_ns = self._clock.now_ns()
        while n == n_expired_at_once:
            n = 0
            self._lock.lock()
            while n < n_expired_at_once:
                slot = self.c_queue.get().take_expired(now_ns)
                if slot == no_slot:
                    break
                gone[n] = self._lift(slot)
                n += 1
            wake = n > 0 and self._departures.open()
            self._lock.unlock()
            if wake:
                self._departures.wake(max(n, self._n_wake_room))
            n_in_all += n
            self._drop(gone, n, "expired")
        return n_in_all

    cdef int _drop(self, PyObject** items, Py_ssize_t n, str reason) except -1:
        """Tells on_drop of items, whose references are this call's to release."""
        cdef Py_ssize_t i
        cdef object interrupt = None
        held = [<object>items[i] for i in range(n)]
        for i in range(n):
            release(items[i])
        if self._on_drop is None:
            return 0
        for item in held:
            try:
                self._on_drop(item, reason)
            except Exception as error:
                PyErr_SetObject(type(error), error)  # Cython has taken it off; this is how to hand it on
                PyErr_WriteUnraisable(self._on_drop)
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
        return 0

    cdef int _wake_async(self, Py_ssize_t n) except -1:
        """Tells up to n awaiting getters, from whatever thread this is."""
        cdef LoopWake wake
        while n > 0 and self._async_waiters:
            wake, future = self._async_waiters.pop(0)
            n -= 1
            try:
                wake.tell(self, future)
            except RuntimeError:  # its loop is closed: whoever was due there does not hear of it
                n += wake.take_back()
        return 0

    cdef LoopWake _wake_of(self, object loop):
        cdef LoopWake wake
        for wake in self._wakes:
            if wake.loop is loop:
                return wake
        self._wakes = [wake for wake in self._wakes if not wake.loop.is_closed()]
        wake = LoopWake.__new__(LoopWake, loop)
        self._wakes.append(wake)
        return wake

    cdef bint _forget(self, object waiter) except -1:
        """Whether `waiter` had not been told yet."""
        try:
            self._async_waiters.remove(waiter)
        except ValueError:
            return False
        return True
