"""OnnxDevice on small ONNX files made here: layouts, fixed batches, constants, int8, and files that do not fit."""

import numpy as np
import pytest

import infcore

onnx = pytest.importorskip("onnx", reason="the extra infcore[onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra infcore[onnx] is not installed")

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
MODEL = infcore.Model("linear", {"x": ("float32", (4,))}, {"y": ("float32", (3,))})


def file_of(nodes, inputs, outputs, weights=()):
    helper = onnx.helper
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        [onnx.numpy_helper.from_array(held, name) for name, held in weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def linear(batch="n", as_constant=False, width=4):
    float32, helper = onnx.TensorProto.FLOAT, onnx.helper
    nodes, weights = [helper.make_node("MatMul", ["x", "w"], ["y"])], [("w", WEIGHTS)]
    if as_constant:
        value = onnx.numpy_helper.from_array(WEIGHTS, "w")
        nodes, weights = [helper.make_node("Constant", [], ["w"], value=value), *nodes], []
    return file_of(nodes, [("x", float32, [batch, width])], [("y", float32, [batch, 3])], weights)


def rows(n):
    return np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32)


def test_runs_a_file_from_bytes_and_from_a_path(tmp_path):
    path = tmp_path / "linear.onnx"
    path.write_bytes(linear())
    for source in (linear(), path, str(path)):
        device = infcore.OnnxDevice("cpu0", {"linear": source})
        assert device.models == ("linear",) and not device.emulated and device.kind == "cpu"
        device.load(MODEL)
        outputs = device.run("linear", {"x": rows(5)})
        assert list(outputs) == ["y"]
        np.testing.assert_allclose(outputs["y"], rows(5) @ WEIGHTS, rtol=1e-5, atol=1e-6)
        device.unload("linear")
        with pytest.raises(infcore.UnknownName, match="'linear' is not loaded on device 'cpu0'"):
            device.run("linear", {"x": rows(5)})
        device.load(MODEL)
        device.close()


@pytest.mark.parametrize("batch", [1, 3, 4])
@pytest.mark.parametrize("n", [1, 3, 7])
def test_a_file_with_a_fixed_batch_runs_in_parts(batch, n):
    device = infcore.OnnxDevice("cpu0", {"linear": linear(batch=batch)})
    device.load(MODEL)
    y = device.run("linear", {"x": rows(n)})["y"]
    assert y.shape == (n, 3)
    np.testing.assert_allclose(y, rows(n) @ WEIGHTS, rtol=1e-5, atol=1e-6)


def stateful(batch):
    """state (2, batch, 3) -> next (2, batch, 3): state + x * scale, with a scalar input of its own."""
    float32, helper = onnx.TensorProto.FLOAT, onnx.helper
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("Add", ["state", "scaled"], ["next"]),
        helper.make_node("Neg", ["x"], ["unused"]),
    ]
    inputs = [("x", float32, [batch, 3]), ("state", float32, [2, batch, 3]), ("scale", float32, [])]
    return file_of(nodes, inputs, [("next", float32, [2, batch, 3]), ("unused", float32, [batch, 3])])


@pytest.mark.parametrize("batch", ["n", 2])
def test_batch_axis_and_constants(batch):
    model = infcore.Model("s", {"x": ("f4", (3,)), "state": ("f4", (2, 3))}, {"next": ("f4", (2, 3))})
    options = {"batch_axis": {"state": 1, "next": 1}}
    device = infcore.OnnxDevice("d", {"s": stateful(batch)}, constants={"s": {"scale": np.float32(3)}}, **options)
    device.load(model)
    x, state = rows(5)[:, :3].copy(), np.arange(30, dtype=np.float32).reshape(2, 5, 3)
    outputs = device.run("s", {"x": x, "state": state})
    assert list(outputs) == ["next"]  # what the Model does not name is not computed
    np.testing.assert_allclose(outputs["next"], state + 3 * x, rtol=1e-6)

    device = infcore.OnnxDevice("d", {"s": stateful(batch)}, **options)
    with pytest.raises(infcore.InvalidArgument, match=r"also wants the inputs \['scale'\].*constants="):
        device.load(model)
    constants = {"s": {"scale": np.float32(1)}}
    device = infcore.OnnxDevice("d", {"s": stateful(2)}, batch_axis={"next": 1}, constants=constants)
    with pytest.raises(infcore.InvalidArgument, match=r"'state' is \(7, 3\) with the batch at axis 0; the file has"):
        device.load(model.replace(inputs={"x": ("f4", (3,)), "state": ("f4", (7, 3))}))


def test_a_forgotten_batch_axis_is_noticed():
    model = infcore.Model("s", {"x": ("f4", (3,)), "state": ("f4", (2, 3))}, {"next": ("f4", (2, 3))})
    constants = {"s": {"scale": np.float32(1)}}
    device = infcore.OnnxDevice("d", {"s": stateful("n")}, batch_axis={"next": 1}, constants=constants)
    with pytest.raises(infcore.InvalidArgument, match=r"batch sizes differ, \{'x': None, 'state': 2\}.*batch_axis"):
        device.load(model)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": {"z": ("float32", (4,))}}, r"device 'cpu0', model 'linear'.*no input 'z'; it has \['x'\]"),
        ({"outputs": {"z": ("float32", (3,))}}, r"no output 'z'; it has \['y'\]"),
        ({"inputs": {"x": ("float64", (4,))}}, r"'x' is float64; the file has tensor\(float\)"),
        ({"inputs": {"x": ("float32", (5,))}}, r"'x' is \(5,\).*the file has \['n', 4\]"),
        ({"inputs": {"x": ("float32", (None,))}}, r"'x' is \(None,\).*the file has \['n', 4\]"),
        ({"inputs": {"x": ("float32", (1, 4))}}, r"'x' is \(1, 4\).*the file has \['n', 4\]"),
        ({"outputs": {"y": ("float32", ())}}, r"'y' is \(\).*the file has \['n', 3\]"),
    ],
)
def test_load_names_what_differs_from_the_file(changes, words):
    device = infcore.OnnxDevice("cpu0", {"linear": linear()})
    with pytest.raises(infcore.InvalidArgument, match=words):
        device.load(MODEL.replace(**changes))
    with pytest.raises(infcore.UnknownName, match="not loaded"):
        device.run("linear", {"x": rows(1)})


@pytest.mark.parametrize("as_constant", [False, True])
def test_int8_quantises_once_and_stays_close(as_constant):
    device = infcore.OnnxDevice("cpu0", {"linear": linear(as_constant=as_constant)}, int8=True)
    device.load(MODEL)
    first = device._quantised["linear"]
    assert any("Integer" in node.op_type for node in onnx.load_from_string(first).graph.node)
    y = device.run("linear", {"x": rows(8)})["y"]
    # 8 bits for x and for w: an error of at most half a step in each factor of the 4 products.
    step_x, step_w = np.ptp(np.append(rows(8), 0)) / 255, WEIGHTS.max() / 127
    bound = 4 * (step_x * WEIGHTS.max() + step_w * np.abs(rows(8)).max())
    error = np.abs(y - rows(8) @ WEIGHTS).max()
    assert 0 < error < bound
    device.unload("linear")
    device.load(MODEL)
    assert device._quantised["linear"] is first


def test_int8_that_cannot_be_done_says_so():
    relu = file_of(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        [("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [("y", onnx.TensorProto.FLOAT, ["n", 4])],
    )
    model = infcore.Model("relu", {"x": ("float32", (4,))}, {"y": ("float32", (4,))})
    device = infcore.OnnxDevice("cpu0", {"relu": relu, "linear": linear()}, int8=["relu"])
    with pytest.raises(infcore.DeviceError, match=r"'cpu0' cannot quantise model 'relu'.*nothing to quantise"):
        device.load(model)
    device.load(MODEL)
    assert not device._quantised


def test_a_file_that_is_no_model():
    device = infcore.OnnxDevice("cpu0", {"linear": b"not a model"})
    with pytest.raises(infcore.DeviceError, match="'cpu0' cannot open model 'linear'"):
        device.load(MODEL)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"models": {}}, infcore.InvalidArgument, "models is empty"),
        ({"models": ["a.onnx"]}, infcore.InvalidType, "models is list"),
        ({"models": {"m": 3}}, infcore.InvalidType, r"models\['m'\] is int"),
        ({"models": {"m": "/no/such/file.onnx"}}, infcore.InvalidArgument, r"models\['m'\] is '/no/such/file.onnx'"),
        ({"threads": 0}, infcore.InvalidArgument, "threads is 0"),
        ({"providers": ["NoSuchProvider"]}, infcore.UnknownName, r"has 'NoSuchProvider'.*CPUExecutionProvider"),
        ({"providers": []}, infcore.InvalidArgument, "providers is empty"),
        ({"providers": "CPUExecutionProvider"}, infcore.InvalidType, "providers is str"),
        ({"provider_options": {"Other": {}}}, infcore.UnknownName, r"provider_options names 'Other'"),
        ({"int8": ["other"]}, infcore.UnknownName, r"int8 names 'other'; device 'd' has \['m'\]"),
        ({"int8": "m"}, infcore.InvalidType, "int8 is str"),
        ({"constants": {"other": {}}}, infcore.UnknownName, r"constants names 'other'"),
        ({"slots": 0}, infcore.InvalidArgument, "slots is 0"),
    ],
)
def test_refuses(options, error, words):
    with pytest.raises(error, match=words):
        infcore.OnnxDevice(**{"name": "d", "models": {"m": b""}, **options})


def test_a_provider_that_does_not_start_is_an_error_and_not_a_quiet_fallback(monkeypatch):
    runtime = pytest.importorskip("onnxruntime", reason="the extra infcore[onnx] is not installed")
    there = runtime.get_available_providers()
    if "CUDAExecutionProvider" in there:
        pytest.skip("this build of ONNX Runtime has CUDA")
    # A GPU build on a machine without its libraries lists the provider and then falls back to the CPU by itself.
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["CUDAExecutionProvider", *there])
    device = infcore.OnnxDevice("gpu0", {"linear": linear()}, providers=["CUDAExecutionProvider"], kind="gpu")
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(infcore.DeviceError, match=r"'gpu0'.*'CUDAExecutionProvider' did not start for model 'linear'"),
    ):
        device.load(MODEL)
