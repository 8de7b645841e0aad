"""Runs that raise or answer wrongly: what fails, what is tried again, and what the error says."""

import numpy as np
import pytest
from engine_rig import PATHS, WAIT_S, Gated, answer, double, engine_of, model, wait_until, x_of

import infcore
from infcore import CallableDevice, DeviceError

BAD = 13.0


class Picky:
    """Raises if a batch holds a bad number; keeps every batch that it saw."""

    def __init__(self, error=None):
        self.error = ValueError("not thirteen") if error is None else error
        self.batches = []

    def __call__(self, name, inputs):
        self.batches.append(inputs["x"][:, 0].tolist())
        if BAD in self.batches[-1]:
            raise self.error
        return double(name, inputs)


def first_then_batch(engine, gated, values):
    """One request to hold the device, then all values, which it gets as one batch."""
    first = engine.submit("m", x_of(0))
    gated.wait_entered()
    futures = [engine.submit("m", x_of(value)) for value in values]
    gated.open()
    assert answer(first) == 0
    return futures


def test_a_lone_request_fails_with_the_devices_name_and_the_cause():
    picky = Picky()
    with engine_of(CallableDevice("sour", picky)) as engine:
        future = engine.submit("m", x_of(BAD))
        with pytest.raises(DeviceError, match=r"'m'.*'sour'.*ValueError: not thirteen") as caught:
            future.result(timeout_s=WAIT_S)
        assert caught.value.__cause__ is picky.error
        assert isinstance(caught.value, RuntimeError)
        assert future.exception() is caught.value
        assert future.device == "sour"
        assert picky.batches == [[BAD]]  # nothing to tell apart: not tried again
        assert answer(engine.submit("m", x_of(1))) == 2
        assert engine.stats()["models"]["m"]["failed"] == 1


def test_a_bad_member_fails_alone():
    picky = Picky()
    gated = Gated(picky)
    with engine_of(CallableDevice("d", gated)) as engine:
        futures = first_then_batch(engine, gated, [1, 2, BAD, 4])
        assert isinstance(futures[2].exception(timeout_s=WAIT_S), DeviceError)
        assert [answer(f) for f in futures if f is not futures[2]] == [2, 4, 8]
        figures = engine.stats()["models"]["m"]
    assert picky.batches[1] == [1, 2, BAD, 4]
    assert sorted(picky.batches[2:]) == [[1], [2], [4], [BAD]]  # each once
    assert (figures["requests"], figures["failed"], figures["retried"]) == (4, 1, 4)


def test_a_device_that_always_raises_is_tried_once_more_for_each():
    def fails(name, inputs):
        raise OSError("dead")

    gated = Gated(fails)
    with engine_of(CallableDevice("d", gated)) as engine:
        first = engine.submit("m", x_of(0))
        gated.wait_entered()
        futures = [engine.submit("m", x_of(i)) for i in range(5)]
        gated.open()
        for future in [first, *futures]:
            assert "OSError: dead" in str(future.exception(timeout_s=WAIT_S))
    assert gated.batches[:2] == [[0], [0, 1, 2, 3, 4]]
    assert sorted(gated.batches[2:]) == [[0], [1], [2], [3], [4]]


def test_what_may_not_run_twice_fails_with_its_batch():
    picky = Picky()
    gated = Gated(picky)
    with engine_of(CallableDevice("d", gated), models=[model(idempotent=False)]) as engine:
        futures = first_then_batch(engine, gated, [1, BAD, 3])
        for future in futures:
            assert isinstance(future.exception(timeout_s=WAIT_S), DeviceError)
    assert picky.batches == [[0], [1, BAD, 3]]


@pytest.mark.parametrize("policy", PATHS)
def test_a_bad_member_fails_alone_under_each_policy(policy):
    picky = Picky()
    with engine_of(*(CallableDevice(name, picky) for name in "ab"), policy=policy) as engine:
        futures = [engine.submit("m", x_of(i)) for i in range(30)]
        for i, future in enumerate(futures):
            if i == BAD:
                assert isinstance(future.exception(timeout_s=WAIT_S), DeviceError)
            else:
                assert answer(future) == 2 * i
    # In company, alone, and once more where its device had failed others, too.
    assert sum(BAD in batch for batch in picky.batches) <= 3


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, StopIteration, RecursionError]
)
def test_whatever_is_raised_the_worker_lives_on(error):
    picky = Picky(error("planned"))
    with engine_of(CallableDevice("d", picky)) as engine:
        failed = engine.submit("m", x_of(BAD)).exception(timeout_s=WAIT_S)
        assert type(failed) is DeviceError
        assert error.__name__ in str(failed)
        assert answer(engine.submit("m", x_of(1))) == 2


def test_a_device_error_of_the_users_own_names_the_device_too():
    with engine_of(CallableDevice("d", Picky(DeviceError("mine")))) as engine:
        with pytest.raises(DeviceError, match=r"'d'.*mine"):
            engine.submit("m", x_of(BAD)).result(timeout_s=WAIT_S)


def y_of(inputs, **changes):
    shape = (len(inputs["x"]), 2)
    return {"y": np.zeros(shape, np.float32), **changes}


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (lambda i: None, ["NoneType", "dict"]),
        (lambda i: y_of(i)["y"], ["ndarray", "dict"]),
        (lambda i: [y_of(i)["y"]], ["list"]),
        (lambda i: {}, ["0 outputs", "'y'"]),
        (lambda i: y_of(i, z=i["x"]), ["2 outputs", "'z'", "'y'"]),
        (lambda i: {"z": i["x"]}, ["'y'", "missing"]),
        (lambda i: {5: i["x"]}, ["'y'", "missing"]),
        (lambda i: {5: i["x"], "z": i["x"]}, ["2 outputs"]),
        (lambda i: y_of(i, y=None), ["'y'", "missing"]),
        (lambda i: y_of(i, y=[[0.0, 0.0]]), ["'y'", "list"]),
        (lambda i: y_of(i, y=i["x"].astype(np.float64)), ["'y'", "float64", "float32"]),
        (lambda i: y_of(i, y=i["x"].astype(">f4")), ["'y'", ">f4", "float32"]),
        (lambda i: y_of(i, y=i["x"].astype(object)), ["'y'", "object"]),
        (lambda i: y_of(i, y=i["x"][0]), ["'y'", "(2,)"]),
        (lambda i: y_of(i, y=i["x"][:, :1]), ["'y'", "(1, 1)"]),
        (lambda i: y_of(i, y=i["x"][:0]), ["'y'", "(0, 2)"]),
        (lambda i: y_of(i, y=np.zeros((2, 2), np.float32)), ["'y'", "(2, 2)", "batch axis of 1"]),
        (lambda i: y_of(i, y=np.zeros((1, 2, 1), np.float32)), ["'y'", "(1, 2, 1)"]),
    ],
)
def test_wrong_outputs_are_an_error_that_names_the_device(outputs, words):
    with engine_of(CallableDevice("wrong", lambda name, inputs: outputs(inputs))) as engine:
        error = engine.submit("m", x_of(1)).exception(timeout_s=WAIT_S)
        assert type(error) is DeviceError
        for word in ["'wrong'", "'m'", "allowed", *words]:
            assert word in str(error)
        assert engine.n_open == 0


def test_a_wrong_batch_axis_is_seen():
    of = model(inputs={"x": ("float32", (3,))}, outputs={"y": ("float32", (3,))})
    device = CallableDevice("d", lambda name, inputs: {"y": inputs["x"].T}, batch_axis={"x": 1})
    with engine_of(device, models=[of]) as engine:  # takes and gives x as (3, n), but says that y is (n, 3)
        found = engine.submit("m", {"x": np.arange(3, dtype=np.float32)}).result(timeout_s=WAIT_S)
        assert found["y"].tolist() == [0, 1, 2]
    device = CallableDevice("d", lambda name, inputs: {"y": inputs["x"]}, batch_axis={"x": 1})
    with engine_of(device, models=[of]) as engine:
        with pytest.raises(DeviceError, match="'y'"):
            engine.submit("m", {"x": np.arange(3, dtype=np.float32)}).result(timeout_s=WAIT_S)


def test_wrong_outputs_for_one_member_only():
    """A run that answers batches of one alone: the members of a larger one are asked for again, one by one."""

    def run(name, inputs):
        return {"y": inputs["x"][:1] * 2}

    gated = Gated(run)
    with engine_of(CallableDevice("d", gated)) as engine:
        futures = first_then_batch(engine, gated, [1, 2, 3])
        assert [answer(future) for future in futures] == [2, 4, 6]
    assert gated.batches[1] == [1, 2, 3]


def test_a_callback_that_raises(monkeypatch):
    told, seen = [], []
    monkeypatch.setattr("sys.excepthook", lambda kind, error, trace: seen.append(kind))
    with engine_of(CallableDevice("d", double)) as engine:
        for _ in range(3):
            future = engine.submit("m", x_of(1))
            future.add_done_callback(lambda ended: 1 / 0)
            future.add_done_callback(told.append)
            assert answer(future) == 2
        wait_until(lambda: len(told) == 3, "the callbacks after the one that raised")
        assert answer(engine.submit("m", x_of(2))) == 4
    assert seen == [ZeroDivisionError] * 3


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_callback_that_wants_the_thread_to_end(error, monkeypatch):
    """It runs on the engine's own threads here: they go on."""
    gated, seen, told = Gated(), [], []
    monkeypatch.setattr("sys.excepthook", lambda kind, error, trace: seen.append(kind))

    def leave(ended):
        raise error

    with engine_of(CallableDevice("d", gated)) as engine:
        for n in range(5):
            future = engine.submit("m", x_of(1), deadline_s=0 if n % 2 else None)
            future.add_done_callback(leave)
            future.add_done_callback(told.append)
            gated.let()
            wait_until(lambda n=n: len(told) == n + 1, "the callbacks")
        gated.open()
        assert answer(engine.submit("m", x_of(2))) == 4
    assert seen == [error] * 5


def test_retries_do_not_outlive_their_deadline():
    clock = infcore.ManualClock()

    def fails(name, inputs):
        clock.advance(10.0)
        raise OSError("slow and wrong")

    gated = Gated(fails)
    with engine_of(CallableDevice("d", gated), clock=clock) as engine:
        first = engine.submit("m", x_of(0))
        gated.wait_entered()
        futures = [engine.submit("m", x_of(i), deadline_s=15.0) for i in range(3)]
        gated.open()
        assert isinstance(first.exception(timeout_s=WAIT_S), DeviceError)
        for future in futures:
            assert isinstance(future.exception(timeout_s=WAIT_S), infcore.DeadlineExceeded)
    assert gated.batches == [[0], [0, 1, 2]]
