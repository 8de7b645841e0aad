"""The answer to one request, as our own awaitable.

asyncio's futures cost a loop callback each; here one callback per batch runs every task's wake-up in that task's
context (2.3-2.7x cheaper for 64 of them).
"""
cimport cython
from cpython.ref cimport Py_DECREF
from libcpp cimport bool as cbool

from contextvars import copy_context

from infcore._cpp.base cimport seconds
from infcore._cpp.engine cimport ActionKind, LiveState, Reason, form_of, reason_names, state_of, wait_ended
from infcore._core.flights cimport Flight
from infcore._core.live cimport Pending
from infcore._core.staging cimport BatchResult
from infcore._cpp.flight cimport Landed, landed_of

from infcore._core.model_spec import zeros_of
from infcore.errors import (Cancelled, DeadlineExceeded, DeadlineInfeasible, DeviceError, DeviceLost, EngineClosed,
                            InvalidArgument, InvalidType, Overloaded, QueueFull, UnknownName)

cdef extern from "Python.h":
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object) except -1
    int PyErr_CheckSignals() except -1

include "outcome_errors.pxi"
include "kept_answer.pxi"

cdef double slice_s = 0.1  # a waiting thread looks for Ctrl-C this often


@cython.final
cdef class Future(Pending):
    """The answer to one request: of threads (submit) or of an event loop (asubmit, to be awaited there).

    Its methods are those of asyncio's or concurrent.futures' Future, so gather, wait_for, shield and tasks take it.
    """

    def __dealloc__(self):
        let_go(self)

    cdef int settle(self) except -1:
        """The engine has let go of it: the inputs are the caller's again, and callbacks run."""
        self.settled = True
        self.held = None
        callback, context, more = self.callback, self.context, self.more_callbacks
        self.callback = self.context = self.more_callbacks = None
        if callback is None:
            return 0
        if self.loop is None:
            self.live.c_obj.get().add_prompt(-1)
        try:
            self._run(callback, context)
        finally:
            if more is not None:
                for callback, context in more:
                    self._run(callback, context)
        return 0

    cdef int _run(self, object callback, object context) except -1:
        try:
            if context is None:
                callback(self)
            else:
                PyContext_Enter(context)
                try:
                    callback(self)
                finally:
                    PyContext_Exit(context)
        except BaseException as e:
            if self.loop is None:  # whichever thread this is, it is nobody's who could handle it
                try:
                    import sys
                    sys.excepthook(type(e), e, e.__traceback__)
                except BaseException:
                    pass
            elif isinstance(e, (SystemExit, KeyboardInterrupt)):  # as asyncio's loops do
                raise
            else:
                self.loop.call_exception_handler(
                    {"message": f"a callback of {self!r} raised", "exception": e, "future": self})
        return 0

    cdef int resolve(self) except -1:
        """From the engine's outcome to a value or an error; the batch's result is looked into only when asked for."""
        return resolve_aboard(self) if self.is_aboard else self.resolve_own()

    cdef int resolve_own(self) except -1:
        cdef object payload = None
        if self.resolved:
            return 0
        self.resolved = True
        if state_of(self.c) == LiveState.cancelled:  # the engine may still be writing the rest
            self.error = self._make_cancelled_error()
            return 0
        if self.c.payload != NULL:
            payload = <object>self.c.payload
            self.c.payload = NULL
            Py_DECREF(payload)
            self.answered_by = payload.device
        if self.c.kind == ActionKind.complete and self.c.reason == Reason.ok:
            self.value = zeros_of(self.spec) if payload is None else (<BatchResult>payload).of(self.c.member)
        elif self.c.kind == ActionKind.complete and self.c.reason in (Reason.stale, Reason.cached):
            self.value = self.at_hand
        else:
            self.error = _error_of(self, payload)
        return 0

    def _make_cancelled_error(self):
        if self.loop is None:
            return Cancelled(f"request to model {self.spec.name!r} was cancelled by its caller")
        import asyncio
        return asyncio.CancelledError()

    cdef object take(self):
        self.resolve()
        if self.error is not None:
            raise self.error.with_traceback(None)  # or each call would add to that of the one before
        return self.value

    # ---- what callers see

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        if state_of(self.c) == LiveState.pending:
            return False
        if not self.settled and self.loop is None:
            self.live.threads.drain()
        return True

    def cancelled(self) -> bool:
        return state_of(self.c) == LiveState.cancelled

    def cancel(self, msg=None) -> bool:
        """Take the request back. True: it ends as cancelled (a run under way is finished, its result unused)."""
        if self.parked:
            if not self.arrivals.unpark(self):
                return False
        elif not self.live.c_obj.get().cancel(self.c):
            return False
        # Nobody waits for the engine to let go: callbacks run as asyncio's would, from the loop's next turn.
        callback, context, more = self.callback, self.context, self.more_callbacks
        self.callback = self.context = self.more_callbacks = None
        if callback is not None:
            if self.loop is None:
                self.live.c_obj.get().add_prompt(-1)
            for callback, context in [(callback, context), *(more or ())]:
                if self.loop is None:
                    self._run(callback, context)
                else:
                    self.loop.call_soon(callback, self, context=context)
        return True

    def result(self, timeout_s=None):
        """The outputs, {name: array} without the batch axis; views of the batch's outputs.

        timeout_s  seconds to wait (futures of submit only; one of asubmit is awaited instead); None: no limit
        Raises     TimeoutError at the time-out (the request goes on); else what ended the request
        """
        self._wait(timeout_s)
        return self.take()

    def exception(self, timeout_s=None):
        """What result() would raise, or None. Raises if the request was cancelled, as the standard futures do."""
        self._wait(timeout_s)
        self.resolve()
        if state_of(self.c) == LiveState.cancelled:
            raise self.error
        return self.error

    def _wait(self, timeout_s):
        cdef double left = -1.0, slice_now
        cdef cbool ended = state_of(self.c) != LiveState.pending
        if not ended:
            self.live.c_obj.get().check_not_forked()
        if self.loop is not None:
            if not ended:
                import asyncio
                raise asyncio.InvalidStateError("not done yet: await it, or use submit() from a thread")
            return
        if timeout_s is not None:
            try:
                left = timeout_s
            except OverflowError:
                left = 1e300
            except TypeError:
                raise InvalidType(f"timeout_s is {type(timeout_s).__name__}; allowed: seconds, or None") from None
            if not left >= 0.0:
                raise InvalidArgument(f"timeout_s is {timeout_s!r}; allowed: seconds >= 0, or None")
        while not ended:
            slice_now = slice_s if left < 0.0 or left > slice_s else left
            with nogil:
                ended = wait_ended(self.c, slice_now)
            PyErr_CheckSignals()
            if not ended and timeout_s is not None:
                left -= slice_now
                if left <= 0.0:
                    raise TimeoutError(f"request to model {self.spec.name!r} is not done within timeout_s={timeout_s!r}")
        if not self.settled:
            self.live.threads.drain()

    def add_done_callback(self, fn, *, context=None):
        """Call fn(self) once it has ended: on its loop, or on the thread that notices (futures of submit)."""
        if context is None and self.loop is not None:
            context = copy_context()
        if state_of(self.c) != LiveState.pending:
            if self.loop is not None:
                self.loop.call_soon(fn, self, context=context)
            else:
                self._run(fn, context)
        elif self.callback is None:
            self.callback = fn
            self.context = context
            if self.loop is None:
                self.live.c_obj.get().add_prompt(1)
                if state_of(self.c) != LiveState.pending:  # it ended before anybody was told to be prompt
                    self.live.threads.drain()
        elif self.more_callbacks is None:
            self.more_callbacks = [(fn, context)]
        else:
            self.more_callbacks.append((fn, context))

    def remove_done_callback(self, fn) -> int:
        kept = [(self.callback, self.context), *(self.more_callbacks or ())] if self.callback is not None else []
        left = [pair for pair in kept if pair[0] != fn]
        self.callback, self.context = left[0] if left else (None, None)
        self.more_callbacks = left[1:] or None
        if kept and not left and self.loop is None:
            self.live.c_obj.get().add_prompt(-1)
        return len(kept) - len(left)

    def get_loop(self):
        return self.loop

    def __await__(self):
        if self.loop is None:
            raise InvalidType("a future of submit() is not awaitable; allowed: await engine.asubmit(...)")
        return self

    def __iter__(self):
        return self.__await__()

    def __next__(self):
        if state_of(self.c) == LiveState.pending:
            self._asyncio_future_blocking = True
            return self
        raise StopIteration(self.take())

    @property
    def device(self):
        """Name of the device that answered; None before, or where none did."""
        if state_of(self.c) != LiveState.done:
            return None
        if self.c.payload != NULL:
            return (<object>self.c.payload).device
        if self.answered_by is not None:
            return self.answered_by
        return self.live.node_names.get(self.c.node.value)

    @property
    def degraded(self):
        """In which form it was answered under load, if not as it came: "overload" (its batch did not wait), "stale",
        "cheaper" (served_by says by whom), "off_peak" (put off); None: as it came, or not yet known."""
        if state_of(self.c) != LiveState.done:
            return None
        if self.c.kind == ActionKind.complete and self.c.reason == Reason.stale:
            return "stale"
        form = form_of(self.c)
        return None if form == Reason.none else reason_names[<int>form].decode()

    @property
    def cached(self):
        """Whether it was answered from the engine's cache, or by an equal request's run; None before it is answered."""
        return None if state_of(self.c) != LiveState.done else self.c.reason == Reason.cached

    @property
    def served_by(self):
        """Name of the model that answered: under load perhaps its fallback; None before, or where none did."""
        if state_of(self.c) != LiveState.done or self.c.kind != ActionKind.complete or self.c.reason != Reason.ok:
            return None
        return self.spec.model.fallback if form_of(self.c) == Reason.cheaper else self.spec.name

    @property
    def end_s(self):
        """When it ended, on the engine's clock (time.monotonic()'s unless another was given); None before."""
        return None if state_of(self.c) == LiveState.pending else seconds(self.c.end_ns)

    @property
    def latency_s(self):
        """Seconds from submit to its end; None before."""
        if state_of(self.c) == LiveState.pending:
            return None
        return seconds(self.c.end_ns - self.c.request.arrival_ns)

    def __repr__(self):
        states = {LiveState.pending: "pending", LiveState.done: "done", LiveState.cancelled: "cancelled"}
        return f"<infcore.Future of model {self.spec.name!r}: {states[state_of(self.c)]}>"
