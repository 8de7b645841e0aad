"""Engine(cache=): requests with a key= are answered from the cache, logged, and never between tenants."""

import asyncio

import numpy as np
import pytest

import infcore
from infcore import sim

MODEL, NEWER = (
    infcore.Model("m", inputs={"x": ("float32", (2,))}, outputs={"y": ("float32", (2,))}, version=version)
    for version in (1, 2)
)


class Doubling:
    def __init__(self):
        self.n_rows = 0

    def __call__(self, model, inputs):
        self.n_rows += len(inputs["x"])
        return {"y": inputs["x"] * 2}


def inputs(value):
    return {"x": np.full(2, value, np.float32)}


@pytest.fixture
def ran():
    return Doubling()


def engine_of(ran, **options):
    cache = infcore.Cache(1 << 16, policy="lru")
    return cache, infcore.Engine([infcore.CallableDevice("d", run=ran)], [MODEL], cache=cache, **options)


def test_the_second_of_equal_requests_runs_nowhere(ran):
    cache, engine = engine_of(ran)
    with engine:
        first = engine.submit("m", inputs(3.0), key=("a", 1))
        assert first.result()["y"].tolist() == [6.0, 6.0]
        assert first.cached is False
        second = engine.submit("m", inputs(99.0), key=("a", 1))  # the key says that it is equal
        assert second.result()["y"].tolist() == [6.0, 6.0]
        assert second.cached is True
        assert second.device is None
        other = engine.submit("m", inputs(4.0), key=("a", 2))
        assert other.result()["y"].tolist() == [8.0, 8.0]
        stats = engine.stats()["models"]["m"]
    assert ran.n_rows == 2
    assert (stats["requests"], stats["cached"]) == (2, 1)
    assert (cache.stats().hits, cache.stats().misses) == (1, 2)
    assert cache.stats().bytes_used == 16
    assert cache.stats().cost_missed_us >= 1e6 * first.latency_s


def test_what_the_caller_does_with_his_answer_is_his_alone(ran):
    _, engine = engine_of(ran)
    with engine:
        engine.submit("m", inputs(3.0), key=1).result()["y"][:] = 0.0
        cached = engine.submit("m", inputs(3.0), key=1).result()
        with pytest.raises(ValueError, match="read-only"):
            cached["y"][:] = 0.0
        cached["y"] = None
        assert engine.submit("m", inputs(3.0), key=1).result()["y"].tolist() == [6.0, 6.0]


@pytest.mark.parametrize("is_shared", [False, True])
def test_tenants_share_only_where_they_are_told_to(ran, is_shared):
    _, engine = engine_of(ran, cache_is_shared=is_shared)
    with engine:
        for tenant in ("a", "b", "", "a"):
            engine.submit("m", inputs(3.0), key=1, tenant=tenant).result()
    assert ran.n_rows == (1 if is_shared else 3)


def test_versions_do_not_share(ran):
    _, engine = engine_of(ran)
    with engine:
        engine.submit("m", inputs(3.0), key=1).result()
        engine.load_model(NEWER)
        engine.submit("m", inputs(3.0), key=1).result()
        engine.submit("m", inputs(3.0), key=1, version=1).result()
    assert ran.n_rows == 2


def test_what_failed_is_not_kept():
    def broken(model, inputs):
        raise RuntimeError("no")

    cache, engine = engine_of(broken, retry_budget=0.0)
    with engine:
        with pytest.raises(infcore.DeviceError):
            engine.submit("m", inputs(3.0), key=1).result()
        assert len(cache) == 0


def test_on_an_event_loop(ran):
    _, engine = engine_of(ran)

    async def ask():
        return [(await engine.asubmit("m", inputs(3.0), key="k"))["y"].tolist() for _ in range(3)]

    with engine:
        assert asyncio.run(ask()) == [[6.0, 6.0]] * 3
    assert ran.n_rows == 1


def test_hits_are_in_the_log_and_replay(ran, tmp_path):
    _, engine = engine_of(ran, log=tmp_path / "log")
    with engine:
        for _ in range(3):
            engine.submit("m", inputs(3.0), key=1, tenant="t", deadline_s=5.0, work=2.5).result()
    events = list(sim.events(tmp_path / "log"))
    arrivals = [event.fields for event in events if event.kind == "arrive"]
    assert [arrival["cached"] for arrival in arrivals] == [False, True, True]
    answers = [event.fields["reason"] for event in events if event.kind == "complete" and event.is_action]
    assert sorted(answers) == ["cached", "cached", "ok"]
    assert sim.replay(tmp_path / "log").equal


def test_a_key_needs_a_cache_and_the_cache_to_be_one(ran):
    with pytest.raises(infcore.InvalidType, match=r"cache is dict; allowed: an infcore\.Cache, or None"):
        infcore.Engine([], [], cache={})
    with pytest.raises(infcore.InvalidType, match="cache_is_shared is str"):
        infcore.Engine([], [], cache_is_shared="yes")
    with infcore.Engine([infcore.CallableDevice("d", run=ran)], [MODEL]) as engine:
        with pytest.raises(infcore.InvalidArgument, match=r"key is 1; allowed without Engine\(cache=\): None"):
            engine.submit("m", inputs(3.0), key=1)
    _, engine = engine_of(ran)
    with engine, pytest.raises(infcore.InvalidType, match="key is tuple, which has no hash"):
        engine.submit("m", inputs(3.0), key=([],))
