"""infcore.Engine: what goes in, what a device sees of it, and what comes back."""

import asyncio

import numpy as np
import pytest
from engine_rig import WAIT_S, Counted, Gated, answer, double, engine_of, identity, model, x_of

import infcore
from infcore import CallableDevice, EmulatedDevice, Engine, Model


def run_once(of, run, inputs, **device):
    with engine_of(CallableDevice("d", run, **device), models=[of]) as engine:
        return engine.submit(of.name, inputs).result(timeout_s=WAIT_S)


def test_one_request():
    with engine_of(CallableDevice("d", run=double)) as engine:
        future = engine.submit("m", x_of(3))
        outputs = future.result(timeout_s=WAIT_S)
    assert type(outputs) is dict
    assert list(outputs) == ["y"]
    assert type(outputs["y"]) is np.ndarray
    assert outputs["y"].dtype == np.float32
    assert outputs["y"].tolist() == [6, 6]
    assert future.device == "d"


def test_the_device_is_told_the_model_and_gets_its_batch():
    seen = []

    def run(name, inputs):
        seen.append((name, {key: (held.shape, held.dtype, held.flags.c_contiguous) for key, held in inputs.items()}))
        return double(name, inputs)

    with engine_of(CallableDevice("d", run), models=[model("first"), model("second")]) as engine:
        assert answer(engine.submit("second", x_of(1))) == 2
    assert seen == [("second", {"x": ((1, 2), np.dtype("float32"), True)})]


def test_asubmit_and_stream():
    async def main():
        async with engine_of(CallableDevice("d", run=double)) as engine:
            outputs = await engine.asubmit("m", x_of(3))
            parts = [part async for part in engine.stream("m", x_of(4))]
        return outputs, parts

    outputs, parts = asyncio.run(main())
    assert outputs["y"].tolist() == [6, 6]
    assert [part["y"].tolist() for part in parts] == [[8, 8]]


def test_arguments_by_name():
    with Engine(devices=[CallableDevice(name="d", run=double)], models=[model()]) as engine:
        assert answer(engine.submit(model="m", inputs=x_of(1))) == 2


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int32", "int64", "uint64", "float16", "float64", "complex64"]
)
def test_dtypes_go_in_and_out_to_the_bit(dtype):
    of = Model("m", {"x": (dtype, (3,))}, {"y": (dtype, (3,))})
    given = np.array([0, 1, 1], dtype)
    found = run_once(of, identity, {"x": given})["y"]
    assert found.dtype == given.dtype
    assert found.tobytes() == given.tobytes()


@pytest.mark.parametrize("dtype", [np.longlong, np.ulonglong])
def test_the_second_spelling_of_a_64_bit_integer(dtype):
    of = Model("m", {"x": (np.dtype(dtype).name, (2,))}, {"y": (np.dtype(dtype).name, (2,))})
    found = run_once(of, lambda name, inputs: {"y": inputs["x"].astype(dtype)}, {"x": np.array([1, 2], dtype)})
    assert found["y"].tolist() == [1, 2]


def test_scalars():
    of = Model("m", {"x": ("int64", ())}, {"y": ("float64", ())})
    found = run_once(of, lambda name, inputs: {"y": inputs["x"] / 2}, {"x": np.array(3)})["y"]
    assert type(found) is np.ndarray
    assert found.shape == ()
    assert float(found) == 1.5


def test_several_inputs_and_outputs_by_name():
    of = Model(
        "m",
        {"a": ("float32", (2,)), "b": ("int64", ()), "c": ("bool", (3, 1))},
        {"sum": ("float32", (2,)), "any": ("bool", ()), "b": ("int64", ())},
    )

    def run(name, inputs):
        return {
            "any": inputs["c"].any(axis=(1, 2)),
            "b": inputs["b"] + 1,
            "sum": inputs["a"] + inputs["b"][:, None].astype(np.float32),
        }

    given = {"c": np.array([[False], [True], [False]]), "b": np.array(5), "a": np.array([1, 2], np.float32)}
    found = run_once(of, run, given)
    assert {key: held.tolist() for key, held in found.items()} == {"sum": [6, 7], "any": True, "b": 6}


@pytest.mark.parametrize("view", ["strided", "reversed", "transposed", "broadcast", "read only", "fortran"])
def test_inputs_of_any_layout(view):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    given = {
        "strided": base[::2, ::3],
        "reversed": base[1::-1, 1::-1],
        "transposed": base[:2, :2].T,
        "broadcast": np.broadcast_to(np.float32(7), (2, 2)),
        "read only": base[:2, :2].copy(),
        "fortran": np.asfortranarray(base[:2, :2]),
    }[view]
    given.flags.writeable = False
    of = Model("m", {"x": ("float32", (2, 2))}, {"y": ("float32", (2, 2))})
    assert run_once(of, double, {"x": given})["y"].tolist() == (given * 2).tolist()


def held_back(engine, run, requests):
    """All of them in one batch: the device is held by a first request until they are in."""
    first = engine.submit("m", requests[0])
    run.wait_entered()
    rest = [engine.submit("m", inputs) for inputs in requests[1:]]
    run.open()
    return [future.result(timeout_s=WAIT_S) for future in [first, *rest]]


def test_ragged_inputs_are_padded_to_the_widest():
    of = Model("m", {"x": ("int32", (None,))}, {"y": ("int32", ())}, pad_value={"x": -1})
    seen = []

    def run(name, inputs):
        seen.append(inputs["x"].tolist())
        return {"y": (inputs["x"] >= 0).sum(axis=1, dtype=np.int32)}

    gated = Gated(run)
    rows = [np.arange(n, dtype=np.int32) for n in (1, 2, 4, 0, 3)]
    rows[0][0] = 9
    with engine_of(CallableDevice("d", gated), models=[of]) as engine:
        found = held_back(engine, gated, [{"x": row} for row in rows])
    assert [int(outputs["y"]) for outputs in found] == [1, 2, 4, 0, 3]
    assert seen == [[[9]], [[0, 1, -1, -1], [0, 1, 2, 3], [-1] * 4, [0, 1, 2, -1]]]


def test_ragged_in_two_axes_and_ragged_outputs():
    of = Model("m", {"x": ("float16", (None, 2, None))}, {"y": ("float16", (2, None))}, pad_value={"x": 0.5})
    gated = Gated(lambda name, inputs: {"y": inputs["x"].max(axis=1)})
    rows = [np.zeros((1, 2, 1), np.float16), np.zeros((3, 2, 2), np.float16), np.zeros((1, 2, 4), np.float16)]
    with engine_of(CallableDevice("d", gated), models=[of]) as engine:
        found = [outputs["y"] for outputs in held_back(engine, gated, [{"x": row} for row in rows])]
    assert found[0].tolist() == [[0], [0]]
    assert found[1].tolist() == [[0, 0, 0.5, 0.5]] * 2  # a device answers for the padded width
    assert found[2].tolist() == [[0.5] * 4] * 2


def test_nothing_but_empty_rows():
    of = Model("m", {"x": ("float32", (None, 3))}, {"y": ("float32", (None, 3))})
    assert run_once(of, double, {"x": np.zeros((0, 3), np.float32)})["y"].shape == (0, 3)


def test_batch_axis_elsewhere():
    of = Model(
        "m",
        {"x": ("float32", (3,)), "state": ("float32", (2, 4))},
        {"y": ("float32", (3,)), "state": ("float32", (2, 4)), "last": ("float32", (2,))},
    )
    shapes = []

    def run(name, inputs):
        shapes.append((inputs["x"].shape, inputs["state"].shape))
        return {"y": inputs["x"], "state": inputs["state"] + 1, "last": inputs["state"][:, :, 0]}

    gated = Gated(run)
    device = CallableDevice("d", gated, batch_axis={"state": 1, "last": 1})
    requests = [{"x": np.full(3, i, np.float32), "state": np.full((2, 4), i, np.float32)} for i in range(4)]
    with engine_of(device, models=[of]) as engine:
        found = held_back(engine, gated, requests)
    assert shapes == [((1, 3), (2, 1, 4)), ((3, 3), (2, 3, 4))]
    for i, outputs in enumerate(found):
        assert outputs["state"].tolist() == [[i + 1] * 4] * 2
        assert outputs["y"].tolist() == [i] * 3
        assert outputs["last"].tolist() == [i] * 2


def test_results_stay_when_the_device_answers_with_its_inputs():
    with engine_of(CallableDevice("d", run=identity)) as engine:
        kept = [engine.submit("m", x_of(i)).result(timeout_s=WAIT_S)["y"] for i in range(50)]
    assert [row.tolist() for row in kept] == [[i, i] for i in range(50)]


def test_a_device_may_keep_its_inputs():
    kept = []

    def run(name, inputs):
        kept.append(inputs["x"])
        return double(name, inputs)

    with engine_of(CallableDevice("d", run)) as engine:
        assert [answer(engine.submit("m", x_of(i))) for i in range(50)] == [2 * i for i in range(50)]
    assert [held.tolist() for held in kept] == [[[i, i]] for i in range(50)]


def test_a_view_of_a_view_of_an_input_is_kept_too():
    of = Model("m", {"x": ("int64", (4,))}, {"y": ("int64", (2,))})
    with engine_of(CallableDevice("d", lambda name, inputs: {"y": inputs["x"][:, ::-1][:, :2]}), models=[of]) as engine:
        kept = [engine.submit("m", {"x": np.arange(i, i + 4)}).result(timeout_s=WAIT_S)["y"] for i in range(20)]
    assert [row.tolist() for row in kept] == [[i + 3, i + 2] for i in range(20)]


@pytest.mark.parametrize("form", ["fortran", "strided", "broadcast", "read only"])
def test_outputs_of_any_layout(form):
    def run(name, inputs):
        y = inputs["x"] * 2
        if form == "fortran":
            y = np.asfortranarray(y)
        elif form == "strided":
            y = np.repeat(np.repeat(y, 2, axis=0), 3, axis=1)[::2, ::3]
        elif form == "broadcast":
            y = np.broadcast_to(y[:, :1], y.shape)
        else:
            y.flags.writeable = False
        return {"y": y}

    gated = Gated(run)
    with engine_of(CallableDevice("d", gated)) as engine:
        found = held_back(engine, gated, [x_of(i) for i in range(5)])
    assert [outputs["y"].tolist() for outputs in found] == [[2 * i] * 2 for i in range(5)]
    if form in ("broadcast", "read only"):
        assert not found[0]["y"].flags.writeable


def test_members_of_a_batch_do_not_share_their_answers():
    gated = Gated()
    with engine_of(CallableDevice("d", gated)) as engine:
        found = held_back(engine, gated, [x_of(i) for i in range(6)])
    for outputs in found:
        outputs["y"] += 100
    assert [outputs["y"].tolist() for outputs in found] == [[2 * i + 100] * 2 for i in range(6)]


def test_result_is_the_same_object_each_time():
    with engine_of(CallableDevice("d", run=double)) as engine:
        future = engine.submit("m", x_of(1))
        assert future.result(timeout_s=WAIT_S) is future.result()


def test_an_emulated_device_answers_zeros_of_the_right_shapes():
    of = Model("m", {"x": ("float32", (None,))}, {"y": ("int16", (2, 3)), "z": ("bool", (None,))})
    with engine_of(EmulatedDevice("e", base_s=1e-4), models=[of]) as engine:
        found = engine.submit("m", {"x": np.ones(5, np.float32)}).result(timeout_s=WAIT_S)
        assert engine.stats()["devices"]["e"]["emulated"] is True
    assert (found["y"].dtype, found["y"].tolist()) == (np.int16, [[0] * 3] * 2)
    assert (found["z"].dtype, found["z"].shape) == (np.bool_, (0,))


def test_a_large_batch_goes_through_whole():
    of = Model("m", {"x": ("uint8", (300, 301))}, {"y": ("uint8", (300, 301))})
    gated = Gated(identity)
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, 255, (300, 301), np.uint8) for _ in range(9)]
    with engine_of(CallableDevice("d", gated), models=[of]) as engine:
        found = held_back(engine, gated, [{"x": row} for row in rows])
    assert all(np.array_equal(outputs["y"], row) for outputs, row in zip(found, rows, strict=True))


@pytest.mark.parametrize("limit", [1, 3, 64])
def test_max_batch_size(limit):
    counted = Counted()
    gated = Gated(counted)
    with engine_of(CallableDevice("d", gated), models=[model(max_batch_size=limit)]) as engine:
        found = held_back(engine, gated, [x_of(i) for i in range(20)])
    assert [outputs["y"][0] for outputs in found] == [2 * i for i in range(20)]
    assert sum(counted.sizes) == 20
    assert max(counted.sizes) == min(limit, 19)


def test_names_are_there():
    assert infcore.Engine.__module__ == "infcore.engine"
    assert isinstance(infcore.Future, type)
