"""What a TorchDevice refuses, what it says of modules that fail or answer wrongly, and that it goes on."""

import gc
import os
import sys
import threading
import weakref

import numpy as np
import pytest
from engine_rig import WAIT_S, wait_until

import infcore
from infcore import _torch_module
from infcore._torch_batch import stage_arrays

torch = pytest.importorskip("torch", reason="the extra infcore[gpu] is not installed")

MODEL = infcore.Model("m", {"x": ("float32", (None,))}, {"y": ("float32", (None,))}, work="x", max_batch_size=4)


def x_of(*values):
    return {"x": np.array(values, np.float32)}


def loaded(module, model=MODEL, **options):
    device = infcore.TorchDevice("d", {model.name: module}, **options)
    device.load(model)
    return device


def picky(x):
    """Fails on a batch with a negative number in it."""
    if (x < 0).any():
        raise ValueError("a negative number")
    return x * 2


def test_a_module_that_raises_fails_the_one_that_made_it_raise():
    with infcore.Engine([infcore.TorchDevice("d", {"m": picky})], [MODEL]) as engine:
        futures = [engine.submit("m", x_of(*row)) for row in ([1.0], [2.0, 3.0], [-1.0], [4.0])]
        assert [futures[i].result(timeout_s=WAIT_S)["y"].tolist() for i in (0, 1, 3)] == [[2.0], [4.0, 6.0], [8.0]]
        with pytest.raises(infcore.DeviceError, match="device 'd', model 'm': ValueError: a negative number") as caught:
            futures[2].result(timeout_s=WAIT_S)
        assert isinstance(caught.value.__cause__, ValueError)
        assert engine.submit("m", x_of(5.0)).result(timeout_s=WAIT_S)["y"].tolist() == [10.0]


def test_cancelled_requests_are_not_run_and_the_others_answered():
    seen, gate, entered = [], threading.Event(), threading.Event()

    def module(x, batch):
        seen.append(batch.n_requests)
        entered.set()
        assert gate.wait(WAIT_S)
        return x

    with infcore.Engine([infcore.TorchDevice("d", {"m": module})], [MODEL]) as engine:
        running = engine.submit("m", x_of(1.0))
        assert entered.wait(WAIT_S)
        waiting = [engine.submit("m", x_of(float(i))) for i in range(3)]
        assert waiting[1].cancel() and running.cancel()
        gate.set()
        assert [waiting[i].result(timeout_s=WAIT_S)["y"].tolist() for i in (0, 2)] == [[0.0], [2.0]]
        for future in (waiting[1], running):
            with pytest.raises(infcore.Cancelled):
                future.result(timeout_s=WAIT_S)
        wait_until(lambda: engine.n_open == 0, "every request to end")
    assert seen == [1, 2]


def test_memory_that_cannot_be_had_is_an_error_of_that_batch_alone():
    def module(x):
        return torch.empty(2**46) if (x > 5).any() else x

    device = loaded(module)
    with infcore.Engine([infcore.TorchDevice("d", {"m": module})], [MODEL]) as engine:
        futures = [engine.submit("m", x_of(value)) for value in (1.0, 9.0, 2.0)]
        with pytest.raises(infcore.DeviceError, match=r"'d', model 'm'.*allocate"):
            futures[1].result(timeout_s=WAIT_S)
        assert [futures[i].result(timeout_s=WAIT_S)["y"].tolist() for i in (0, 2)] == [[1.0], [2.0]]

    def gpu_like(x):
        raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB")

    device = loaded(gpu_like)
    with pytest.raises(
        infcore.DeviceError, match="'d', model 'm': a batch of 3, padded, does not fit into the memory of cpu: Tried"
    ):
        device.run("m", {"x": np.ones((3, 4), np.float32)})


def test_an_error_that_is_kept_keeps_no_memory_of_the_batch():
    device = loaded(picky)
    batch = stage_arrays(MODEL, {"x": np.full((2, 3), -1.0, np.float32)})
    memory = weakref.ref(batch.memory)
    with pytest.raises(ValueError, match="a negative number") as caught:
        device.run_staged("m", batch)
    del batch
    gc.collect()
    assert memory() is None and caught.value.__traceback__ is not None


def test_whatever_is_raised_copies_under_way_are_waited_for(monkeypatch):
    """SystemExit, too: the engine goes on, and writes the next batch to the memory that is still being copied."""

    def leaves(x):
        raise SystemExit(3)

    device, waits = loaded(leaves), []
    answers_still = device._place.answers_still
    monkeypatch.setattr(device._place, "answers_still", lambda: waits.append(1) or answers_still())
    with pytest.raises(SystemExit):
        device.run("m", {"x": np.ones((3, 4), np.float32)})
    assert waits == [1]


BATCH = infcore.Model("m", {"x": ("float32", (None,)), "k": ("float32", (3,))}, {"y": ("float32", (3,))})
K = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("x", "k", "words"),
    [
        (
            np.ones((2, 4)),
            K,
            r"inputs\['x'\] of model 'm' is float64 of shape \(2, 4\); allowed: float32 of shape \(n, any",
        ),
        (
            np.float32(1),
            K,
            r"inputs\['x'\] of model 'm' is float32 of shape \(\); allowed: float32 of shape \(n, any\)",
        ),
        (K, np.ones((2, 5), np.float32), r"inputs\['k'\] .* of shape \(2, 5\); allowed: float32 of shape \(n, 3\)"),
        (K, K[:1], r"inputs\['k'\] .* has shape \(1, 3\); allowed: at least one row, as many as inputs\['x'\]"),
        (K[:0], K[:0], r"inputs\['x'\] .* has shape \(0, 3\); allowed: at least one row"),
    ],
)
def test_batches_that_are_refused(x, k, words):
    device = loaded(lambda x, k: k, BATCH)
    with pytest.raises(infcore.InvalidArgument, match=words):
        device.run("m", {"x": x, "k": k})


PER_ROW = infcore.Model("m", {"x": ("float32", (None,))}, {"y": ("float32", (2,))})
TWO = infcore.Model("m", {"x": ("float32", (None,))}, {"y": ("float32", (None,)), "z": ("int64", ())})
SQUARE = infcore.Model("m", {"x": ("float32", (None,))}, {"y": ("float32", (None, None))})


@pytest.mark.parametrize(
    ("model", "module", "words"),
    [
        (MODEL, lambda x: None, "output 'y' is NoneType; allowed: a dense tensor"),
        (MODEL, lambda x: x.numpy(), "output 'y' is ndarray; allowed: a dense tensor"),
        (MODEL, lambda x: x.to_sparse(), "output 'y' is Tensor; allowed: a dense tensor"),
        (MODEL, lambda x: {"z": x}, r"the module returned \['z'\]; it lacks the output 'y'"),
        (TWO, lambda x: x, r"the module returned Tensor; allowed: a mapping with the outputs \['y', 'z'\]"),
        (MODEL, lambda x: x.long(), "output 'y' is int64; allowed: float32, or any float"),
        (TWO, lambda x: {"y": x, "z": x.sum(1)}, "output 'z' is float32; allowed: int64$"),
        (TWO, lambda x: {"y": x, "z": x.sum(1).int()}, "output 'z' is int32; allowed: int64$"),
        (MODEL, lambda x: x[:, :-1], r"output 'y' has shape \(3, 4\); allowed: \(3, 5\) in the padded layout"),
        (MODEL, lambda x: x[:2], r"output 'y' has shape \(2, 5\); allowed: \(3, 5\)"),
        (MODEL, lambda x: x.flatten(), r"output 'y' has shape \(15,\); allowed: \(3, 5\)"),
        (PER_ROW, lambda x: x, r"output 'y' has shape \(3, 5\); allowed: \(3, 2\)"),
        (MODEL, lambda x: list(x)[:2], "output 'y' is 2 tensors; allowed: one per request, 3"),
        (MODEL, lambda x: [x, x, x], r"output 'y'\[0\] has shape \(3, 5\); allowed: \(None,\)"),
        (MODEL, lambda x: [1.0, 2.0, 3.0], r"output 'y'\[0\] is float; allowed: a dense tensor"),
        (SQUARE, lambda x: x[:, None] * x[:, :, None], r"output 'y' is one tensor; allowed: a list of one per request"),
    ],
)
def test_says_what_is_wrong_with_an_answer(model, module, words):
    device = loaded(module, model)
    for _ in range(2):  # the device goes on
        with pytest.raises(infcore.DeviceError, match=f"device 'd', model 'm': .*{words}"):
            device.run("m", {"x": np.ones((3, 5), np.float32)})


def test_a_wrong_answer_in_the_packed_layout_is_told_in_its_terms():
    device = loaded(lambda x: x[1:], takes={"m": "packed"})
    with pytest.raises(infcore.DeviceError, match=r"has shape \(14,\); allowed: \(15,\) in the packed layout"):
        device.run("m", {"x": np.ones((3, 5), np.float32)})


def test_answers_of_lengths_of_their_own_are_lists_or_nested():
    for module in (
        lambda x: [row[:2] for row in x],
        lambda x: tuple(row[:2] for row in x),
        lambda x: torch.nested.nested_tensor([row[:2] for row in x], layout=torch.jagged),
    ):
        assert loaded(module).run("m", {"x": np.ones((3, 5), np.float32)})["y"].shape == (3, 2)
    outer = loaded(lambda x: [row[:, None] * row for row in x], SQUARE).run("m", {"x": np.full((2, 3), 2, np.float32)})
    assert outer["y"].shape == (2, 3, 3) and (outer["y"] == 4).all()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"models": {}}, infcore.InvalidArgument, "models is empty"),
        ({"models": [picky]}, infcore.InvalidType, "models is list"),
        ({"models": {"m": 3}}, infcore.InvalidType, r"models\['m'\] is int; allowed: an nn.Module, a callable, or"),
        ({"models": {"m": "/no/such.pt2"}}, infcore.InvalidArgument, r"models\['m'\] is '/no/such.pt2'"),
        ({"device": "tpu"}, infcore.InvalidArgument, "device is 'tpu'; allowed: 'cpu', 'cuda', 'cuda:N'"),
        ({"device": "meta"}, infcore.InvalidArgument, "device is 'meta'"),
        ({"device": "cuda:99"}, infcore.InvalidArgument, "device is 'cuda:99'; PyTorch sees . CUDA devices here"),
        ({"device": 0}, infcore.InvalidType, "device is int"),
        ({"takes": {"m": "ragged"}}, infcore.InvalidArgument, r"takes\['m'\] is 'ragged'; allowed: 'padded', 'packed'"),
        ({"takes": {"z": "packed"}}, infcore.UnknownName, r"takes names 'z'; device 'd' has \['m'\]"),
        ({"takes": "both"}, infcore.InvalidType, "takes is str"),
        ({"dtype": "int8"}, infcore.InvalidArgument, r"dtype\['m'\] is 'int8'; allowed: 'float32', 'float16'"),
        ({"dtype": {"z": "float16"}}, infcore.UnknownName, "dtype names 'z'"),
        ({"dtype": 16}, infcore.InvalidType, "dtype is int"),
        ({"grouping": 1}, infcore.InvalidType, "grouping is int"),
        ({"threads": 0}, infcore.InvalidArgument, "threads is 0"),
        ({"clock": 3.0}, infcore.InvalidType, "clock is float; allowed: None or an object with now_s"),
        ({"batch_axis": {"x": 1}}, infcore.InvalidArgument, "batch_axis is {'x': 1}; allowed: none"),
        ({"slots": 0}, infcore.InvalidArgument, "slots is 0"),
    ],
)
def test_refuses(options, error, words):
    with pytest.raises(error, match=words):
        infcore.TorchDevice(**{"name": "d", "models": {"m": picky}, **options})


def other(**changes):
    return MODEL.replace(**changes)


@pytest.mark.parametrize(
    ("module", "model", "options", "error", "words"),
    [
        (
            lambda ids: ids,
            MODEL,
            {},
            infcore.InvalidArgument,
            r"no argument for the input 'x'; its forward takes \['ids'\]",
        ),
        (lambda x, w: x, MODEL, {}, infcore.InvalidArgument, r"also wants 'w'; its forward takes \['x', 'w'\]"),
        (lambda x, /: x, MODEL, {}, infcore.InvalidArgument, "no argument for the input 'x'"),
        (torch.relu, MODEL, {}, infcore.InvalidType, "arguments cannot be seen"),
        (
            lambda mask: mask,
            infcore.Model("m", {"mask": ("float32", (2,))}, {"y": ("float32", (2,))}),
            {},
            infcore.InvalidArgument,
            r"an input is called 'mask'; allowed: any name but \('batch', 'layout'",
        ),
        (
            lambda x: x,
            other(inputs={"x": ("float32", (4,))}),
            {"takes": {"m": "both"}},
            infcore.InvalidArgument,
            r"takes\['m'\] is 'both'; allowed: 'padded', since no input is ragged in its first axis alone",
        ),
        (
            lambda x: x,
            other(inputs={"x": ("complex128", (None,))}),
            {},
            infcore.InvalidArgument,
            "'x' is complex128, ragged",
        ),
        (
            lambda x: x,
            other(inputs={"x": ("longdouble", (2,))}),
            {},
            infcore.InvalidArgument,
            "a dtype that PyTorch has",
        ),
        (
            lambda x: x,
            other(inputs={"x": ("int16", (None,))}, pad_value={"x": -1}),
            {},
            infcore.InvalidArgument,
            "pad_value of 'x' is -1; allowed for int16: a value whose bits are no NaN of float16",
        ),
        (
            lambda x: x,
            other(pad_value={"x": 1e6}),
            {"dtype": "float16"},
            infcore.InvalidArgument,
            "pad_value of 'x' is 1000000.0; allowed: a number that torch.float16 holds",
        ),
    ],
)
def test_load_names_what_does_not_fit(module, model, options, error, words):
    device = infcore.TorchDevice("d", {"m": module}, **options)
    with pytest.raises(error, match=words):
        device.load(model)
    with pytest.raises(infcore.UnknownName, match="not loaded"):
        device.run("m", {"x": np.ones((1, 2), np.float32)})


def test_without_pytorch_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(infcore.MissingExtra, match=r"'torch'.*infcore\[gpu\]"):
        infcore.TorchDevice("d", {"m": picky})


def test_modules_are_evaluated_moved_and_shared():
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
    model = infcore.Model("m", {"input": ("float32", (4,))}, {"y": ("float32", (4,))})
    devices = [loaded(module, model) for _ in range(2)]
    assert not module.training
    x = np.ones((3, 4), np.float32)
    first, second = (device.run("m", {"input": x})["y"] for device in devices)
    np.testing.assert_array_equal(first, second)
    assert devices[0].device == "cpu" and devices[0].kind == "cpu" and devices[0].staging_memory(64).nbytes == 64
    devices[0].close()
    np.testing.assert_array_equal(devices[1].run("m", {"input": x})["y"], first)


def test_a_module_that_lies_elsewhere_is_copied():
    """The only other device that every build of PyTorch has is "meta", whose tensors have no data."""
    given = torch.nn.Linear(4, 4).train()
    taken = _torch_module._placed(torch, given, torch.device("meta"))
    assert taken.weight.is_meta and not taken.training
    assert not given.weight.is_meta and given.training
    assert _torch_module._placed(torch, given, torch.device("cpu")) is given and not given.training


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_of_a_run(threads):
    seen = []
    device = loaded(lambda x: (seen.append(torch.get_num_threads()), x)[1], threads=threads)
    runner = threading.Thread(target=device.run, args=("m", {"x": np.ones((1, 2), np.float32)}))
    runner.start()
    runner.join()
    assert seen == [threads]


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor):
        return {"y": torch.where(mask, x * 2, -1.0)}


@pytest.fixture(scope="module", params=["script.pt", "exported.pt2", "exported_by_name.pt2"])
def file(request, tmp_path_factory):
    path = os.fspath(tmp_path_factory.mktemp("modules") / request.param)
    if request.param == "script.pt":
        with pytest.warns(DeprecationWarning, match="deprecated"):
            torch.jit.save(torch.jit.script(Doubled()), path)
        return path
    example = {"x": torch.ones(3, 5), "mask": torch.ones(3, 5, dtype=torch.bool)}
    by_name = "by_name" in request.param
    any_shape = dict.fromkeys(example, (torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC))
    program = torch.export.export(
        Doubled(), () if by_name else tuple(example.values()), example if by_name else {}, dynamic_shapes=any_shape
    )
    torch.export.save(program, path)
    return path


def test_files_run(file):
    device = loaded(file)
    with infcore.Engine([device], [MODEL]) as engine:
        rows = [np.arange(n, dtype=np.float32) for n in (2, 5, 3, 4)]
        for row, future in [(row, engine.submit("m", {"x": row})) for row in rows]:
            np.testing.assert_array_equal(future.result(timeout_s=WAIT_S)["y"], 2 * row)


def test_files_that_are_none(tmp_path):
    for name in ("none.pt", "none.pt2"):
        (tmp_path / name).write_bytes(b"not a module")
        with pytest.raises(infcore.DeviceError, match=f"device 'd', model 'm': cannot open .*{name}"):
            loaded(tmp_path / name)
