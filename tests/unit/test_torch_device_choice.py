"""TorchDevice chooses layout and groups by its own clock: modules here take what a curve says, on a ManualClock."""

import numpy as np
import pytest
from reference.length_groups import seconds
from staged_batches import staged

import infcore

torch = pytest.importorskip("torch", reason="the extra infcore[gpu] is not installed")

PADDED = (2e-3, 0.0, 0.0, 5e-5)
PACKED = (4e-3, 1e-3, 6e-5, 0.0)
MODEL = infcore.Model("m", {"x": ("float32", (None,))}, {"y": ("float32", (None,)), "n": ("int64", ())}, work="x")


def texts(n, seed):
    draw = np.random.default_rng(seed)
    return [draw.random(int(length), np.float32) for length in draw.lognormal(4.2, 0.9, n).clip(4, 512)]


class Timed:
    """y is x, n each row's length; takes what its curves say."""

    def __init__(self, **curves):
        self.clock = infcore.ManualClock()
        self.curves = curves

    def __call__(self, x, batch):
        lengths = batch.ragged["x"].lengths
        self.clock.advance(seconds(lengths.tolist(), self.curves[batch.layout]))
        return {"y": x, "n": torch.from_numpy(lengths)}


def device_of(module, takes="both", **options):
    device = infcore.TorchDevice("d", {"m": module}, takes={"m": takes}, clock=module.clock, **options)
    device.load(MODEL)
    return device


def took_s(device, module, rows):
    begin_s = module.clock.now_s()
    outputs = device.run_staged("m", staged(rows))
    for found, row in zip(outputs["y"], rows, strict=True):
        np.testing.assert_array_equal(found, row)
    assert [int(n) for n in outputs["n"]] == [len(row) for row in rows]
    return module.clock.now_s() - begin_s


def test_the_faster_layout_is_found_and_results_are_in_order():
    module = Timed(padded=PADDED, packed=PACKED)
    device = device_of(module, grouping=False)
    for seed in range(30):
        took_s(device, module, texts(1 + seed % 12, seed))
    alike, unlike = [np.ones(100, np.float32)] * 8, [np.ones(n, np.float32) for n in [4] * 7 + [512]]
    for rows, layout, curve in ((alike, "padded", PADDED), (unlike, "packed", PACKED)):
        before = device.layouts()["m"][layout]
        assert took_s(device, module, rows) == pytest.approx(seconds([len(row) for row in rows], curve), abs=1e-7)
        after = device.layouts()["m"][layout]
        assert (after.n_batches, after.n_explored) == (before.n_batches + 1, before.n_explored)
        assert after.predicted_s == pytest.approx(after.measured_s, rel=0.05)


def test_groups_of_like_length_where_they_gain():
    module = Timed(padded=PADDED)
    device = device_of(module, takes="padded")
    for seed in range(8):
        took_s(device, module, texts(32, seed))
    rows = texts(32, 100)
    lengths = [len(row) for row in rows]
    assert took_s(device, module, rows) < 0.5 * seconds(lengths, PADDED)
    figures = device.layouts()["m"]["padded"]
    assert figures.n_grouped >= 5 and figures.predicted_s == pytest.approx(figures.measured_s, rel=0.1)
    off = device_of(Timed(padded=PADDED), takes="padded", grouping=False)
    for seed in range(8):
        off.run_staged("m", staged(texts(32, seed)))
    assert off.layouts()["m"]["padded"].n_grouped == 0


def test_without_a_work_a_row_weighs_its_steps():
    module = Timed(padded=PADDED)
    device = infcore.TorchDevice("d", {"m": module}, clock=module.clock)
    device.load(MODEL.replace(work=None))
    for seed in range(8):
        device.run_staged("m", staged(texts(32, seed), works=np.ones(32)))
    assert device.layouts()["m"]["padded"].n_grouped >= 5


def test_fixed_inputs_go_with_their_rows_into_groups():
    model = infcore.Model(
        "m", {"x": ("float32", (None,)), "k": ("int64", (2,))}, {"y": ("float32", (None,)), "k": ("int64", (2,))}
    )
    device = infcore.TorchDevice("d", {"m": lambda x, k: {"y": x + k[:, :1], "k": k}})
    device.load(model)
    for seed in range(3):
        rows, k = texts(9, seed), np.arange(18).reshape(9, 2)
        outputs = device.run_staged("m", staged(rows, k=k))
        for i, row in enumerate(rows):
            np.testing.assert_array_equal(outputs["y"][i], row + np.float32(2 * i))
            np.testing.assert_array_equal(outputs["k"][i], k[i])
    assert device.layouts()["m"]["padded"].n_grouped == 1


def test_run_outside_of_an_engine_takes_arrays():
    module = Timed(padded=PADDED, packed=PACKED)
    device = device_of(module)
    x = np.random.default_rng(1).random((5, 7), np.float32)
    for _ in range(3):
        outputs = device.run("m", {"x": x})
        np.testing.assert_array_equal(outputs["y"], x)
        assert outputs["n"].tolist() == [7] * 5
    with pytest.raises(infcore.InvalidArgument, match=r"inputs\['x'\].*float64 of shape \(5, 7\).*float32"):
        device.run("m", {"x": x.astype(np.float64)})
    with pytest.raises(infcore.UnknownName, match=r"inputs of model 'm' are \['z'\].*\['x'\]"):
        device.run("m", {"z": x})
    device.unload("m")
    with pytest.raises(infcore.UnknownName, match="'m' is not loaded"):
        device.run("m", {"x": x})


ANY = ["float64", "complex64", "uint64", "uint32", "int16", "uint16", "bool", "float32", "float16", "int64", "int32"]


@pytest.mark.parametrize("dtype", [*ANY, "int8", "uint8"])
def test_every_dtype_comes_back_as_it_went_in(dtype):
    draw = np.random.default_rng(3)
    rows = [draw.integers(0, 2, n).astype(dtype) for n in (3, 0, 5)]
    model = infcore.Model("m", {"x": (dtype, (None,))}, {"y": (dtype, (None,))}, pad_value={"x": 1})
    for layout in ("padded", "packed"):
        device = infcore.TorchDevice("d", {"m": lambda x: x}, takes={"m": layout})
        device.load(model)
        outputs = device.run("m", {"x": np.stack([rows[0], rows[0]])})
        np.testing.assert_array_equal(outputs["y"], np.stack([rows[0], rows[0]]))
        assert outputs["y"].dtype == dtype


@pytest.mark.parametrize("given", ["bfloat16", {"m": "bfloat16"}])
def test_floats_are_cast_for_the_module_and_back_for_the_answer(given):
    seen = []

    def module(x, k, ids):
        seen.extend([x.dtype, k.dtype, ids.dtype])
        return {"y": x * 2}

    model = infcore.Model(
        "m", {"x": ("float32", (None,)), "k": ("float64", (2,)), "ids": ("int64", (1,))}, {"y": ("float32", (None,))}
    )
    device = infcore.TorchDevice("d", {"m": module}, dtype=given)
    device.load(model)
    x = np.random.default_rng(1).random((3, 5), np.float32)
    y = device.run("m", {"x": x, "k": np.ones((3, 2)), "ids": np.zeros((3, 1), np.int64)})["y"]
    assert seen == [torch.bfloat16, torch.bfloat16, torch.int64] and y.dtype == np.float32
    np.testing.assert_array_equal(y, 2 * torch.from_numpy(x).bfloat16().float().numpy())
