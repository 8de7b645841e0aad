"""What tests of Cache.get_or_compute share: no test waits for time; threads and loops meet at events."""

import threading
import time

LONG_S = 30.0  # a test that needs as long has failed


def until(condition):
    """Gives way until it is so."""
    end_s = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end_s, "it does not come about"
        time.sleep(0.0005)


def wait_for(cache, n_waiting):
    until(lambda: len(cache._flights._waits) >= n_waiting)


class Slow:
    """A computation that says that it has begun and ends when it is told to."""

    def __init__(self, value=None, error=None):
        self.begun, self.go = threading.Event(), threading.Event()
        self.value, self.error, self.n_calls = value, error, 0

    def __call__(self):
        self.n_calls += 1
        self.begun.set()
        assert self.go.wait(LONG_S)
        if self.error is not None:
            raise self.error
        return self.value
