"""The one connection of a process to a Redis that hears what changes there, and carries what is written.

One thread owns it: threads and event loops hand it commands and wait for futures. What others change comes on the same
connection as the replies, in the order in which Redis did it: whoever sees a reply has seen every change before it.
"""

import collections
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from infcore.cache.far_scripts import Command, packed
from infcore.cache.redis_client import connect_to, redis_errors
from infcore.errors import CacheUnreachable

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
    """A connection that mends itself. Made by shared(), ended by release().

    timeout_s  that a reply, and a connection to be made, may take
    """

    def __init__(self, url: str, timeout_s: float, options: dict[str, Any]):
        self.url, self.timeout_s = url, timeout_s
        self._options = options
        self._listeners: list[Listener] = []
        self._coming: list[Listener] = []  # of these, whom the thread has not seen since it connected
        self._lock = threading.Lock()  # of the two above and the two below
        self._orders: collections.deque[_Order] = collections.deque()
        self._is_up = False
        self._told: list[Listener] = []  # who hears of every change, on this connection; the thread's own
        self._followed: set[bytes] = set()  # the prefixes that Redis said it follows on it
        self._asked: dict[bytes, list[Listener]] = {}  # those that it has not answered of, and who waits for that
        self._sent: collections.deque[tuple[_Order, list[Any]]] = collections.deque()  # the thread's own
        self._is_asking = False
        self._offset_s = 0.0  # the server's clock less ours
        self._is_closed = self._is_started = False
        self.n_connects = self.n_users = 0
        self.tried = threading.Event()  # set once it is connected, or could not be at first
        self.refusal = ""  # what the server last said instead of letting us listen
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="infcore-redis", daemon=True)

    @property
    def is_up(self) -> bool:
        """Whether it is connected, and everybody was told of changes who was there then; who came since soon is."""
        return self._is_up

    def server_s(self) -> float:
        """Seconds of the server's clock, as far as the last heartbeat tells."""
        return time.monotonic() + self._offset_s

    def add(self, listener: Listener) -> None:
        """Tell it of changes, from its on_up() on."""
        with self._lock:
            self._listeners = [*self._listeners, listener]
            self._coming.append(listener)
            is_new = not self._is_started
            self._is_started = True
        if is_new:
            self._thread.start()
        else:
            self._wake()

    def remove(self, listener: Listener) -> None:
        """Tell it nothing more."""
        with self._lock:
            self._listeners = [other for other in self._listeners if other is not listener]
            self._told = [other for other in self._told if other is not listener]

    def send(self, commands: Sequence[Command], *, writer: object = None, names: Sequence[bytes] = ()
             ) -> "Future[list[Any]]":  # fmt: skip
        """Commands in one go, and a future of their replies, which ends on the link's thread; errors are among them.

        names       that this changes: listeners of the same link other than `writer` are told, as Redis does not
        Raises      CacheUnreachable at once where it is not connected, and the future where it breaks meanwhile
        """
        future: Future[list[Any]] = Future()
        data = b"".join(packed(command) for command in commands)
        order = _Order(data, len(commands), future, writer, names, time.monotonic())
        with self._lock:
            if not self._is_up:
                raise CacheUnreachable(f"{self.url} is not connected, and tried again all the time{self._why()}")
            self._orders.append(order)
        self._wake()
        return future

    def _why(self) -> str:
        return f"; it said: {self.refusal}" if self.refusal else ""

    def close(self) -> None:
        """End the thread and the connection; what waits ends with CacheUnreachable."""
        self._is_closed = True
        self._wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(self.timeout_s + 1.0)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake; closed: there is nobody to wake
            self._wake_in.send(b"\0")

    def _run(self) -> None:
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
                delay_s = min(2 * delay_s, BACK_OFF_S_MAX)
        self._wake_out.close()
        self._wake_in.close()

    def _greet(self, connection: Any) -> None:
        """Follow what the listeners want, then let them know."""
        for prefix in {listener.prefix for listener in self._listeners if listener.prefix}:
            connection.send_packed_command([packed(_track(prefix))], check_health=False)
            self._answer(connection)
            self._followed.add(prefix)
        self._ask_time(connection)
        with self._lock:
            self._is_up = True
            self._coming = list(self._listeners)
        self.n_connects += 1
        self._welcome()
        self.tried.set()

    def _welcome(self) -> None:
        """Who came is told of changes as soon as Redis follows what it wants to hear of, which it is asked for once."""
        with self._lock:
            coming, self._coming = self._coming, []
        for listener in coming:
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
        with self._lock:
            self._orders.append(order)

    def _begin_to_tell(self, listener: Listener) -> None:
        with self._lock:
            if listener not in self._listeners:
                return  # it left meanwhile
            self._told = [*self._told, listener]
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
        while not self._is_closed and not self.refusal:
            self._welcome()
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
        with self._lock:
            self._orders.append(order)

    def _confirm(self, done: "Future[list[Any]]", asked_s: float) -> None:
        self._is_asking = False
        if done.exception() is None:
            self._set_clock(done.result()[0], asked_s)
            for listener in self._told:
                listener.on_confirmed(self)

    def _send_all(self, connection: Any) -> None:
        with self._lock:
            orders = list(self._orders)
            self._orders.clear()
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
        with self._lock:
            self._is_up = False
            told, self._told = self._told, []
            orders = [*(order for order, _ in self._sent), *self._orders]
            self._orders.clear()
        self._sent.clear()
        self._followed.clear()
        self._asked.clear()
        for listener in told:
            listener.on_lost(self)
        for order in orders:
            if order.future.set_running_or_notify_cancel():
                text = f"{self.url} was lost before it answered; whether it was done is unknown"
                order.future.set_exception(CacheUnreachable(text))
        self._is_asking = False

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_out.recv(4096):
                pass


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


_links: dict[tuple[object, ...], Link] = {}
_links_lock = threading.Lock()


def shared(url: str, timeout_s: float, options: dict[str, Any]) -> Link:
    """The process's link to that Redis, made where there is none. Who takes it gives it back by release()."""
    key = (url, timeout_s, repr(sorted(options.items())))
    with _links_lock:
        link = _links.get(key)
        if link is None:
            link = _links[key] = Link(url, timeout_s, options)
        link.n_users += 1
    return link


def release(link: Link, listener: Listener) -> None:
    """The listener is told nothing more; the last user closes the link."""
    link.remove(listener)
    with _links_lock:
        link.n_users -= 1
        if link.n_users > 0:
            return
        for key in [key for key, other in _links.items() if other is link]:
            del _links[key]
    link.close()


def _after_fork() -> None:
    # Neither the threads nor the connections are this process's: they are let go without a word to the server.
    global _links_lock
    _links_lock = threading.Lock()
    _links.clear()


os.register_at_fork(after_in_child=_after_fork)
