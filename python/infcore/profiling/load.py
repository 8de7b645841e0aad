"""The open-loop load generator: requests go out at the times that were planned, whatever becomes of the ones before."""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infcore.errors import InfcoreError
from infcore.profiling.arrivals import Arrivals
from infcore.profiling.contract import Engine, Future, Inputs
from infcore.profiling.suite import ModelLoad

# Awake this long before a request is due, in a loop: a sleeping thread wakes 50 to 60 us late (Linux timer slack).
SPIN_S = 60e-6
# The longest sleep in one piece, so that stop() is heard soon.
NAP_S = 0.05


@dataclass(frozen=True)
class Request:
    """What one submit takes; the pieces are made before the run, so that the generator only waits and submits."""

    model: str
    inputs: Inputs
    tier: int
    deadline_s: float | None


def requests_of(arrivals: Arrivals, models: Sequence[ModelLoad], examples: Sequence[Sequence[Inputs]]) -> list[Request]:
    """The submits of `arrivals`: one shared Request per (model, example)."""
    made = [
        [Request(model.name, inputs, model.tier, model.deadline_s) for inputs in rows]
        for model, rows in zip(models, examples, strict=True)
    ]
    return [made[m][e] for m, e in zip(arrivals.model.tolist(), arrivals.example.tolist(), strict=True)]


class LoadGenerator(threading.Thread):
    """Submits requests[i] at start_s + times_s[i] on time.monotonic(), from a thread of its own.

    futures grows by one for each request submitted: a Future, or the error that submit raised. late_s holds how much
    later than planned each submit began. Deadlines count from the planned arrival, so lateness does not stretch them.
    """

    def __init__(
        self, engine: Engine, requests: Sequence[Request], times_s: NDArray[np.float64], *, start_s: float
    ) -> None:
        super().__init__(name="infcore-load", daemon=True)
        self.futures: list[Future | InfcoreError | None] = []
        self.late_s: list[float] = []
        self.refused_at_s: dict[int, float] = {}
        self.failure: BaseException | None = None
        self.real_time = False
        self._engine = engine
        self._requests = requests
        self._times_s = times_s.tolist()
        self._start_s = start_s
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Submit nothing more; returns at once."""
        self._stopping.set()

    def run(self) -> None:
        """The thread's work; an error that is not infcore's ends it and is kept in `failure`."""
        self.real_time = _real_time()
        try:
            for request, offset_s in zip(self._requests, self._times_s, strict=True):
                if not self._wait_until(self._start_s + offset_s):
                    return
                self._submit(request, self._start_s + offset_s)
        except BaseException as error:
            self.failure = error

    def _wait_until(self, due_s: float) -> bool:
        clock = time.monotonic
        while (left_s := due_s - clock()) > SPIN_S:
            if self._stopping.is_set():
                return False
            time.sleep(min(left_s - SPIN_S, NAP_S))
        while clock() < due_s:
            pass
        return not self._stopping.is_set()

    def _submit(self, request: Request, due_s: float) -> None:
        late_s = time.monotonic() - due_s
        deadline_s = None if request.deadline_s is None else max(request.deadline_s - late_s, 1e-6)
        try:
            future = self._engine.submit(request.model, request.inputs, tier=request.tier, deadline_s=deadline_s)
        except InfcoreError as error:
            self.refused_at_s[len(self.futures)] = time.monotonic()
            self.late_s.append(late_s)
            self.futures.append(error)
            return
        self.late_s.append(late_s)
        self.futures.append(future)


def _real_time() -> bool:
    """Put the calling thread before all ordinary ones, where the system lets us; whether it did.

    The generator needs microseconds, but on a machine whose cores are all busy it would wait milliseconds for them: p99
    lateness was 3.4 to 7.6 ms without and 0.01 to 0.03 ms with it (suite mixed, 336 req/s, 2 shared cores).
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (AttributeError, OSError):
        return False
    return True
