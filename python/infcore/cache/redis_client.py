"""redis-py, as far as it is needed: connections of an address, and values read over them by the thread that asks."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

from infcore.cache.far_scripts import packed
from infcore.errors import InvalidArgument, InvalidType, MissingExtra


def redis_package() -> Any:
    """redis-py. Raises MissingExtra."""
    try:
        import redis
    except ImportError as error:
        raise MissingExtra("a coherent cache needs the package 'redis': pip install 'infcore[redis]'") from error
    return redis


def redis_errors() -> tuple[type[BaseException], ...]:
    """What a connection raises that is gone, or that cannot be made."""
    return (redis_package().RedisError, OSError)


def checked_url(field: str, value: object) -> str:
    """An address as redis-py reads it."""
    allowed = "redis://, rediss:// or unix:// and a place, as redis-py reads it"
    if not isinstance(value, str):
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a str, {allowed}")
    try:
        redis_package().connection.parse_url(value)
    except ValueError as error:
        why = f": {error}" if shown(value) == value else ""  # it may tell what is not shown
        raise InvalidArgument(f"{field} is {shown(value)!r}{why}; allowed: {allowed}") from None
    return value


def shown(url: str) -> str:
    """An address as it may be read by anybody: without the user, the password, and the options, one of which may be."""
    scheme, mark, rest = url.rpartition("://")
    place, _, options = rest.partition("?")
    if "@" in options:  # or a password with a question mark ends there
        place = "..."
    return scheme + mark + place.rpartition("@")[2]


def connection_of(url: str, timeout_s: float, options: dict[str, Any], protocol: int) -> Any:
    """A connection, not connected yet, which tries once and says what went wrong."""
    redis = redis_package()
    settings = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        **redis.connection.parse_url(url),
        **options,
        "protocol": protocol,
    }
    kind = settings.pop("connection_class", redis.connection.Connection)
    settings.setdefault("socket_keepalive", True) if kind is not redis.connection.UnixDomainSocketConnection else None
    return kind(**settings)


def connect_to(url: str, timeout_s: float, options: dict[str, Any], push: Callable[[list[Any]], object]) -> Any:
    """A connection that speaks RESP3 and hands out what the server says unasked as push(message)."""
    connection = connection_of(url, timeout_s, options, 3)
    connection.connect()
    parser = connection._parser
    # redis-py 5.0 has one handler for all that comes unasked; later ones have one a kind.
    listen = getattr(parser, "set_invalidation_push_handler", None) or parser.set_push_handler
    listen(push)
    return connection


class Reader:
    """Reads values, each on the thread that asks: no other thread has to wake for it.

    Threads may share one; it has as many connections as ever read at once, at most `kept` of which stay
    """

    def __init__(self, url: str, timeout_s: float, options: dict[str, Any], kept: int = 64):
        self._make: Callable[[], Any] = lambda: connection_of(url, timeout_s, options, 2)
        self._kept = kept
        self._free: list[Any] = []
        self._pid = os.getpid()
        self._refused: type[BaseException] = redis_package().ResponseError
        self._closed: tuple[type[BaseException], ...] = (redis_package().ConnectionError, ConnectionError)

    def ask(self, command: bytes) -> Any:
        """The reply to a packed command; an error reply is returned. Raises redis-py's errors where there is none."""
        if self._pid != os.getpid():  # what the parent talks over
            self._free, self._pid = [], os.getpid()
        while True:
            try:
                connection, is_used = self._free.pop(), True
            except IndexError:
                connection, is_used = self._make(), False
            is_good = False
            try:
                connection.send_packed_command([command], check_health=False)
                reply = connection.read_response(disable_decoding=True)
                is_good = True
            except self._refused as error:
                is_good = True
                reply = error
            except self._closed:
                if is_used:  # by the server, restarted perhaps, while nobody read from it
                    continue
                raise
            finally:
                if is_good and len(self._free) < self._kept:
                    self._free.append(connection)
                else:
                    with contextlib.suppress(Exception):
                        connection.disconnect()
            return reply

    def get(self, name: bytes) -> Any:
        """The bytes under a name, None where there are none; an error reply is returned."""
        return self.ask(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name))

    def get_many(self, names: list[bytes]) -> Any:
        """A list of what get() returns."""
        return self.ask(packed((b"MGET", *names)))

    def close(self) -> None:
        """Connections in use are closed when who reads has done."""
        self._kept = 0
        while self._free:
            with contextlib.suppress(IndexError):
                self._free.pop().disconnect()
