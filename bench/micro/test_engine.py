"""The engine beside a batcher written by hand: CPU per request, requests per second, a lone caller's latency.

Rows of one group run on an event loop each; a row's time is what its name says (CPU or wall seconds per request), so
the ratio that pytest-benchmark prints beside it is the figure. No row asserts a time; each checks every answer.
"""

import numpy as np
import pytest
from closed_loop import WIDTH, by_hand, by_infcore, by_infcore_admission, double, measure, sleep_then_double
from programs import SaidTimer

import infcore

WAYS = {"infcore": by_infcore, "infcore_admission": by_infcore_admission, "by_hand": by_hand}


timer = SaidTimer()


def _row(benchmark, way, run, callers, each, rounds, seconds_of):
    figures = []

    def once():
        figures.append(measure(WAYS[way], run, callers, each))
        timer.pass_s(seconds_of(figures[-1]))

    benchmark.pedantic(once, rounds=rounds)
    benchmark.extra_info["requests_per_s"] = [round(f["requests_per_s"]) for f in figures]
    assert len({f["checksum"] for f in figures}) == 1


@pytest.mark.benchmark(group="engine: CPU per request, 64 asyncio callers, no-op device", timer=timer.read_s)
@pytest.mark.parametrize("way", WAYS)
def test_batcher_cpu_per_request(benchmark, way):
    _row(benchmark, way, double, 64, 500, 7, lambda f: 1e-6 * f["cpu_us_per_request"])


@pytest.mark.benchmark(
    group="engine: sleep model (1 ms + 0.1 ms x n), 64 callers: seconds a request", timer=timer.read_s
)
@pytest.mark.parametrize("way", WAYS)
def test_sleep_model(benchmark, way):
    _row(benchmark, way, sleep_then_double, 64, 60, 5, lambda f: 1.0 / f["requests_per_s"])


@pytest.mark.benchmark(group="engine: sleep model, a lone caller's p50", timer=timer.read_s)
@pytest.mark.parametrize("way", WAYS)
def test_lone_caller(benchmark, way):
    _row(benchmark, way, sleep_then_double, 1, 200, 5, lambda f: 1e-3 * f["p50_ms"])


N_IN_FLIGHT, N_TURNS = 2000, 5


@pytest.mark.benchmark(group="engine: 2,000 requests in flight at once on eight emulated devices, deadline 100 ms")
@pytest.mark.parametrize("policy", infcore.Router.policies())
def test_many_in_flight(benchmark, policy):
    """extra_info holds the share inside the deadline; what is asserted is that each request ended once."""
    shape = {"x": ("float32", (WIDTH,))}
    model = infcore.Model("m", inputs=shape, outputs=shape)
    devices = [infcore.EmulatedDevice(f"gpu-{i}", base_s=0.002, per_request_s=0.0001) for i in range(8)]
    x = np.zeros(WIDTH, np.float32)
    ended = {"inside": 0, "late": 0}
    turns = []
    with infcore.Engine(devices, [model], policy=policy) as engine:
        open_now = [engine.submit("m", {"x": x}, deadline_s=0.1) for _ in range(N_IN_FLIGHT)]

        def turn():
            turns.append(len(open_now))
            for i, future in enumerate(open_now):
                error = future.exception(timeout_s=60.0)
                assert error is None or isinstance(error, infcore.DeadlineExceeded)
                ended["inside" if error is None else "late"] += 1
                open_now[i] = engine.submit("m", {"x": x}, deadline_s=0.1)

        benchmark.pedantic(turn, rounds=N_TURNS)
    assert sum(ended.values()) == len(turns) * N_IN_FLIGHT
    benchmark.extra_info["share_inside"] = ended["inside"] / sum(ended.values())
