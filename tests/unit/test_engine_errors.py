"""Bad input to an Engine: refused at the door with the matching error, naming field, value and what is allowed."""

import math

import numpy as np
import pytest
from engine_rig import answer, double, engine_of, model, x_of

import infcore
from infcore import (
    CallableDevice,
    EmulatedDevice,
    Engine,
    EngineClosed,
    InfcoreError,
    InvalidArgument,
    InvalidType,
    Model,
    NoNodeAvailable,
    UnknownName,
)

BUILT_IN = {InvalidArgument: ValueError, InvalidType: TypeError, UnknownName: LookupError, NoNodeAvailable: LookupError}


@pytest.fixture(scope="module")
def engine():
    models = [
        model(work="x"),
        model("ragged", inputs={"x": ("int64", (None, 3))}),
        model("two", inputs={"a": ("float32", ()), "b": ("bool", (1,))}),
        model("priced", work=lambda inputs: float(inputs["x"][0])),
    ]
    with engine_of(CallableDevice("d", double), models=models, n_tiers=3) as running:
        yield running
        assert answer(running.submit("m", x_of(1))) == 2  # and goes on after all of this


def refuses(engine, error, words, *args, **options):
    """The call raises this very class, each word stands in its message, and nothing was queued."""
    before = engine.stats()
    with pytest.raises(InfcoreError) as caught:
        engine.submit(*args, **options)
    assert type(caught.value) is error
    assert isinstance(caught.value, BUILT_IN.get(error, Exception))
    for word in words:
        assert word in str(caught.value)
    assert engine.n_open == 0
    assert engine.stats()["models"]["m"]["requests"] == before["models"]["m"]["requests"]


X = np.zeros(2, np.float32)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("n", UnknownName, ["'n'", "'m'"]),
        ("", UnknownName, ["''", "'m'"]),
        (None, InvalidType, ["NoneType", "'m'"]),
        (b"m", InvalidType, ["bytes"]),
        (3, InvalidType, ["int"]),
        (["m"], InvalidType, ["list", "'m'"]),
        ({}, InvalidType, ["dict"]),
    ],
)
def test_model(engine, name, error, words):
    refuses(engine, error, ["model", "allowed", *words], name, {"x": X})


@pytest.mark.parametrize("version", [0, 2, -1, "1", 1.5, [1]])
def test_version(engine, version):
    error = UnknownName if type(version) is int else InvalidType
    refuses(engine, error, ["version", "allowed"], "m", {"x": X}, version=version)


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        (None, InvalidType, ["NoneType"]),
        (X, InvalidType, ["ndarray"]),
        ([X], InvalidType, ["list"]),
        ({}, UnknownName, ["missing ['x']"]),
        ({"y": X}, UnknownName, ["missing ['x']", "unknown ['y']"]),
        ({"x": X, "y": X}, UnknownName, ["unknown ['y']"]),
        ({0: X}, UnknownName, ["unknown [0]"]),
        ({"x": [0.0, 0.0]}, InvalidType, ["inputs['x']", "list", "float32"]),
        ({"x": 1.0}, InvalidType, ["inputs['x']", "float"]),
        ({"x": None}, InvalidType, ["inputs['x']", "NoneType"]),
        ({"x": X.astype(np.float64)}, InvalidType, ["inputs['x']", "float64", "float32"]),
        ({"x": X.astype(">f4")}, InvalidType, ["inputs['x']", ">f4", "float32"]),
        ({"x": X.astype(object)}, InvalidType, ["inputs['x']", "object"]),
        ({"x": X.astype("S4")}, InvalidType, ["inputs['x']", "|S4"]),
        ({"x": X.astype("M8[s]")}, InvalidType, ["inputs['x']", "datetime64"]),
        ({"x": X.astype([("a", "f4")])}, InvalidType, ["inputs['x']"]),
        ({"x": np.float32(1)}, InvalidType, ["inputs['x']", "float32"]),
        ({"x": np.array(1, np.float32)}, InvalidArgument, ["inputs['x']", "()", "(2,)"]),
        ({"x": X[None]}, InvalidArgument, ["inputs['x']", "(1, 2)", "batch axis"]),
        ({"x": X[:1]}, InvalidArgument, ["inputs['x']", "(1,)", "(2,)"]),
        ({"x": X[:0]}, InvalidArgument, ["inputs['x']", "(0,)"]),
        ({"x": np.zeros(3, np.float32)}, InvalidArgument, ["inputs['x']", "(3,)"]),
    ],
)
def test_inputs(engine, inputs, error, words):
    refuses(engine, error, ["inputs", "allowed", *words], "m", inputs)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 3, 1), (3, 2)])
def test_shapes_of_ragged_inputs(engine, shape):
    refuses(engine, InvalidArgument, ["'x'", str(shape), "(None, 3)"], "ragged", {"x": np.zeros(shape, np.int64)})


def test_the_second_of_two_inputs_is_named(engine):
    a, b = np.zeros((), np.float32), np.zeros(1, bool)
    refuses(engine, InvalidType, ["inputs['b']", "uint8", "bool"], "two", {"a": a, "b": b.astype(np.uint8)})
    refuses(engine, UnknownName, ["missing ['b']"], "two", {"a": a})
    refuses(engine, UnknownName, ["missing ['b']", "unknown ['B']"], "two", {"a": a, "B": b})


@pytest.mark.parametrize("field", ["deadline_s", "work"])
@pytest.mark.parametrize("value", [math.nan, -1, -1e-9, -math.inf, "1", b"1", [1], {}, 1j, object()])
def test_numbers(engine, field, value):
    error = InvalidArgument if isinstance(value, (int, float)) else InvalidType
    shown = repr(value) if error is InvalidArgument else type(value).__name__
    refuses(engine, error, [field, shown, "allowed"], "m", {"x": X}, **{field: value})


def test_work_without_end(engine):
    refuses(engine, InvalidArgument, ["work", "inf", "finite"], "m", {"x": X}, work=math.inf)


def test_a_number_too_large_for_a_float(engine):
    refuses(engine, InvalidArgument, ["work"], "m", {"x": X}, work=10**400)
    refuses(engine, InvalidArgument, ["deadline_s"], "m", {"x": X}, deadline_s=-(10**400))


def test_deadlines_that_are_far_or_at_once(engine):
    assert answer(engine.submit("m", x_of(1), deadline_s=math.inf)) == 2
    assert answer(engine.submit("m", x_of(1), deadline_s=1e300)) == 2
    assert answer(engine.submit("m", x_of(1), deadline_s=np.float32(100))) == 2
    future = engine.submit("m", x_of(1), deadline_s=0)
    assert isinstance(future.exception(timeout_s=60), infcore.DeadlineExceeded)
    assert engine.n_open == 0


@pytest.mark.parametrize("tier", [-1, 3, 2**70])
def test_tiers_out_of_bounds(engine, tier):
    refuses(engine, InvalidArgument, ["tier", str(tier), "0 to 2"], "m", {"x": X}, tier=tier)


@pytest.mark.parametrize("tier", [1.0, 0.0, "1", None, math.nan, [1], True])
def test_tiers_that_are_none(engine, tier):
    refuses(engine, InvalidType, ["tier", type(tier).__name__, "0 to 2"], "m", {"x": X}, tier=tier)


def test_a_tier_may_be_any_integer(engine):
    assert answer(engine.submit("m", x_of(1), tier=np.int64(2))) == 2


@pytest.mark.parametrize("require", [5, "eu", ["eu"], {"region": 5}, {5: "eu"}, {"": "eu"}])
def test_require(engine, require):
    with pytest.raises(InfcoreError, match="require"):
        engine.submit("m", {"x": X}, require=require)
    assert engine.n_open == 0


@pytest.mark.parametrize("field", ["key"])
def test_what_this_release_does_not_take(engine, field):
    refuses(engine, InvalidArgument, [field, "allowed"], "m", {"x": X}, **{field: "given"})


@pytest.mark.parametrize("given", [math.nan, -1.0, "much", None])
def test_work_of_the_models_own_callable(given):
    of = model("odd", work=lambda inputs: given)
    with engine_of(CallableDevice("d", double), models=[model(), of]) as engine:
        refuses(
            engine, InvalidArgument if isinstance(given, float) else InvalidType, ["work", "'odd'"], "odd", {"x": X}
        )


def test_what_the_models_own_callable_raises(engine):
    def fails(inputs):
        raise ZeroDivisionError("planned")

    with engine_of(CallableDevice("d", double), models=[model(work=fails)]) as running:
        with pytest.raises(ZeroDivisionError, match="planned"):
            running.submit("m", {"x": X})
        assert running.n_open == 0
        assert answer(running.submit("m", {"x": X}, work=1.0)) == 0


def test_arguments_that_do_not_exist(engine):
    with pytest.raises(TypeError):
        engine.submit("m", {"x": X}, priority=1)
    with pytest.raises(TypeError):
        engine.submit("m")
    assert engine.n_open == 0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"policy": "magic"}, UnknownName, ["policy", "'magic'", "fastest_finish", "round_robin"]),
        ({"policy": ""}, InvalidArgument, ["policy"]),
        ({"policy": None}, InvalidType, ["policy"]),
        ({"batching": "magic"}, UnknownName, ["batching", "'magic'", "dynamic", "greedy"]),
        ({"batching": 5}, InvalidType, ["batching"]),
        ({"max_requests": 0}, InvalidArgument, ["max_requests", "0"]),
        ({"max_requests": -5}, InvalidArgument, ["max_requests", "-5"]),
        ({"max_requests": 2**40}, InvalidArgument, ["max_requests", str(2**40)]),
        ({"max_requests": 1.5}, InvalidType, ["max_requests"]),
        ({"max_nodes": 0}, InvalidArgument, ["max_nodes", "0"]),
        ({"max_nodes": 2**40}, InvalidArgument, ["max_nodes", str(2**40)]),
        ({"n_tiers": 0}, InvalidArgument, ["n_tiers", "0"]),
        ({"n_tiers": 65}, InvalidArgument, ["n_tiers", "65"]),
        ({"n_tiers": True}, InvalidType, ["n_tiers"]),
        ({"ageing_s": math.nan}, InvalidArgument, ["ageing_s", "nan"]),
        ({"ageing_s": -1}, InvalidArgument, ["ageing_s", "-1"]),
        ({"seed": -1}, InvalidArgument, ["seed", "-1"]),
        ({"seed": 2**64}, InvalidArgument, ["seed", str(2**64)]),
        ({"seed": "x"}, InvalidType, ["seed"]),
        ({"cache": object()}, InvalidType, ["cache"]),
        ({"clock": 5}, InvalidType, ["clock", "int"]),
        ({"devices": 5}, InvalidType, ["devices", "int", "Device"]),
        ({"devices": ["d"]}, InvalidType, ["devices", "str", "Device"]),
        ({"devices": CallableDevice("d", double)}, InvalidType, ["devices", "CallableDevice"]),
        ({"models": [CallableDevice("d", double)]}, InvalidType, ["models", "CallableDevice", "Model"]),
        ({"models": [model(), model()]}, InvalidArgument, ["'m'", "1"]),
        ({"models": [Model("m", {"x": ("int8", (1,) * 9)}, {"y": ("int8", ())})]}, InvalidArgument, ["'x'", "9"]),
    ],
)
def test_arguments_of_an_engine(options, error, words):
    with pytest.raises(InfcoreError) as caught:
        Engine(**options)
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value)


def test_two_devices_of_one_name():
    engine = engine_of(CallableDevice("d", double), EmulatedDevice("d"))
    with pytest.raises(InvalidArgument, match="'d'"):
        engine.start()
    with pytest.raises(EngineClosed):
        engine.submit("m", x_of(1))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda e: e.add_device(5), InvalidType, ["device", "int"]),
        (lambda e: e.add_device(CallableDevice("d", double)), InvalidArgument, ["'d'"]),
        (lambda e: e.remove_device("x"), UnknownName, ["'x'", "'d'"]),
        (lambda e: e.remove_device(["x"]), UnknownName, ["['x']", "'d'"]),
        (lambda e: e.remove_device("d", timeout_s=-1), InvalidArgument, ["timeout_s"]),
        (lambda e: e.load_model(5), InvalidType, ["model", "int"]),
        (lambda e: e.load_model(model()), InvalidArgument, ["'m'"]),
        (lambda e: e.unload_model("x"), UnknownName, ["'x'", "'m'"]),
        (lambda e: e.unload_model("m", version=7), UnknownName, ["7"]),
        (lambda e: e.set_alias("x", {1: 1.0}), UnknownName, ["'x'"]),
        (lambda e: e.set_alias("m", {7: 1.0}), UnknownName, ["7", "1"]),
        (lambda e: e.set_alias("m", {1: -1.0}), InvalidArgument, ["weight", "-1"]),
        (lambda e: e.set_alias("m", {1: math.nan}), InvalidArgument, ["weight", "nan"]),
        (lambda e: e.set_alias("m", {1: 0.0}), InvalidArgument, ["weights"]),
        (lambda e: e.set_alias("m", {}), InvalidArgument, ["weights"]),
        (lambda e: e.set_alias("m", [1]), InvalidType, ["weights", "list"]),
        (lambda e: e.close(timeout_s=math.nan), InvalidArgument, ["timeout_s", "nan"]),
    ],
)
def test_membership(engine, call, error, words):
    with pytest.raises(InfcoreError) as caught:
        call(engine)
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value)
    assert answer(engine.submit("m", x_of(2))) == 4
