"""The engine beside a batcher written by hand: CPU per request, requests per second, a lone caller's latency.

Rows of one group run on an event loop each; a row's time is what its name says (CPU or wall seconds per request), so
the ratio that pytest-benchmark prints beside it is the figure. No row asserts a time; each checks every answer.
"""

import pytest
from batchers import by_hand, by_infcore, double, measure, sleep_then_double

WAYS = {"infcore": by_infcore, "by_hand": by_hand}


class SaidTimer:
    """pytest-benchmark's clock for rows that measure themselves: it moves only by what they say."""

    now_s = 0.0

    @classmethod
    def read(cls):
        return cls.now_s


def _row(benchmark, way, run, callers, each, rounds, seconds_of):
    figures = []

    def once():
        figures.append(measure(WAYS[way], run, callers, each))
        SaidTimer.now_s += seconds_of(figures[-1])

    benchmark.pedantic(once, rounds=rounds)
    benchmark.extra_info["requests_per_s"] = [round(f["requests_per_s"]) for f in figures]
    assert len({f["checksum"] for f in figures}) == 1


@pytest.mark.benchmark(group="engine: CPU per request, 64 asyncio callers, no-op device", timer=SaidTimer.read)
@pytest.mark.parametrize("way", WAYS)
def test_cpu_per_request(benchmark, way):
    _row(benchmark, way, double, 64, 500, 7, lambda f: 1e-6 * f["cpu_us_per_request"])


@pytest.mark.benchmark(
    group="engine: sleep model (1 ms + 0.1 ms x n), 64 callers: seconds a request", timer=SaidTimer.read
)
@pytest.mark.parametrize("way", WAYS)
def test_sleep_model(benchmark, way):
    _row(benchmark, way, sleep_then_double, 64, 60, 5, lambda f: 1.0 / f["requests_per_s"])


@pytest.mark.benchmark(group="engine: sleep model, a lone caller's p50", timer=SaidTimer.read)
@pytest.mark.parametrize("way", WAYS)
def test_lone_caller(benchmark, way):
    _row(benchmark, way, sleep_then_double, 1, 200, 5, lambda f: 1e-3 * f["p50_ms"])
