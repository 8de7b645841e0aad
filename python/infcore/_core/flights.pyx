"""Requests with equal keys that are under way together: one runs, and its answer is everybody's and the cache's.

Who runs and who waits is the engine's to say (csrc/infcore/engine/flights.hpp); here is what Python has of it.
"""
cimport cython
from cpython.ref cimport Py_INCREF
from libcpp cimport bool as cbool

from infcore._core.model_spec cimport ModelSpec
from infcore._core.staging cimport BatchResult
from infcore._cpp.base cimport never_ns, seconds
from infcore._cpp.engine cimport LiveRequest
from infcore._cpp.flight cimport Landed, ReentrantBorderMutex, landed_of

import os
import weakref

from numpy import ndarray

from infcore._core.model_spec import zeros_of

cdef object all_flights = weakref.WeakSet()


@cython.final
cdef class Flights:
    """An engine's. Thread-safe."""

    def __cinit__(self):
        self.lock.reset(new ReentrantBorderMutex())
        self.by_key = {}
        all_flights.add(self)

    cdef object board(self, LiveRequest* request, ModelSpec spec, Store cache, Clock clock, object key):
        """Gives it a seat, and returns None; or the answer, where one has landed that nobody has looked into yet."""
        cdef Flight flight
        cdef cbool is_made = False
        self.lock.get().lock()
        try:
            if self.cache is None:
                cache._watch(self)
                self.cache, self.clock = cache, clock
            flight = self.by_key.get(key)
            if flight is not None and flight.spec is not spec:
                flight.is_outdated = True  # another definition of the model
                flight = None
            if flight is not None and landed_of(flight.c) != Landed.not_yet:
                is_old = flight.left_s() == 0.0  # nobody has looked into it for so long
                is_made = not is_old and not flight.c.is_cheaper and flight.take(None)
                if is_old or flight.answer is None or flight.c.is_cheaper:
                    flight = None
            if flight is None:
                flight = Flight.__new__(Flight)
                flight.c.owner = <void*>flight
                flight.of, flight.spec, flight.key = self, spec, key
                self.by_key[key] = flight
            if flight.answer is None:
                flight.n_aboard += 1
                Py_INCREF(flight)  # the request's, until its future is gone
                request.seat.flight = &flight.c
        finally:
            self.lock.get().unlock()
        if is_made:
            flight.keep(False)
        return flight.answer

    def outdate(self, key=None):
        """The cache is told to forget the key, or everything: what is under way is nothing for who asks from now on."""
        cdef Flight flight
        self.lock.get().lock()
        try:
            gone = list(self.by_key.values()) if key is None else [self.by_key.get(key)]
            for flight in gone:
                if flight is not None:
                    flight.is_outdated = True
                    flight.forget()
        finally:
            self.lock.get().unlock()


@cython.final
cdef class Flight:
    """All but keep(): under the lock."""

    cdef bint take(self, dict outputs) except -1:
        """What it landed with, before its caller can change it. Whether there is an answer to be kept now.

        outputs  where they were taken from the payload, which then is no more
        """
        cdef dict answer = {}
        cdef Py_ssize_t n_bytes = 0
        cdef Landed landed = landed_of(self.c)
        if self.is_taken or landed == Landed.not_yet:
            return False
        payload = None if self.c.payload == NULL or outputs is not None else <object>self.c.payload
        if landed == Landed.failed:
            self.failure, self.is_taken = payload, True
            return False
        try:
            if outputs is None:
                outputs = zeros_of(self.spec) if payload is None else (<BatchResult>payload).of(self.c.member)
            for name, array in outputs.items():
                copy = array.copy() if isinstance(array, ndarray) else array
                if copy is not array:
                    copy.flags.writeable = False
                    n_bytes += copy.nbytes
                answer[name] = copy
        except BaseException as e:  # for want of memory, mostly: the payload is there no longer when they ask again
            self.failure, self.is_taken = e, True
            return False
        self.answer, self.n_bytes, self.is_taken = answer, n_bytes, True
        self.payload = None
        return True

    cdef object left_s(self):
        """Of the life that the cache gives what is put there, counted from when it landed; None: it does not end."""
        if self.of.cache.ttl_ns == never_ns:
            return None
        return seconds(max(0, self.c.landed_ns + self.of.cache.ttl_ns - self.of.clock.now_ns()))

    cdef int keep(self, bint leaves) except -1:
        """Without the lock: a cache may have a network behind it. Then the cache says how long it is good.

        leaves  who asked has what it wants
        """
        try:
            left_s = self.left_s()
            if not self.is_outdated and not self.c.is_cheaper and left_s != 0.0:
                self.of.cache.put(self.key, self.answer, size_bytes=self.n_bytes or 1, cost_us=1e-3 * self.c.run_ns,
                                  ttl_s=left_s)
        finally:
            self.of.lock.get().lock()
            try:
                self.forget()
                if leaves:
                    self.leave()
            finally:
                self.of.lock.get().unlock()
        return 0

    cdef int leave(self) except -1:
        """One has what it wants, or is gone."""
        self.n_aboard -= 1
        if self.n_aboard == 0:
            self.answer = self.payload = self.failure = None
            self.forget()
        return 0

    cdef int outlive(self, const LiveRequest* request) except -1:
        """Its future is gone, with whose payload it may have landed."""
        if not self.is_taken and landed_of(self.c) != Landed.not_yet and request.payload == self.c.payload:
            self.payload = <object>self.c.payload
        return 0

    cdef int forget(self) except -1:
        """Nobody comes aboard any more."""
        if self.of.by_key.get(self.key) is self:
            del self.of.by_key[self.key]
        return 0


def _after_fork():
    # One of the threads that are not in this process may have had it.
    cdef Flights flights
    for flights in list(all_flights):
        flights.lock.release()  # and its waiters are waited for, where it is destroyed
        flights.lock.reset(new ReentrantBorderMutex())


os.register_at_fork(after_in_child=_after_fork)
