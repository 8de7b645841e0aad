"""The one connection of a process to a Redis that hears what changes there, and carries what is written.

One thread owns it: threads and event loops hand it commands and wait for futures. What others change comes on the same
connection as the replies, in the order in which Redis did it: whoever sees a reply has seen every change before it.
"""

import atexit
import collections
import contextlib
import itertools
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol, TypeVar

from infcore.cache.far_scripts import Command, packed
from infcore.cache.redis_client import connect_to, redis_errors, shown
from infcore.errors import CacheUnreachable

_Note = TypeVar("_Note")
_here = threading.local()
THREAD_NAME = "infcore-redis"
END_S_MAX = 2.0  # one that waits for a server may take longer; the interpreter ends all the same
BACK_OFF_S_MIN, BACK_OFF_S_MAX = 0.02, 2.0


class Listener(Protocol):
    """Who wants to know what changes. Told on the link's thread, in Redis' order; must neither raise nor wait."""

    prefix: bytes  # of the names that it wants to hear of; empty: of none
    heartbeat_s: float

    def on_up(self, link: "Link") -> None:
        """From now on it is told of every change; of those before now it may have missed some."""

    def on_lost(self, link: "Link") -> None:
        """It is told of nothing any more."""

    def on_changed(self, link: "Link", name: bytes) -> None:
        """The name's value has changed, or is gone."""

    def on_flushed(self, link: "Link") -> None:
        """Everything may have changed."""

    def on_asked(self, link: "Link") -> None:
        """on_confirmed() will speak of this moment."""

    def on_confirmed(self, link: "Link") -> None:
        """Up to the last on_asked(), it was told of everything."""


class Push(NamedTuple):
    """Something that Redis says unasked."""

    message: list[Any]


class _Order(NamedTuple):
    """Commands that somebody waits for."""

    data: bytes
    n_replies: int
    future: "Future[list[Any]]"
    writer: object
    names: Sequence[bytes]  # what it changes, which other listeners of this process are told
    sent_s: float


class Link:
    """A connection that mends itself. Made by shared(), ended when the last listener has left.

    timeout_s  that a reply, and a connection to be made, may take
    add(), leave() and send() leave notes for the thread, in steps that nothing comes between: the garbage collector may
    run at any of ours, and destructors call them. A lock could be held by the very thread that they interrupt
    """

    def __init__(self, url: str, timeout_s: float, options: dict[str, Any]):
        self.url, self.timeout_s = url, timeout_s
        self.place = shown(url)  # for what is told of it
        self._options = options
        self._n_added = itertools.count()
        self._coming: collections.deque[Listener] = collections.deque()
        self._leaving: collections.deque[Listener] = collections.deque()
        self._orders: collections.deque[_Order] = collections.deque()  # another for each connection
        self._is_up = False
        # All from here on is the thread's own.
        self._listeners: list[Listener] = []
        self._told: list[Listener] = []  # of these, who hears of every change, on this connection
        self._followed: set[bytes] = set()  # the prefixes that Redis said it follows on it
        self._asked: dict[bytes, list[Listener]] = {}  # those that it has not answered of, and who waits for that
        self._sent: collections.deque[tuple[_Order, list[Any]]] = collections.deque()
        self._is_asking = False
        self._is_closed = False
        self._offset_s = 0.0  # the server's clock less ours
        self.n_connects = self.n_users = 0
        self.remembers_first = False  # in a turn of its loop, not last, who touched a key: Redis before 6.2
        self.tried = threading.Event()  # set once it is connected, or could not be at first
        self.refusal = ""  # what the server last said instead of letting us listen
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    @property
    def is_up(self) -> bool:
        """Whether it is connected, and everybody was told of changes who was there then; who came since soon is."""
        return self._is_up

    def server_s(self) -> float:
        """Seconds of the server's clock, as far as the last heartbeat tells."""
        return time.monotonic() + self._offset_s

    def add(self, listener: Listener) -> None:
        """Tell it of changes, from its on_up() on."""
        self._coming.append(listener)
        if next(self._n_added) == 0:
            self._thread.start()
        self._wake()

    def leave(self, listener: Listener) -> None:
        """Tell it nothing more, soon. The last one to leave ends the thread and the connection."""
        self._leaving.append(listener)
        self._wake()

    def send(self, commands: Sequence[Command], *, writer: object = None, names: Sequence[bytes] = ()
             ) -> "Future[list[Any]]":  # fmt: skip
        """Commands in one go, and a future of their replies, which ends on the link's thread; errors are among them.

        names       that this changes: listeners of the same link other than `writer` are told, as Redis does not
        Raises      CacheUnreachable at once where it is not connected, and the future where it breaks meanwhile
        """
        future: Future[list[Any]] = Future()
        data = b"".join(packed(command) for command in commands)
        order = _Order(data, len(commands), future, writer, names, time.monotonic())
        orders = self._orders
        if not self._is_up:
            raise self._down()
        orders.append(order)
        if orders is not self._orders:  # lost meanwhile, and nobody may look there any more
            with contextlib.suppress(ValueError):  # or somebody did
                orders.remove(order)
                raise self._down()
        self._wake()
        return future

    def _down(self) -> CacheUnreachable:
        why = f"; it said: {self.refusal}" if self.refusal else ""
        return CacheUnreachable(f"{self.place} is not connected, and tried again all the time{why}")

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake; closed: there is nobody to wake
            self._wake_in.send(b"\0")

    def _run(self) -> None:
        _here.is_link = True
        delay_s = BACK_OFF_S_MIN
        while not self._is_closed:
            connection = None
            try:
                connection = connect_to(self.url, self.timeout_s, self._options, Push)
                self._greet(connection)
                self.refusal = ""
                delay_s = BACK_OFF_S_MIN
                self._serve(connection)
            except redis_errors():
                pass
            except Exception as error:  # whatever it is: nobody is told of changes, so nobody may go on trusting
                self.refusal = repr(error)
            finally:
                self.tried.set()
                self._break_off()
                if connection is not None:
                    connection.disconnect()
            if not self._is_closed:
                select.select([self._wake_out], [], [], delay_s)
                self._drain_wakes()
                self._admit()
                delay_s = min(2 * delay_s, BACK_OFF_S_MAX)
        self.discard()

    def end(self) -> None:
        """Soon, whoever uses it."""
        self._is_closed = True
        self._wake()

    def discard(self) -> None:
        """Nobody uses it, or will."""
        self._wake_out.close()
        self._wake_in.close()

    def _greet(self, connection: Any) -> None:
        """Follow what the listeners want, then let them know."""
        self._admit()
        for prefix in {listener.prefix for listener in self._listeners if listener.prefix}:
            connection.send_packed_command([packed(_track(prefix))], check_health=False)
            self._answer(connection)
            self._followed.add(prefix)
        self._ask_version(connection)
        self._ask_time(connection)
        self._is_up = True
        self.n_connects += 1
        for listener in self._listeners:
            self._begin_to_tell(listener)
        self.tried.set()

    def _admit(self) -> list[Listener]:
        """Who came since and is there still."""
        left = _taken(self._leaving)  # first: these have come before
        came = [listener for listener in _taken(self._coming) if listener not in left]
        self._listeners = [listener for listener in self._listeners if listener not in left] + came
        self._told = [listener for listener in self._told if listener not in left]
        if left:
            with _links_lock:
                self.n_users -= len(left)
                if self.n_users == 0:
                    self._is_closed = True
                    for key in [key for key, link in _links.items() if link is self]:
                        del _links[key]
        return came

    def _welcome(self) -> None:
        """Who came is told of changes as soon as Redis follows what it wants to hear of, which it is asked for once."""
        for listener in self._admit():
            prefix = listener.prefix
            if not prefix or prefix in self._followed:
                self._begin_to_tell(listener)
            elif prefix in self._asked:
                self._asked[prefix].append(listener)
            else:
                self._asked[prefix] = [listener]
                self._follow(prefix)

    def _follow(self, prefix: bytes) -> None:
        order = _order(_track(prefix))

        def answered(done: "Future[list[Any]]") -> None:
            if done.exception() is not None:
                return  # the connection is lost
            (reply,) = done.result()
            if isinstance(reply, Exception):
                self.refusal = str(reply)  # which ends the connection: it is up only where everybody is told
                return
            self._followed.add(prefix)
            for listener in self._asked.pop(prefix):
                self._begin_to_tell(listener)

        order.future.add_done_callback(answered)
        self._orders.append(order)

    def _begin_to_tell(self, listener: Listener) -> None:
        if listener in self._listeners:  # or it left meanwhile
            self._told.append(listener)
            listener.on_up(self)

    def _answer(self, connection: Any) -> Any:
        """The reply to what was sent before anybody listens. Raises where it is an error: too old, or no right."""
        reply = _reply(connection)
        while isinstance(reply, Push):
            reply = _reply(connection)
        if isinstance(reply, Exception):
            self.refusal = str(reply)
            raise reply
        return reply

    def _ask_version(self, connection: Any) -> None:
        """One that is taken for newer than it is tells us of what we wrote, which costs hits and nothing else."""
        connection.send_packed_command([packed((b"HELLO", b"3"))], check_health=False)
        version = self._answer(connection).get(b"version", b"")
        self.remembers_first = version.startswith((b"6.0.", b"6.1."))

    def _ask_time(self, connection: Any) -> None:
        asked_s = time.monotonic()
        connection.send_packed_command([packed((b"TIME",))], check_health=False)
        self._set_clock(self._answer(connection), asked_s)

    def _set_clock(self, reply: Any, asked_s: float) -> None:
        if isinstance(reply, list) and len(reply) == 2:
            self._offset_s = int(reply[0]) + int(reply[1]) / 1e6 - (asked_s + time.monotonic()) / 2

    def _serve(self, connection: Any) -> None:
        beat_s = time.monotonic()
        poller = select.poll()
        poller.register(connection._sock, select.POLLIN)
        poller.register(self._wake_out, select.POLLIN)
        while True:
            self._welcome()
            if self._is_closed or self.refusal:
                return
            now_s = time.monotonic()
            if now_s >= beat_s and not self._is_asking:
                self._beat()
                beat_s = now_s + min((each.heartbeat_s for each in self._listeners), default=1.0)
            self._send_all(connection)
            if self._sent and now_s - self._sent[0][0].sent_s > self.timeout_s:
                return  # no reply: it hangs
            if not connection.can_read(0):
                poller.poll(max(0.0, beat_s - now_s) * 1e3 + 1.0 if not self._is_asking else self.timeout_s * 1e3)
                self._drain_wakes()
            while connection.can_read(0):
                self._take(_reply(connection))

    def _beat(self) -> None:
        self._is_asking = True
        for listener in self._told:
            listener.on_asked(self)
        order = _order((b"TIME",))
        order.future.add_done_callback(lambda done: self._confirm(done, order.sent_s))
        self._orders.append(order)

    def _confirm(self, done: "Future[list[Any]]", asked_s: float) -> None:
        self._is_asking = False
        if done.exception() is None:
            self._set_clock(done.result()[0], asked_s)
            for listener in self._told:
                listener.on_confirmed(self)

    def _send_all(self, connection: Any) -> None:
        orders = _taken(self._orders)
        for order in orders:
            self._sent.append((order, []))
        if orders:
            connection.send_packed_command([b"".join(order.data for order in orders)], check_health=False)

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Push):
            self._tell(reply.message)
            return
        order, replies = self._sent[0]
        replies.append(reply)
        if len(replies) < order.n_replies:
            return
        self._sent.popleft()
        is_awaited = order.future.set_running_or_notify_cancel()
        for name in order.names:
            for listener in self._told:
                # Who gave up waiting does not know that it is done now.
                if (listener is not order.writer or not is_awaited) and _concerns(listener, name):
                    listener.on_changed(self, name)
        if is_awaited:
            order.future.set_result(replies)

    def _tell(self, message: list[Any]) -> None:
        if not message or message[0] not in (b"invalidate", "invalidate"):
            return
        for listener in self._told:
            if message[1] is None:
                listener.on_flushed(self)
                continue
            for name in message[1]:
                if _concerns(listener, name):
                    listener.on_changed(self, name)

    def _break_off(self) -> None:
        self._is_up = False
        told, self._told = self._told, []
        ended, self._orders = self._orders, collections.deque()  # who has just seen the old one finds it out
        orders = [*(order for order, _ in self._sent), *_taken(ended)]
        self._sent.clear()
        self._followed.clear()
        self._asked.clear()
        for listener in told:
            listener.on_lost(self)
        for order in orders:
            if order.future.set_running_or_notify_cancel():
                text = f"{self.place} was lost before it answered; whether it was done is unknown"
                order.future.set_exception(CacheUnreachable(text))
        self._is_asking = False

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_out.recv(4096):
                pass


def _taken(notes: "collections.deque[_Note]") -> list[_Note]:
    """All that is there; more may come meanwhile."""
    taken = []
    with contextlib.suppress(IndexError):
        while True:
            taken.append(notes.popleft())
    return taken


def _track(prefix: bytes) -> Command:
    return (b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", prefix, b"NOLOOP")


def _concerns(listener: Listener, name: bytes) -> bool:
    return bool(listener.prefix) and name.startswith(listener.prefix)


def _order(command: Command) -> _Order:
    return _Order(packed(command), 1, Future(), None, (), time.monotonic())


def _reply(connection: Any) -> Any:
    """The next message, an error reply as the exception that it is. Raises where the connection is gone."""
    from redis.exceptions import ResponseError

    try:
        return connection.read_response(disable_decoding=True, push_request=True)
    except ResponseError as error:
        return error


def is_link_thread() -> bool:
    """Whether others are told nothing for as long as this thread waits."""
    return hasattr(_here, "is_link")


_links: dict[tuple[object, ...], Link] = {}
_links_lock = threading.RLock()  # destructors may make a cache, also while another is made


def shared(url: str, timeout_s: float, options: dict[str, Any]) -> Link:
    """The process's link to that Redis, made where there is none. Who takes it must add() a listener, and leave()."""
    key = (url, timeout_s, repr(sorted(options.items())))
    made = None
    while True:
        with _links_lock:  # and none is made under it: destructors that run meanwhile may wait for a link's thread
            link = _links.get(key) or made
            if link is not None:
                _links[key] = link
                link.n_users += 1
                break
        made = Link(url, timeout_s, options)
    if made is not None and made is not link:  # another thread was faster
        made.discard()
    return link


def _after_fork() -> None:
    # Neither the threads nor the connections are this process's: they are let go without a word to the server.
    global _links_lock
    _links_lock = threading.RLock()
    _links.clear()


os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _at_exit() -> None:
    # A thread that is in the extension modules' code must not be stopped there by the interpreter's end.
    for link in list(_links.values()):
        link.end()
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:  # also of links that have just been left
            thread.join(END_S_MAX)
