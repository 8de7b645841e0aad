"""What the tests of the engine share: small models, and devices that a test holds and lets go."""

import asyncio
import threading

import numpy as np
import pytest

import infcore

try:
    import uvloop
except ImportError:
    uvloop = None

WAIT_S = 60.0  # no test waits this long unless something is broken

PATHS = ["round_robin", "fastest_finish", "slo_cost"]  # bound on arrival, chosen together, weighed by cost


def model(name="m", **changes):
    """Two numbers in, two out."""
    given = {"inputs": {"x": ("float32", (2,))}, "outputs": {"y": ("float32", (2,))}, **changes}
    return infcore.Model(name, **given)


def x_of(value):
    return {"x": np.full(2, value, np.float32)}


def double(name, inputs):
    return {"y": inputs["x"] * 2}


def identity(name, inputs):
    return {"y": inputs["x"]}


def answer(future):
    """First number of y, waiting for it."""
    return float(future.result(timeout_s=WAIT_S)["y"].flat[0])


def engine_of(*devices, models=None, **options):
    return infcore.Engine(devices=devices, models=[model()] if models is None else models, **options)


class Gated:
    """A run that counts its calls, says when it is entered, and waits until it is let go."""

    def __init__(self, run=double):
        self._run = run
        self._entered = threading.Semaphore(0)
        self._let = threading.Semaphore(0)
        self.batches = []  # first number of each member's x, batch by batch

    def __call__(self, name, inputs):
        self.batches.append([float(row.flat[0]) for row in inputs["x"]])
        self._entered.release()
        assert self._let.acquire(timeout=WAIT_S), "the test never let this run go"
        return self._run(name, inputs)

    def wait_entered(self):
        assert self._entered.acquire(timeout=WAIT_S), "the device was never called"

    def let(self, n=1):
        self._let.release(n)

    def open(self):
        """Holds nothing up from now on."""
        self._let.release(10_000)


class Counted:
    """A run that keeps the sizes of its batches; several devices may share one."""

    def __init__(self, run=double):
        self._run = run
        self._lock = threading.Lock()
        self.sizes = []

    def __call__(self, name, inputs):
        with self._lock:
            self.sizes.append(len(next(iter(inputs.values()))))
        return self._run(name, inputs)


def wait_until(condition, what):
    """For what the engine tells by figures only; the pause only saves processor time."""
    pause = threading.Event()
    for _ in range(int(WAIT_S / 0.001)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError(f"waited {WAIT_S} s for {what}")


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": None if uvloop is None else uvloop.new_event_loop}


def loop_runner(kind):
    """A function that runs a coroutine on a fresh loop: asyncio's, the same in debug mode, or uvloop's."""
    kind, _, debug = kind.partition(" ")
    if LOOPS[kind] is None:
        pytest.skip(f"{kind} is not installed: the extra [test] brings it where it has a wheel")

    def run(main):
        with asyncio.Runner(loop_factory=LOOPS[kind], debug=bool(debug)) as runner:
            return runner.run(asyncio.wait_for(main, WAIT_S))

    return run


LOOP_KINDS = ["asyncio", "asyncio debug", "uvloop"]
