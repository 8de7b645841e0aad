"""Collecting answers while the load runs: when, how and where each request ended; a sample of outputs is kept."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infcore.errors import Cancelled, DeadlineExceeded, DeadlineInfeasible, EngineClosed, InfcoreError, QueueFull
from infcore.profiling.arrivals import Arrivals
from infcore.profiling.contract import Outputs
from infcore.profiling.load import LoadGenerator

# How a request ended; the index is the code in Collector.outcome. "unanswered" is the state at the start.
OUTCOMES = ("ok", "rejected", "expired", "failed", "cancelled", "unanswered")
OK, REJECTED, EXPIRED, FAILED, CANCELLED, UNANSWERED = range(6)


def outcome_of(error: InfcoreError) -> int:
    """The outcome that an error stands for."""
    if isinstance(error, QueueFull | DeadlineInfeasible):
        return REJECTED
    if isinstance(error, DeadlineExceeded):
        return EXPIRED
    if isinstance(error, Cancelled | EngineClosed):
        return CANCELLED
    return FAILED


@dataclass(frozen=True)
class Kept:
    """One answer kept for checking."""

    model: int
    example: int
    device: str
    outputs: Outputs


class Collector:
    """Bookkeeping of one drive: arrays of one entry per planned request. For the one thread that watches the run."""

    def __init__(
        self,
        arrivals: Arrivals,
        generator: LoadGenerator,
        *,
        start_s: float,
        slo_s: Sequence[float],
        devices: Sequence[str],
        keep_from: Sequence[str] = (),
        keep_each: int = 0,
    ) -> None:
        n = len(arrivals)
        self.end_s: NDArray[np.float64] = np.full(n, np.nan)
        self.outcome: NDArray[np.int8] = np.full(n, UNANSWERED, np.int8)
        self.device: NDArray[np.int16] = np.full(n, -1, np.int16)
        self.due_s: NDArray[np.float64] = arrivals.times_s + start_s
        self.kept: list[Kept] = []
        self.first_failure: InfcoreError | None = None
        self._arrivals = arrivals
        self._generator = generator
        self._slo_s = np.asarray(slo_s)[arrivals.model]
        self._device_index = {name: i for i, name in enumerate(devices)}
        self._keep_left = dict.fromkeys(keep_from, keep_each)
        self._keep_gap_s = arrivals.seconds / max(1, keep_each)
        self._keep_next_s: dict[tuple[int, str], float] = {}
        self._pending: list[int] = []
        self._seen = 0

    @property
    def n_submitted(self) -> int:
        """Requests taken over from the generator so far."""
        return self._seen

    @property
    def n_pending(self) -> int:
        """Submitted, taken over and not yet ended."""
        return len(self._pending)

    def harvest(self) -> None:
        """Take over what has ended since the last call. O(pending + new)."""
        futures = self._generator.futures
        available = len(futures)
        candidates = [*self._pending, *range(self._seen, available)]
        self._seen = available
        self._pending = [i for i in candidates if not self._take(i)]

    def misses(self, now_s: float) -> int:
        """Requests that certainly are not inside their SLO: ended late or not ok, or still pending after it."""
        ended = np.flatnonzero(self.outcome[: self._seen] != UNANSWERED)
        late = (self.end_s[ended] - self.due_s[ended] > self._slo_s[ended]) | (self.outcome[ended] != OK)
        pending = np.asarray(self._pending, np.int64)
        overdue = now_s - self.due_s[pending] > self._slo_s[pending]
        return int(late.sum() + overdue.sum())

    def within_slo(self) -> NDArray[np.bool_]:
        """(n,) whether each planned request was answered inside its SLO, counted from the intended arrival."""
        good: NDArray[np.bool_] = (self.outcome == OK) & (self.end_s - self.due_s <= self._slo_s)
        return good

    def cancel_pending(self) -> None:
        """Ask the engine to drop what is still under way."""
        for i in self._pending:
            future = self._generator.futures[i]
            if future is not None and not isinstance(future, InfcoreError):
                future.cancel()

    def _take(self, i: int) -> bool:
        future = self._generator.futures[i]
        if isinstance(future, InfcoreError):
            self._end(i, self._generator.refused_at_s[i], future)
        elif future is None or not future.done():
            return False
        else:
            end_s = future.end_s
            try:
                outputs = future.result(timeout_s=0.0)
            except InfcoreError as error:
                self._end(i, time.monotonic() if end_s is None else end_s, error)
            else:
                self.outcome[i] = OK
                self.end_s[i] = time.monotonic() if end_s is None else end_s
                self._answered_by(i, future.device or "", outputs)
        # The future holds the outputs, which may be a megabyte each.
        self._generator.futures[i] = None
        return True

    def _end(self, i: int, end_s: float, error: InfcoreError) -> None:
        self.end_s[i] = end_s
        self.outcome[i] = outcome_of(error)
        if self.outcome[i] == FAILED and self.first_failure is None:
            self.first_failure = error

    def _answered_by(self, i: int, device: str, outputs: Outputs) -> None:
        self.device[i] = self._device_index.get(device, -1)
        key = (int(self._arrivals.model[i]), device)
        due_s = float(self._arrivals.times_s[i])
        # One answer per model and device in each of keep_each equal parts of the run, so that the sample spans it.
        if self._keep_left.get(device) and due_s >= self._keep_next_s.get(key, 0.0):
            self._keep_next_s[key] = due_s + self._keep_gap_s
            self.kept.append(Kept(key[0], int(self._arrivals.example[i]), device, _copied(outputs)))


def _copied(outputs: Outputs) -> Mapping[str, NDArray[np.generic]]:
    """Outputs may be views of a whole batch's arrays; keep this request's part alone."""
    return {name: np.array(value) for name, value in outputs.items()}
