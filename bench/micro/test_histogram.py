"""Histogram: one insert in C++ and from Python, one quantile; beside a mutex, a plain list and numpy.

C++ rows time themselves inside bench/micro/histogram_bench.cpp, built here with g++ -O3 into build/; their column is
the median over rounds of the mean over n inserts. No row asserts a time; each checks what it computed.
"""

import json
import subprocess

import numpy as np
import pytest
from programs import ROOT, SaidTimer, compiled

from infcore import Histogram

N_SMOKE = 1 << 20


timer = SaidTimer()


@pytest.fixture(scope="session")
def program():
    return compiled("histogram_bench", ROOT / "csrc/infcore/telemetry/histogram.cpp")


@pytest.mark.benchmark(group="histogram: one insert in C++", timer=timer.read_s)
@pytest.mark.parametrize("way", ["record", "record_shared", "mutex_and_record", "vector_push_back"])
def test_insert_in_cpp(benchmark, program, way):
    said = {}

    def run():
        said.update(
            json.loads(subprocess.run([program, str(N_SMOKE)], capture_output=True, text=True, check=True).stdout)
        )
        timer.pass_s(said[f"{way}_ns"] * 1e-9)

    benchmark.pedantic(run, rounds=7)
    assert said["agree"]
    assert said["count"] == said["n"] == N_SMOKE
    assert said["p99_s"] == pytest.approx(2e-3 * np.exp(2.3263), rel=0.05)
    benchmark.extra_info["n"] = said["n"]


@pytest.mark.benchmark(group="histogram: one insert from Python")
@pytest.mark.parametrize("way", ["Histogram.record", "list.append"])
def test_insert_from_python(benchmark, way):
    histogram, kept = Histogram(), []
    insert = histogram.record if way == "Histogram.record" else kept.append
    benchmark.pedantic(insert, args=(1.5e-3,), rounds=200, iterations=2000, warmup_rounds=5)
    assert histogram.count + len(kept) > 0
    assert histogram.sum_s + sum(kept) == pytest.approx(1.5e-3 * (histogram.count + len(kept)), rel=1e-6)


@pytest.mark.benchmark(group="histogram: 100,000 values, then p50, p99 and p99.9")
@pytest.mark.parametrize("way", ["Histogram", "numpy.quantile"])
def test_array_then_quantiles(benchmark, way):
    values = np.random.default_rng(1).lognormal(-6.0, 1.0, 100_000)
    qs = [0.5, 0.99, 0.999]

    def by_histogram():
        histogram = Histogram()
        histogram.record_many(values)
        return [histogram.quantile(q) for q in qs]

    answers = benchmark(by_histogram if way == "Histogram" else lambda: np.quantile(values, qs))
    assert answers == pytest.approx(np.quantile(values, qs), rel=0.01)


@pytest.mark.benchmark(group="histogram: p99 of 100,000 values held")
@pytest.mark.parametrize("way", ["Histogram.quantile", "numpy.quantile"])
def test_one_quantile(benchmark, way):
    values = np.random.default_rng(1).lognormal(-6.0, 1.0, 100_000)
    histogram = Histogram()
    histogram.record_many(values)
    answer = benchmark(lambda: histogram.quantile(0.99) if way == "Histogram.quantile" else np.quantile(values, 0.99))
    assert answer == pytest.approx(np.quantile(values, 0.99), rel=0.01)
