"""One computation that several callers wait for, threads and event loops alike."""

import asyncio
import itertools
import threading
from collections.abc import Hashable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

# How often who waits for a computation on an event loop looks whether that loop was closed under it: nobody tells.
LOOK_S = 0.5

_orders = itertools.count()
_nothing = object()


class Abandoned(Exception):
    """Whoever computed it was stopped; who waits tries again."""


class Flight:
    """A value that somebody computes. Ends once, by succeed(), fail() or abandon(); the first of them counts."""

    __slots__ = (
        "_future",
        "_woken",
        "instead_of",
        "is_kept",
        "is_outdated",
        "key",
        "loop",
        "n_wanting",
        "order",
        "over",
        "owner",
        "tags",
        "task",
        "thread",
        "version",
    )

    def __init__(self, key: Hashable, put: dict[str, Any], *, owner: object, loop: asyncio.AbstractEventLoop | None):
        self._woken: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}  # who waits on a loop
        self._future: Future[Any] = Future()
        self.key = key
        self.tags = frozenset(put.get("tags", ()))
        self.version = put.get("version", 0)
        self.owner = owner  # a thread's id or an asyncio task: who must not wait for it
        self.loop = loop  # where it is computed; None: on a thread
        self.thread = None if loop is None else threading.get_ident()  # of that loop: nothing runs there while it waits
        self.task: asyncio.Task[None] | None = None  # of that loop
        self.order = next(_orders)  # what began later knows more
        self.is_outdated = False  # what comes of it must not be kept
        self.instead_of: tuple[Hashable, ...] | None = None  # of one that nobody asked for: what may go for it
        self.is_kept = False
        self.over: object = _nothing  # the value that one which began earlier has put meanwhile
        self.n_wanting = 1  # who began it, and who waits

    @property
    def is_done(self) -> bool:
        return self._future.done()

    @property
    def is_over(self) -> bool:
        """It has ended, or never will: its loop is closed."""
        return self._future.done() or (self.loop is not None and self.loop.is_closed())

    def succeed(self, value: object) -> None:
        with suppress(InvalidStateError):
            self._future.set_result(value)
        self._wake()

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self._future.set_exception(error)
        self._wake()

    def abandon(self) -> None:
        self.fail(Abandoned())

    def result(self) -> Any:
        """Once it has ended. Raises what the computation raised; Abandoned."""
        return self._future.result()

    def wait(self, timeout_s: float | None) -> bool:
        """Whether it has ended, after waiting so long on this thread."""
        while self.loop is not None and (timeout_s is None or timeout_s > LOOK_S):
            if self._ends_within(LOOK_S):
                return True
            self._look()
            timeout_s = None if timeout_s is None else timeout_s - LOOK_S
        return self._ends_within(timeout_s)

    async def await_end(self, timeout_s: float | None) -> bool:
        """The same on an event loop; cancelling it cancels nobody else's wait."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        self._woken[woken] = loop
        try:
            if self._future.done():  # else who ends it finds `woken` there
                return True
            while self.loop not in (None, loop) and (timeout_s is None or timeout_s > LOOK_S):
                await asyncio.wait((woken,), timeout=LOOK_S)
                if woken.done():
                    return True
                self._look()
                timeout_s = None if timeout_s is None else timeout_s - LOOK_S
            await asyncio.wait((woken,), timeout=timeout_s)
            return self._future.done()
        finally:
            del self._woken[woken]

    def _wake(self) -> None:
        for woken, loop in tuple(self._woken.items()):
            with suppress(RuntimeError):  # closed meanwhile: nobody waits there any more
                loop.call_soon_threadsafe(_tell, woken)

    def _ends_within(self, timeout_s: float | None) -> bool:
        try:
            self._future.exception(None if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX))
        except TimeoutError:
            return self._future.done()
        return True

    def _look(self) -> None:
        if self.is_over:
            self.abandon()


def is_cancelled() -> bool:
    """Whether somebody cancelled the task that runs; else a CancelledError in it is of something that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _tell(woken: "asyncio.Future[None]") -> None:
    if not woken.done():
        woken.set_result(None)
