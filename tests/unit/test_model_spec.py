"""infcore.Model and TensorSpec: what they keep, what they refuse, and how much work a request is."""

import copy
import pickle

import numpy as np
import pytest

import infcore

X = {"x": ("float32", (8,))}
Y = {"y": ("int64", ())}


def columns(inputs):
    return inputs["x"].shape[1]


def test_keeps_specs_in_order_as_plain_tuples():
    model = infcore.Model(
        "m", inputs={"b": ("float16", (3, None)), "a": (np.bool_, ())}, outputs=Y, pad_value={"b": -1.0}
    )
    assert [spec.name for spec in model.inputs] == ["b", "a"]
    assert model.inputs[0].shape == (3, None)
    assert model.inputs[0].ragged == (1,)
    assert model.inputs[0].pad_value == -1.0
    assert model.inputs[1].dtype == np.dtype(bool)
    assert model.outputs == (infcore.TensorSpec("y", "int64", ()),)
    assert (model.max_batch_size, model.version, model.idempotent) == (64, 1, True)
    assert model.slo_s is None and model.max_batch_delay_s == 0.002


def test_is_immutable_comparable_and_copyable():
    model = infcore.Model("m", X, Y, work="x", slo_s=0.1)
    with pytest.raises(AttributeError, match=r"immutable.*slo_s"):
        model.slo_s = 0.2
    with pytest.raises(AttributeError, match="immutable"):
        del model.name
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.replace()):
        assert twin == model and hash(twin) == hash(model)
    faster = model.replace(slo_s=0.05, max_batch_size=1)
    assert (faster.slo_s, faster.max_batch_size, faster.inputs) == (0.05, 1, model.inputs)
    assert faster != model and model.slo_s == 0.1
    assert model != "m"


def test_later_changes_of_the_callers_tables_do_not_reach_it():
    inputs, pads = {"x": ("float32", (None,))}, {"x": 1.0}
    model = infcore.Model("m", inputs, Y, pad_value=pads)
    inputs["z"], pads["x"] = ("float32", ()), 2.0
    assert [spec.name for spec in model.replace(version=2).inputs] == ["x"]
    assert model.replace(version=2).inputs[0].pad_value == 1.0


def test_work_of():
    x = {"x": np.zeros((3, 5), np.float32)}
    inputs = {"x": ("float32", (3, None))}
    assert infcore.Model("m", inputs, Y).work_of(x) == 1.0
    assert infcore.Model("m", inputs, Y, work="x").work_of(x) == 15.0
    assert infcore.Model("m", inputs, Y, work=columns).work_of(x) == 5.0
    for bad in (-1, float("nan"), float("inf")):
        with pytest.raises(infcore.InvalidArgument, match=r"work of a request to 'm' is .*>= 0"):
            infcore.Model("m", inputs, Y, work=lambda _, bad=bad: bad).work_of(x)
    with pytest.raises(infcore.InvalidType, match="work of a request"):
        infcore.Model("m", inputs, Y, work=lambda _: "many").work_of(x)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"name": ""}, infcore.InvalidArgument, r"name is ''.*non-empty"),
        ({"name": 3}, infcore.InvalidType, r"name is int"),
        ({"inputs": {}}, infcore.InvalidArgument, r"inputs is empty"),
        ({"inputs": [("x", "float32", ())]}, infcore.InvalidType, r"inputs is list.*mapping"),
        ({"inputs": {"x": "float32"}}, infcore.InvalidType, r"inputs\['x'\].*\(dtype, shape\)"),
        ({"inputs": {"x": ("float99", ())}}, infcore.InvalidType, r"dtype of 'x' is 'float99'"),
        ({"inputs": {"x": (None, ())}}, infcore.InvalidType, r"dtype of 'x' is None"),
        ({"inputs": {"x": ("U8", ())}}, infcore.InvalidType, r"dtype of 'x'.*numeric or bool"),
        ({"inputs": {"x": (object, ())}}, infcore.InvalidType, r"dtype of 'x'"),
        ({"inputs": {"x": ("M8[s]", ())}}, infcore.InvalidType, r"dtype of 'x'"),
        ({"inputs": {"x": (np.dtype("f4").newbyteorder(), ())}}, infcore.InvalidArgument, r"'x'.*byte order"),
        ({"inputs": {"x": ("f4", 8)}}, infcore.InvalidType, r"shape of 'x' is 8"),
        ({"inputs": {"x": ("f4", (0,))}}, infcore.InvalidArgument, r"shape of 'x', axis 0 is 0.*>= 1"),
        ({"inputs": {"x": ("f4", (4, -1))}}, infcore.InvalidArgument, r"shape of 'x', axis 1 is -1"),
        ({"inputs": {"x": ("f4", (2.0,))}}, infcore.InvalidType, r"shape of 'x', axis 0 is float"),
        ({"inputs": {"x": ("f4", (1,) * 32)}}, infcore.InvalidArgument, r"32 axes; allowed: at most 31"),
        ({"outputs": {}}, infcore.InvalidArgument, r"outputs is empty"),
        ({"max_batch_size": 0}, infcore.InvalidArgument, r"max_batch_size is 0.*>= 1"),
        ({"max_batch_size": 2.5}, infcore.InvalidType, r"max_batch_size is float"),
        ({"max_batch_size": True}, infcore.InvalidType, r"max_batch_size is bool"),
        ({"max_batch_delay_s": -0.1}, infcore.InvalidArgument, r"max_batch_delay_s is -0.1"),
        ({"max_batch_delay_s": float("nan")}, infcore.InvalidArgument, r"max_batch_delay_s is nan"),
        ({"max_batch_delay_s": "1"}, infcore.InvalidType, r"max_batch_delay_s is str"),
        ({"work": "z"}, infcore.UnknownName, r"work is 'z'.*\['x'\]"),
        ({"work": 1.0}, infcore.InvalidType, r"work is float"),
        ({"idempotent": 1}, infcore.InvalidType, r"idempotent is int; allowed: True or False"),
        ({"version": 0}, infcore.InvalidArgument, r"version is 0"),
        ({"slo_s": 0.0}, infcore.InvalidArgument, r"slo_s is 0.0.*> 0"),
        ({"slo_s": float("inf")}, infcore.InvalidArgument, r"slo_s is inf"),
        ({"pad_value": {"z": 0}}, infcore.UnknownName, r"pad_value names 'z'.*\['x'\]"),
        ({"pad_value": {"x": None}}, infcore.InvalidType, r"pad_value of 'x' is NoneType"),
        ({"pad_value": 0}, infcore.InvalidType, r"pad_value is int; allowed: a mapping"),
    ],
)
def test_refuses(arguments, error, words):
    given = {"name": "m", "inputs": X, "outputs": Y, **arguments}
    with pytest.raises(error, match=words):
        infcore.Model(**given)


@pytest.mark.parametrize("value", [300, -1, 1.5, 2**70, float("nan")])
def test_refuses_a_pad_value_that_the_dtype_does_not_hold(value):
    with pytest.raises(infcore.InvalidArgument, match=r"pad_value of 'x' is .*uint8"):
        infcore.Model("m", {"x": ("uint8", (None,))}, Y, pad_value={"x": value})
