cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr

from infcore._core.base cimport Clock, TenantNames
from infcore._cpp.queue cimport TieredQueue, WaitGate, WakeOnce


cdef extern from * nogil:
    """
    #include <infcore/queue/wait_gate.hpp>
    #ifdef Py_GIL_DISABLED
    using QueueLock = infcore::queue::SpinLock<>;
    #else
    // Who holds the GIL has the queue: nothing between lock and unlock runs Python code or gives the GIL up.
    struct QueueLock {
      void lock() noexcept {}
      void unlock() noexcept {}
    };
    #endif
    """
    cdef cppclass QueueLock:
        void lock() noexcept
        void unlock() noexcept


# One put, as it is tried.
cdef struct Wanted:
    int64_t deadline_ns
    int64_t now_ns
    int64_t units
    uint32_t tier
    uint32_t tenant


@cython.final
cdef class Ticket:
    cdef uint64_t _id
    cdef uint64_t _queue_id


cdef class LoopWake


cdef class QueueStore:
    cdef object __weakref__
    cdef unique_ptr[TieredQueue] c_queue
    cdef QueueLock _lock        # guards c_queue, _items and _closed; no Python code runs under it
    cdef WaitGate _arrivals     # where getters wait for an item
    cdef WaitGate _departures   # where putters wait for room
    cdef WaitGate _deadlines    # where watch() waits for the next one
    cdef int64_t _watched_ns    # a put with an earlier deadline wakes watch(); INT64_MIN: nobody watches
    cdef uint32_t _n_watching
    cdef list _items            # slot -> item, None where free: a list, so that the collector sees them
    cdef list _async_waiters    # (LoopWake, future) of each awaiting getter, first come first
    cdef list _wakes            # LoopWake of each loop that is not closed
    cdef TenantNames _tenants
    cdef object _on_drop
    cdef Clock _clock
    cdef uint64_t _queue_id
    cdef uint32_t _fork_generation
    cdef uint32_t _capacity
    cdef uint32_t _n_tiers
    cdef uint32_t _n_wake_room  # putters to wake for one place: all, where it may be of the wrong tier
    cdef cbool _clock_is_ours   # no Python code in it, so that it may be read under the lock
    cdef cbool _blocks
    cdef cbool _always_now      # put reads the clock even for an item without a deadline
    cdef cbool _closed

    cdef int _check(self) except -1
    cdef PyObject* _lift(self, uint32_t slot) noexcept
    cdef bint _hold(self, uint32_t slot, PyObject* item) noexcept
    cdef int _want(self, Wanted* wanted, object tier, object deadline_s, object tenant, object work) except -1
    cdef bint _put_again(self, object item, const Wanted* wanted, uint64_t* ticket, uint32_t token) except -1
    cdef bint _try_put(self, object item, const Wanted* wanted, uint64_t* ticket, uint32_t* token) except -1
    cdef object _next(self, int64_t until_ns)
    cdef bint _wait(self, WaitGate* gate, uint32_t token, int64_t until_ns) except -1
    cdef int64_t _next_expiry_ns(self) except -1
    cdef int _watch(self) except -1
    cdef uint32_t _expire(self, int64_t now_ns) except? 0xFFFFFFFF
    cdef int _drop(self, PyObject** items, Py_ssize_t n, str reason) except -1
    cdef int _wake_async(self, Py_ssize_t n) except -1
    cdef LoopWake _wake_of(self, object loop)
    cdef bint _forget(self, object waiter) except -1


@cython.final
cdef class LoopWake:
    cdef QueueStore queue
    cdef object loop
    cdef WakeOnce once
    cdef list due               # futures

    cdef int tell(self, QueueStore queue, object future) except -1
    cdef Py_ssize_t take_back(self) except -1


@cython.final
cdef class Queue(QueueStore):
    pass
