"""The real models' files with their own pre-processing: every answer right, alone, in padded batches, and in 8 bits."""

import numpy as np
import pytest

import infcore
from infcore.models import available, load, names, onnx_arguments

pytest.importorskip("onnxruntime", reason="the extra infcore[models] is not installed")

REAL, LEFT_OUT = available()
N_EXAMPLES = {"magika": 48, "silero_vad": 64, "rapidocr_rec": 24, "rapidocr_cls": 48}


@pytest.fixture(params=names())
def real(request):
    if request.param in LEFT_OUT:
        pytest.skip(LEFT_OUT[request.param])
    return REAL[request.param]


@pytest.fixture(scope="module")
def device():
    made = infcore.OnnxDevice("cpu0", **onnx_arguments(REAL.values()))
    for real in REAL.values():
        made.load(real.model)
    yield made
    made.close()


def run_batch(device, real, examples, width=0):
    """One batch, ragged axes padded to the longest (at least `width`); the outputs of each request."""
    inputs = {}
    for spec in real.model.inputs:
        rows = [example.inputs[spec.name] for example in examples]
        for row in rows:
            assert row.dtype == spec.dtype
            assert all(want in (None, have) for want, have in zip(spec.shape, row.shape, strict=True))
        shape = np.max([row.shape for row in rows], axis=0)
        for axis in spec.ragged:
            shape[axis] = max(shape[axis], width)
        packed = np.full((len(rows), *shape), spec.pad_value, spec.dtype)
        for i, row in enumerate(rows):
            packed[(i, *map(slice, row.shape))] = row
        inputs[spec.name] = np.ascontiguousarray(np.moveaxis(packed, 0, real.batch_axis.get(spec.name, 0)))
    outputs = device.run(real.name, inputs)
    assert list(outputs) == [spec.name for spec in real.model.outputs]
    by_request = {name: np.moveaxis(held, real.batch_axis.get(name, 0), 0) for name, held in outputs.items()}
    return [{name: held[i] for name, held in by_request.items()} for i in range(len(examples))]


def wrong(device, real, examples, batch_size, width=0):
    found = []
    for i in range(0, len(examples), batch_size):
        batch = examples[i : i + batch_size]
        for example, outputs in zip(batch, run_batch(device, real, batch, width), strict=True):
            if not real.check(example, outputs):
                found.append((example.about, example.expected, real.describe(outputs)))
    return found


@pytest.mark.parametrize("batch_size", [1, 8])
def test_every_answer_is_right(device, real, batch_size):
    examples = real.examples(seed=batch_size, n=N_EXAMPLES[real.name])
    assert len(examples) == N_EXAMPLES[real.name]
    assert {example.model for example in examples} == {real.name}
    assert len({repr(example.expected) for example in examples}) > 1
    assert wrong(device, real, examples, batch_size) == []


def test_padding_to_a_far_wider_line_changes_no_answer(device):
    if "rapidocr_rec" in LEFT_OUT:
        pytest.skip(LEFT_OUT["rapidocr_rec"])
    real = REAL["rapidocr_rec"]
    examples = real.examples(seed=5, n=12)
    assert len({example.inputs["x"].shape[2] for example in examples}) > 6
    assert wrong(device, real, examples, 4, width=640) == []
    assert real.model.work_of(examples[0].inputs) == examples[0].inputs["x"].shape[2]


def test_check_refuses_the_answer_to_another_question(device, real):
    examples = real.examples(seed=3, n=24)
    outputs = run_batch(device, real, examples)
    pairs = [
        (example, other)
        for example in examples
        for other, answered in zip(outputs, examples, strict=True)
        if repr(answered.expected) != repr(example.expected)
    ]
    assert pairs
    assert not any(real.check(example, other) for example, other in pairs)


def test_examples_follow_the_seed(real):
    def digest(seed):
        return [(e.expected, [v.tobytes() for v in e.inputs.values()]) for e in real.examples(seed, 12)]

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_int8_answers_are_right_too(real):
    device = infcore.OnnxDevice("int8", **onnx_arguments([real], int8=True))
    assert device.int8 == ((real.name,) if real.int8 else ())
    device.load(real.model)
    if not real.int8:
        device = infcore.OnnxDevice("int8", **{**onnx_arguments([real]), "int8": True})
        with pytest.raises(infcore.DeviceError, match=f"cannot quantise model '{real.name}'.*nothing to quantise"):
            device.load(real.model)
        return
    assert wrong(device, real, real.examples(seed=1, n=N_EXAMPLES[real.name] // 2), 8) == []


def test_a_voice_session_carries_its_state(device):
    if "silero_vad" in LEFT_OUT:
        pytest.skip(LEFT_OUT["silero_vad"])
    real = REAL["silero_vad"]
    for example in real.examples(seed=2, n=8):
        n_pieces = 0
        while example is not None:
            (outputs,) = run_batch(device, real, [example])
            assert real.check(example, outputs), example.about
            example, n_pieces = real.follow(example, outputs), n_pieces + 1
        assert n_pieces > 60
    with pytest.raises(infcore.InvalidArgument, match=r"sound has shape \(100,\).*at least 512"):
        real.pieces(np.zeros(100, np.float32))


def test_magika_features_give_the_packages_own_labels(device):
    if "magika" in LEFT_OUT:
        pytest.skip(LEFT_OUT["magika"])
    package = pytest.importorskip("magika", reason="the package magika cannot be imported here")
    from infcore.models.file_samples import samples

    real, theirs = REAL["magika"], package.Magika()
    files = [sample.data for sample in samples(seed=4, n=44)]
    files += [b" \n\t" * 500 + files[0] + b"\n \v\f" * 500, b"#!/bin/sh\necho hi\n", b"\0" * 9000, b"a" * 1025]
    for data in files:
        outputs = device.run("magika", {"bytes": real.features(data)[None]})
        assert real.labels[int(outputs["target_label"][0].argmax())] == theirs.identify_bytes(data).dl.label
    assert (real.features(b"")[:] == 256).all()
    with pytest.raises(infcore.InvalidType, match="data is str"):
        real.features("text")


def test_names():
    assert set(REAL) | set(LEFT_OUT) == set(names())
    with pytest.raises(infcore.UnknownName, match="no real model 'bert'; there are"):
        load("bert")


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    usable, left_out = available()
    assert usable == {}
    assert "pip install 'infcore[models]'" in left_out["magika"]
    monkeypatch.setattr("sys.version_info", (3, 13, 0, "final", 0))
    assert "rapidocr-onnxruntime wants Python < 3.13, and this is 3.13" in available()[1]["rapidocr_rec"]
