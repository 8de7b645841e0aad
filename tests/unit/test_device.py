"""Devices without ONNX Runtime: the base class, callables, emulated devices; and what `import infcore` leaves alone."""

import subprocess
import sys
import time

import numpy as np
import pytest

import infcore

MODEL = infcore.Model(
    "m",
    inputs={"x": ("float32", (4,)), "state": ("float32", (2, 3))},
    outputs={"y": ("float32", (None, 5)), "state": ("float32", (2, 3)), "n": ("int64", ())},
    work=lambda inputs: float(inputs["x"].sum()),
)


def test_import_leaves_optional_packages_alone():
    optional = ["onnxruntime", "onnx", "PIL", "magika", "torch", "cupy", "triton", "pynvml"]
    code = f"import sys, infcore; print([name for name in {optional} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_callable_device_passes_arrays_through():
    seen = []

    def run(model_name, inputs):
        seen.append(model_name)
        return {"y": inputs["x"] * 2}

    device = infcore.CallableDevice("cpu0", run=run, zone="z1", labels={"region": "eu"}, price_per_hour=1, slots=2)
    assert (device.name, device.kind, device.zone, device.slots) == ("cpu0", "cpu", "z1", 2)
    assert device.labels == {"region": "eu"} and device.price_per_hour == 1.0
    assert device.models is None and device.run_limit_s == 30.0 and device.watts is None
    assert not device.emulated and device.display_name == "cpu0"
    assert device.curve("m") is None
    outputs = device.run("m", {"x": np.ones((3, 4), np.float32)})
    assert seen == ["m"] and outputs["y"].shape == (3, 4) and outputs["y"].sum() == 24
    with pytest.raises(infcore.InvalidType, match="run is str"):
        infcore.CallableDevice("cpu0", run="nothing")


def test_a_device_of_ones_own():
    class Own(infcore.Device):
        def run(self, model_name, inputs):
            return inputs

    device = Own("mine", models=["m"], curves={"m": (0.001, 0, 0.1, 0)})
    assert device.curve("m") == infcore.Curve(0.001, per_work_s=0.1)
    assert "Own('mine', kind='cpu', models=['m'])" == repr(device)
    device.load(MODEL)
    with pytest.raises(infcore.UnknownName, match=r"'other' is not served by device 'mine'; it serves \['m'\]"):
        device.load(MODEL.replace(name="other"))
    device.unload("m")
    device.unload("m")
    with pytest.raises(TypeError, match="abstract"):
        infcore.Device("base")


def test_batch_axis_is_checked_against_the_model():
    device = infcore.CallableDevice("d", run=lambda name, inputs: {}, batch_axis={"state": 3})
    with pytest.raises(
        infcore.InvalidArgument, match=r"batch_axis\['state'\] of device 'd' is 3; model 'm' allows 0 to 2"
    ):
        device.load(MODEL)
    with pytest.raises(TypeError):
        device.batch_axis["x"] = 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"name": ""}, infcore.InvalidArgument, "name is ''"),
        ({"name": None}, infcore.InvalidType, "name is NoneType"),
        ({"kind": ""}, infcore.InvalidArgument, "kind is ''"),
        ({"zone": 1}, infcore.InvalidType, "zone is int"),
        ({"location": None}, infcore.InvalidType, "location is NoneType"),
        ({"memory_bytes": -1}, infcore.InvalidArgument, "memory_bytes is -1.*>= 0"),
        ({"memory_bytes": 1.0}, infcore.InvalidType, "memory_bytes is float"),
        ({"price_per_hour": -1.0}, infcore.InvalidArgument, "price_per_hour is -1.0"),
        ({"price_per_hour": float("inf")}, infcore.InvalidArgument, "price_per_hour is inf"),
        ({"rtt_s": float("nan")}, infcore.InvalidArgument, "rtt_s is nan"),
        ({"slots": 0}, infcore.InvalidArgument, "slots is 0.*>= 1"),
        ({"labels": ["eu"]}, infcore.InvalidType, "labels is list"),
        ({"labels": {"region": 1}}, infcore.InvalidType, r"labels\['region'\] is int"),
        ({"models": "m"}, infcore.InvalidType, "models is str; allowed: a sequence of names"),
        ({"models": ["m", "m"]}, infcore.InvalidArgument, "models has 'm' 2 times"),
        ({"batch_axis": {"x": -1}}, infcore.InvalidArgument, r"batch_axis\['x'\] is -1"),
        ({"batch_axis": 1}, infcore.InvalidType, "batch_axis is int"),
        ({"run_limit_s": 0}, infcore.InvalidArgument, "run_limit_s is 0.*> 0"),
        ({"watts": -5}, infcore.InvalidArgument, "watts is -5"),
        ({"curves": {"m": (1, 2)}}, infcore.InvalidType, r"curves\['m'\] is \(1, 2\).*base_s"),
        ({"curves": {"m": (1, 2, -3, 4)}}, infcore.InvalidArgument, r"curves\['m'\].per_work_s is -3"),
        ({"base_s": -1.0}, infcore.InvalidArgument, "base_s is -1.0"),
        ({"per_padded_work_s": "1"}, infcore.InvalidType, "per_padded_work_s is str"),
        ({"cv": float("nan")}, infcore.InvalidArgument, "cv is nan"),
        ({"seed": -1}, infcore.InvalidArgument, "seed is -1"),
        ({"seed": 1.5}, infcore.InvalidType, "seed is float"),
    ],
)
def test_refuses(options, error, words):
    with pytest.raises(error, match=words):
        infcore.EmulatedDevice(**{"name": "d", **options})


def test_emulated_device_says_that_it_is_one():
    device = infcore.EmulatedDevice("a100", base_s=0.002)
    assert device.emulated and device.kind == "gpu"
    assert "emulated" in repr(device) and device.display_name == "a100 (emulated)"


def test_emulated_curve_and_spread():
    plain = infcore.EmulatedDevice(
        "d", base_s=1, per_request_s=2, per_work_s=3, per_padded_work_s=4, curves={"other": (0.5, 0, 0, 0)}
    )
    assert plain.service_s("m", 3, 10.0, 5.0) == 1 + 2 * 3 + 3 * 10 + 4 * 3 * 5
    assert plain.service_s("other", 3, 10.0, 5.0) == 0.5
    assert plain.curve("m") == (1, 2, 3, 4) and plain.curve("other") == (0.5, 0, 0, 0)

    def times(name="d", seed=7):
        device = infcore.EmulatedDevice(name, base_s=1.0, cv=0.3, seed=seed)
        return np.array([device.service_s("m", 1, 1.0, 1.0) for _ in range(20_000)])

    spread = times()
    assert np.array_equal(spread, times())
    assert not np.array_equal(spread, times(seed=8)) and not np.array_equal(spread, times(name="e"))
    assert (spread > 0).all()
    # 20,000 draws with this fixed seed; the standard errors are 0.002 and about 0.003.
    assert spread.mean() == pytest.approx(1.0, abs=0.01)
    assert spread.std() / spread.mean() == pytest.approx(0.3, abs=0.015)


def test_emulated_outputs_are_zeros_in_the_devices_layout():
    device = infcore.EmulatedDevice("d", batch_axis={"state": 1})
    outputs = device.outputs(MODEL, 6)
    assert {name: (held.shape, held.dtype.name) for name, held in outputs.items()} == {
        "y": ((6, 0, 5), "float32"),  # ragged: an emulated device has nothing to say
        "state": ((2, 6, 3), "float32"),
        "n": ((6,), "int64"),
    }
    assert not outputs["state"].any()
    assert outputs["n"] is not device.outputs(MODEL, 6)["n"]


def test_emulated_run_sleeps_for_the_work_of_the_batch():
    device = infcore.EmulatedDevice("d", base_s=0.01, per_work_s=0.001, batch_axis={"state": 1})
    inputs = {"x": np.full((5, 4), 1.0, np.float32), "state": np.zeros((2, 5, 3), np.float32)}
    with pytest.raises(infcore.UnknownName, match="'m' is not loaded on device 'd'"):
        device.run("m", inputs)
    device.load(MODEL)
    start = time.monotonic()
    outputs = device.run("m", inputs)
    assert time.monotonic() - start >= 0.01 + 0.001 * 20
    assert outputs["n"].shape == (5,)
    device.close()
    with pytest.raises(infcore.UnknownName, match="not loaded"):
        device.run("m", inputs)
