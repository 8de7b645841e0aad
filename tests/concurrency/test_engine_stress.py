"""Everything at once: threads, event loops, cancels, deadlines, devices that come, go and fail. Also run under TSAN."""

import asyncio
import itertools
import random
import threading

import numpy as np

import infcore

N_THREADS, N_TASKS, N_EACH = 3, 16, 150


def _model(name, **options):
    return infcore.Model(
        name, inputs={"x": ("float32", (None,))}, outputs={"y": ("float32", ())}, max_batch_size=8, **options
    )


def _sum(model_name, inputs):
    if (inputs["x"][:, 0] == 13.0).any():
        raise ValueError("thirteen")
    return {"y": inputs["x"].sum(axis=1)}


def _input(rng):
    return np.full(rng.randint(1, 9), rng.choice([1.0, 2.0, 13.0]), np.float32)


def _judge(x, outcome, counts):
    """Each request ends with its own answer, or with the error that it asked for."""
    if isinstance(outcome, dict):
        assert float(outcome["y"]) == float(x.sum()) and x[0] != 13.0
    elif isinstance(outcome, infcore.DeviceError):
        assert x[0] == 13.0, outcome
    else:
        asked_for = (infcore.Cancelled, asyncio.CancelledError, infcore.DeadlineExceeded, infcore.DeadlineInfeasible)
        assert isinstance(outcome, asked_for), outcome
    counts[type(outcome).__name__] = counts.get(type(outcome).__name__, 0) + 1


def _options(rng):
    return {"tier": rng.randint(0, 2), "deadline_s": rng.choice([None, 0.001, 30.0])}


def _thread(engine, seed, counts):
    rng = random.Random(seed)
    for _ in range(N_EACH // 10):
        xs = [_input(rng) for _ in range(10)]
        futures = [engine.submit(rng.choice("ab"), {"x": x}, **_options(rng)) for x in xs]
        for future in futures:
            if rng.random() < 0.2:
                future.cancel()
        for x, future in zip(xs, futures, strict=True):
            try:
                _judge(x, future.result(timeout_s=60.0), counts)
            except infcore.InfcoreError as e:
                _judge(x, e, counts)


async def _tasks(engine, seed, counts):
    async def one(rng):
        for _ in range(N_EACH // N_TASKS):
            x = _input(rng)
            future = engine.asubmit(rng.choice("ab"), {"x": x}, **_options(rng))
            if rng.random() < 0.2:
                await asyncio.sleep(0)
                future.cancel()
            try:
                _judge(x, await future, counts)
            except (infcore.InfcoreError, asyncio.CancelledError) as e:
                _judge(x, e, counts)

    await asyncio.gather(*[one(random.Random(seed * 1000 + i)) for i in range(N_TASKS)])


def test_everything_at_once():
    outcomes = [{} for _ in range(N_THREADS + 2)]
    failures = []

    def guarded(run, *args):
        try:
            run(*args)
        except BaseException as e:
            failures.append(e)

    devices = [infcore.CallableDevice("d0", run=_sum), infcore.CallableDevice("d1", run=_sum, slots=2)]
    # A third of all inputs are bad ones: more runs are in vain than the budget allows.
    with infcore.Engine(devices, [_model("a"), _model("b")], retry_budget=None) as engine:
        threads = [
            threading.Thread(target=guarded, args=(_thread, engine, i, outcomes[i])) for i in range(N_THREADS)
        ] + [
            threading.Thread(
                target=guarded, args=(lambda e, s, c: asyncio.run(_tasks(e, s, c)), engine, 100 + i, outcomes[-1 - i])
            )
            for i in range(2)
        ]
        for thread in threads:
            thread.start()
        for i in range(6):
            engine.add_device(infcore.CallableDevice(f"guest{i}", run=_sum))
            engine.stats()
            assert engine.remove_device(f"guest{i}")
        for thread in threads:
            thread.join()
        assert not failures, failures
        assert engine.n_open == 0
    total = sum(sum(counts.values()) for counts in outcomes)
    assert total == N_THREADS * (N_EACH // 10) * 10 + 2 * N_TASKS * (N_EACH // N_TASKS)
    assert all(counts.get("dict", 0) > 0 for counts in outcomes)


def _straggler(every, pause_s):
    """Doubles, and is late with every so many-th batch."""
    turns, late = itertools.count(), threading.Event()

    def run(model_name, inputs):
        if next(turns) % every == 0:
            late.wait(pause_s)
        return {"y": inputs["x"].sum(axis=1)}

    return run


def test_hedges_at_once():
    """Both copies of what is late race, are cancelled and lose their device; each request has its own answer, once."""
    curves = {"a": (2e-4, 1e-5, 0.0, 0.0)}
    devices = [
        infcore.CallableDevice(f"d{i}", run=_straggler(5 + i, 0.004), curves=curves, slots=1 + i % 2) for i in range(3)
    ]
    failures = []

    def one(engine, seed):
        rng = random.Random(seed)
        try:
            for _ in range(25):
                xs = [np.full(4, rng.randint(1, 9), np.float32) for _ in range(4)]
                futures = [engine.submit("a", {"x": x}) for x in xs]
                if rng.random() < 0.2:
                    futures[0].cancel()
                for x, future in zip(xs, futures, strict=True):
                    expected = float(x.sum())
                    try:
                        assert float(future.result(timeout_s=60.0)["y"]) == expected
                        x.fill(-1.0)  # it is ours again: whoever still read it would do so too late
                    except (infcore.Cancelled, infcore.DeviceLost):
                        pass
        except BaseException as e:
            failures.append(e)

    with infcore.Engine(devices, [_model("a")], hedge_quantile=0.5, hedge_budget=1.0, retry_budget=None) as engine:
        threads = [threading.Thread(target=one, args=(engine, i)) for i in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            engine.lose_device("d2")
            engine.stats()
            engine.restore_device("d2")
        for thread in threads:
            thread.join()
        assert not failures, failures
        assert engine.n_open == 0
        stats = engine.stats()["models"]["a"]
    assert stats["requests"] + stats["cancelled"] + stats["lost"] == 4 * 25 * 4
    assert stats["hedged"] > 0
