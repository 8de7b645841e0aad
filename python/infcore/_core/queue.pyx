# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The tiered queue for Python objects: its arguments and results. The mechanism is in queue_store.pxi."""
from operator import index
from types import GenericAlias

cimport cython
from cpython.exc cimport PyErr_CheckSignals, PyErr_Clear, PyErr_SetObject, PyErr_WriteUnraisable
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint32_t, uint64_t
from libcpp cimport bool as cbool

from infcore._core.base cimport Clock, ManualClock, TenantNames, as_clock, finite, until_ns
from infcore._cpp.base cimport add_ns, check_not_forked, fork_generation, monotonic_ns, never_ns, to_ns
from infcore._cpp.queue cimport (Placed, Share, TieredQueue, TieredQueueConfig, WaitGate, WaitOutcome, n_slots_max, no_slot,
                                 placed_full, placed_full_of_expired, placed_out_of_memory, units_of)

from infcore.errors import InvalidArgument, InvalidType, QueueClosed, QueueEmpty, QueueFull

include "queue_async.pxi"
include "queue_store.pxi"

cdef uint64_t n_queues = 0


@cython.final
@cython.freelist(256)
cdef class Ticket:
    """Names one item in one Queue until it leaves. Made by Queue.put, for Queue.cancel."""

    def __init__(self):
        raise InvalidType("Ticket cannot be made; allowed: what Queue.put returns")

    def __eq__(self, other):
        return type(other) is Ticket and self._id == (<Ticket>other)._id and self._queue_id == (<Ticket>other)._queue_id

    def __hash__(self):
        return hash((self._id, self._queue_id))

    def __repr__(self):
        return f"<infcore.Ticket {self._id:#x} of queue {self._queue_id}>"


@cython.final
@cython.no_gc_clear  # methods lean on the members to the very end; a cycle breaks at the list of items instead
cdef class Queue:
    """Bounded queue for threads and asyncio: by tier, then least served tenant, then earliest deadline, then arrival.

    capacity       items at once, 1 to 4294967293
    tiers          1 to 64; tier 0 is the most urgent
    overflow       when full, "reject": raise QueueFull; "block": wait for room; "shed_lowest": give up the item of the
                   last tier, there the latest deadline (none is latest), there the newest; QueueFull if that is the new one
    tier_capacity  bound of each tier: one number for all, or one for each; None: none but capacity
    ageing_s       who has waited this long goes before everything younger, oldest first; None: nobody
    on_drop        on_drop(item, "expired" | "shed") is called once for each item given up, without locks, by the thread
                   that found it; what it raises goes to sys.unraisablehook
    clock          for deadlines and ageing, None: monotonic time; time-outs are in real time always
    Expiry         an item whose deadline is now or past is not returned. The calls that take items notice it, and put
                   where there is no room; until then it counts in len(). watch() on a thread of yours notices it at once
    Tenants        in each tier the one that was served the least work goes first. Who comes back is lifted to the least
                   of those that wait, so nobody saves up by being away. Bounded memory: of more than 16,384 that wait in
                   a tier, and beyond 65,536 names, some share a place. shed_lowest looks at tier and deadline alone
    Raises         InvalidArgument, InvalidType; every method: ForkedProcess in a child of the process that made it
    Complexity     O(log n) an item, O(1) without deadlines and with one tenant
    """

    def __init__(self, capacity, *, tiers=1, overflow="reject", tier_capacity=None, ageing_s=None, on_drop=None,
                 clock=None):
        global n_queues
        cdef TieredQueueConfig config
        if self.c_queue:
            raise InvalidArgument("Queue.__init__ was called again; allowed: once")
        config.capacity = <uint32_t>whole("capacity", capacity, 1, n_slots_max)
        config.n_tiers = <uint32_t>whole("tiers", tiers, 1, 64)
        if overflow not in ("reject", "shed_lowest", "block"):
            raise InvalidArgument(f"overflow is {overflow!r}; allowed: 'reject', 'shed_lowest' or 'block'")
        if tier_capacity is not None:
            bounds = list(tier_capacity) if hasattr(tier_capacity, "__iter__") else [tier_capacity] * config.n_tiers
            if len(bounds) != config.n_tiers:
                raise InvalidArgument(f"tier_capacity is {tier_capacity!r}; allowed: a number, or {config.n_tiers} of them")
            for bound in bounds:
                config.tier_capacities.push_back(<uint32_t>whole("tier_capacity", bound, 1, n_slots_max))
        config.ageing_ns = until_ns("ageing_s", ageing_s, 0)
        config.shed_lowest = overflow == "shed_lowest"
        if on_drop is not None and not callable(on_drop):
            raise InvalidType(f"on_drop is {type(on_drop).__name__}; allowed: None or a callable of (item, reason)")
        self._clock = as_clock(clock)
        self._is_monotonic = type(self._clock) is Clock
        self._clock_is_ours = type(self._clock) is Clock or type(self._clock) is ManualClock
        self._items = []
        self._async_waiters = []
        self._wakes = []
        self._tenants = TenantNames()
        self._watched_ns = INT64_MIN
        self._on_drop = on_drop
        self._blocks = overflow == "block"
        self._always_now = config.shed_lowest or ageing_s is not None
        self._capacity = config.capacity
        self._n_tiers = config.n_tiers
        self._n_wake_room = 1 if tier_capacity is None else 0x7FFFFFFF
        self._fork_generation = fork_generation()
        n_queues += 1
        self._queue_id = n_queues
        self.c_queue.reset(new TieredQueue(config))

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __len__(self):
        check(self)
        self._lock.lock()
        cdef uint32_t size = self.c_queue.get().size()
        self._lock.unlock()
        return size

    def put(self, item, *, tier=0, deadline_s=None, tenant="", work=1.0):
        """Queue one item.

        tier        0 (most urgent) to tiers - 1
        deadline_s  seconds from now, >= 0; None: none
        tenant      whose it is, a name of at most 256 characters
        work        what serving it counts for its tenant, >= 0
        Returns     a Ticket for cancel()
        Raises      QueueFull, QueueClosed, InvalidArgument, InvalidType
        """
        cdef Wanted wanted
        cdef uint32_t token = 0
        cdef Ticket ticket
        check(self)
        want(self, &wanted, tier, deadline_s, tenant, work)
        ticket = Ticket.__new__(Ticket)
        ticket._queue_id = self._queue_id
        if not (try_put(self, item, &wanted, &ticket._id, &token)
                or put_again(self, item, &wanted, &ticket._id, token)):
            raise QueueFull(f"the queue has no room in tier {tier}; allowed: {self._capacity} items in all, "
                            "tier_capacity in each tier")
        return ticket

    def put_many(self, items, *, tier=0, deadline_s=None, tenant="", work=1.0):
        """Queue items in order until one does not fit; returns how many were taken.

        items    an iterable; what it raises is passed on, and what came before stays. The rest as in put, the same for all
        Raises   QueueClosed, InvalidArgument, InvalidType
        """
        cdef Wanted wanted
        cdef uint64_t ticket
        cdef uint32_t token = 0
        cdef Py_ssize_t n_taken = 0
        check(self)
        try:
            held = iter(items)  # not all at once: it may have no end
        except TypeError:
            raise InvalidType(f"items is {type(items).__name__}; allowed: an iterable") from None
        want(self, &wanted, tier, deadline_s, tenant, work)
        for item in held:
            try:
                if not (try_put(self, item, &wanted, &ticket, &token)
                        or put_again(self, item, &wanted, &ticket, token)):
                    break
            except QueueClosed:
                if n_taken == 0:
                    raise
                break
            n_taken += 1
        return n_taken

    def get(self, *, timeout_s=None):
        """Take the next item, waiting for one at most timeout_s seconds (None: for ever).

        Raises   QueueEmpty after the time-out; QueueClosed once the queue is closed and empty; InvalidArgument, InvalidType
        """
        check(self)
        item = next_item(self, until_ns("timeout_s", timeout_s, monotonic_ns()))
        if item is nothing:
            raise QueueEmpty(f"nothing came within timeout_s = {timeout_s}")
        return item

    def get_nowait(self):
        """Take the next item. Raises QueueEmpty, or QueueClosed once the queue is closed and empty."""
        check(self)
        item = next_item(self, 0)
        if item is nothing:
            raise QueueEmpty("the queue is empty")
        return item

    async def aget(self):
        """Take the next item, awaiting it; cancelling loses none. Raises QueueClosed once the queue is closed and empty."""
        from asyncio import get_running_loop

        check(self)
        while True:
            item = next_item(self, 0)
            if item is not nothing:
                return item
            loop = get_running_loop()
            waiter = (wake_of(self, loop), loop.create_future())
            self._async_waiters.append(waiter)
            try:
                item = next_item(self, 0)  # once more: a put before the append has told nobody
                if item is nothing:
                    await waiter[1]
            except BaseException:
                if not forget(self, waiter):
                    wake_async(self, 1)
                raise
            if not forget(self, waiter) and item is not nothing:
                wake_async(self, 1)
            if item is not nothing:
                return item

    def drain(self, max_items):
        """Take up to max_items at once; returns them in order, none if the queue is empty. Raises InvalidArgument, InvalidType."""
        cdef Py_ssize_t n_max = <Py_ssize_t>whole("max_items", max_items, 0, INT64_MAX), n = 0
        cdef int64_t now_ns = not_read
        cdef uint32_t size, slot
        cdef cbool timed, wake
        check(self)
        self._lock.lock()
        timed = self.c_queue.get().needs_now()
        self._lock.unlock()
        if timed:
            now_ns = now_of_clock(self)
            expire(self, now_ns)
        n_max = min(n_max, <Py_ssize_t>len(self))
        cdef list taken = PyList_New(n_max)
        self._lock.lock()
        while n < n_max and not self.c_queue.get().has_expired(now_ns):
            slot = self.c_queue.get().pop(now_ns)
            if slot == no_slot:
                break
            PyList_SET_ITEM(<PyObject*>taken, n, lift(self, slot))
            n += 1
        wake = n > 0 and self._departures.open()
        self._lock.unlock()
        Py_SET_SIZE(<PyObject*>taken, n)  # the rest is still null
        if wake:
            self._departures.wake(max(<uint32_t>n, self._n_wake_room))
        return taken

    def cancel(self, ticket):
        """Take the ticket's item out and release it; False if it has left already. Raises InvalidType, InvalidArgument."""
        cdef uint32_t slot
        cdef PyObject* item = NULL
        cdef cbool wake = False
        if type(ticket) is not Ticket:
            raise InvalidType(f"ticket is {type(ticket).__name__}; allowed: a Ticket from this queue's put")
        check(self)
        if (<Ticket>ticket)._queue_id != self._queue_id:
            raise InvalidArgument(f"ticket is {ticket!r}; allowed: one from this queue, which is {self._queue_id}")
        self._lock.lock()
        slot = self.c_queue.get().cancel((<Ticket>ticket)._id)
        if slot != no_slot:
            item = lift(self, slot)
            wake = self._departures.open()
        self._lock.unlock()
        if wake:
            self._departures.wake(self._n_wake_room)
        if item == NULL:
            return False
        release(item)
        return True

    def watch(self):
        """Give up items as they expire, within a millisecond; returns once the queue is closed and none has a deadline.

        For a thread of yours, which calls on_drop: without one, expiry waits for the next call that takes items. A clock
        other than the machine's is asked 20 times a second.
        """
        check(self)
        watch_deadlines(self)

    def close(self):
        """Take no more items: put raises QueueClosed, and so do getters once what is left has been taken. May be repeated."""
        check(self)
        self._lock.lock()
        self._closed = True
        self._arrivals.open()
        self._departures.open()
        self._deadlines.open()
        self._lock.unlock()
        self._arrivals.wake(0x7FFFFFFF)
        self._departures.wake(0x7FFFFFFF)
        self._deadlines.wake(0x7FFFFFFF)
        wake_async(self, len(self._async_waiters))
