"""One computation that several callers wait for, threads and event loops alike."""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

from infcore.errors import DeadlineExceeded


class Abandoned(Exception):
    """Whoever computed it was stopped; who waits tries again."""


class Flight:
    """A value that somebody computes. Ends once, by succeed(), fail() or abandon()."""

    __slots__ = ("_future", "instead_of", "is_kept", "is_outdated", "n_waiting", "owner", "tags", "task")

    def __init__(self, owner: object, tags: frozenset[str]):
        self._future: Future[Any] = Future()
        self.owner = owner  # a thread's id or an asyncio task: who must not wait for it
        self.tags = tags
        self.is_outdated = False  # what comes of it must not be kept
        self.instead_of: tuple[Hashable, ...] | None = None  # of one that nobody asked for: what may go for it
        self.is_kept = False
        self.task: asyncio.Task[None] | None = None
        self.n_waiting = 0  # of who can be cancelled

    @property
    def is_done(self) -> bool:
        return self._future.done()

    def succeed(self, value: object) -> None:
        self._future.set_result(value)

    def fail(self, error: BaseException) -> None:
        self._future.set_exception(error)

    def abandon(self) -> None:
        """Without effect once it has ended."""
        if not self._future.done():
            self._future.set_exception(Abandoned())

    def result(self, timeout_s: float | None) -> Any:
        """Wait on this thread. Raises what the computation raised; DeadlineExceeded; Abandoned."""
        try:
            return self._future.result(timeout_s)
        except TimeoutError:
            if self._future.done():
                raise  # it is the computation's own
            raise _late(timeout_s) from None

    async def aresult(self, timeout_s: float | None) -> Any:
        """The same on an event loop; cancelling it cancels nobody else's wait."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        self._future.add_done_callback(_waker(loop, woken))
        self.n_waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                await woken
        except TimeoutError:
            raise _late(timeout_s) from None
        finally:
            self.n_waiting -= 1
        return self._future.result()


def _waker(loop: asyncio.AbstractEventLoop, woken: "asyncio.Future[None]") -> Callable[["Future[Any]"], None]:
    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    def tell(_: "Future[Any]") -> None:
        try:
            loop.call_soon_threadsafe(wake)
        except RuntimeError:  # closed meanwhile: nobody waits there any more
            pass

    return tell


def _late(timeout_s: float | None) -> DeadlineExceeded:
    return DeadlineExceeded(f"timeout_s is {timeout_s}, and it is not computed yet; the next call computes it anew")
