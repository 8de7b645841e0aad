"""The load generator: on time, open loop, deadlines from the intended arrival."""

import time
from typing import Any

import numpy as np

from infcore.errors import QueueFull
from infcore.profiling.load import LoadGenerator, Request


class Recorder:
    """An engine that notes what it is given."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.calls: list[tuple[float, str, float | None]] = []
        self.delay_s = delay_s

    def submit(self, model: str, inputs: Any, *, tier: int = 0, deadline_s: float | None = None) -> Any:
        self.calls.append((time.monotonic(), model, deadline_s))
        time.sleep(self.delay_s)
        if model == "full":
            raise QueueFull("planted")
        return object()

    def stats(self) -> dict[str, Any]:
        return {}


def generate(
    engine: Recorder, names: list[str], times_s: list[float], deadline_s: float | None = None
) -> LoadGenerator:
    start_s = time.monotonic() + 0.02
    requests = [Request(name, {}, 0, deadline_s) for name in names]
    generator = LoadGenerator(engine, requests, np.array(times_s), start_s=start_s)
    generator.start()
    generator.join()
    assert generator.failure is None
    for (at_s, _, _), due_s, late_s in zip(engine.calls, times_s, generator.late_s, strict=True):
        assert at_s >= start_s + due_s  # never early
        assert 0.0 <= late_s <= at_s - start_s - due_s
    return generator


def test_in_order_and_never_early() -> None:
    engine = Recorder()
    generate(engine, ["a", "b", "c"], [0.0, 0.03, 0.06])
    assert [name for _, name, _ in engine.calls] == ["a", "b", "c"]


def test_lateness_is_recorded_and_shortens_the_deadline() -> None:
    engine = Recorder(delay_s=0.05)  # each submit holds the next ones up
    generator = generate(engine, ["a", "b", "c"], [0.0, 0.0, 0.0], deadline_s=0.2)
    assert generator.late_s[2] >= 0.1
    for late_s, (_, _, deadline_s) in zip(generator.late_s, engine.calls, strict=True):
        assert deadline_s is not None
        assert deadline_s == max(0.2 - late_s, 1e-6)


def test_refusals_are_kept_as_outcomes() -> None:
    engine = Recorder()
    generator = generate(engine, ["a", "full", "a"], [0.0, 0.0, 0.0])
    assert [isinstance(future, QueueFull) for future in generator.futures] == [False, True, False]
    assert list(generator.refused_at_s) == [1]


def test_stop_is_heard_while_waiting() -> None:
    generator = LoadGenerator(Recorder(), [Request("a", {}, 0, None)], np.array([3600.0]), start_s=time.monotonic())
    generator.start()
    generator.stop()
    generator.join(timeout=30.0)
    assert not generator.is_alive()
    assert generator.futures == []
