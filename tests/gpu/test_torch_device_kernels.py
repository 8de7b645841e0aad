"""TorchDevice by the very kernels, in Triton's interpreter: the tensors that the CPU's packer gives, and an engine."""

import threading

import numpy as np
import pytest
from engine_rig import WAIT_S
from gpu import interpreter

import infcore

torch = interpreter.require()
from ragged_transformer import RaggedTransformer, alone, text_model  # noqa: E402  (needs torch)

from infcore._layout_choice import Plan  # noqa: E402
from infcore._torch_batch import HostRegion, KernelRegion, stage_arrays, tables_ahead  # noqa: E402
from infcore.device import DenseInput, StagedBatch  # noqa: E402
from infcore.kernels.pack import launch  # noqa: E402
from infcore.kernels.staging import stage, staged_bytes  # noqa: E402

LENGTHS = [3, 0, 17, 1, 9]
GROUPS = [[1], [3, 0], [4, 2]]


def batch_of(model, dtype, trailing):
    """Two ragged inputs of unlike lengths and a fixed one, staged as an engine does, from byte 64 on."""
    draw = np.random.default_rng(4)
    moved = {"float64": "int64", "complex64": "int64", "bool": "uint8", "int16": "float16"}.get(dtype, dtype)
    rows = [draw.integers(0, 2, (n, *trailing)).astype(dtype) for n in LENGTHS]
    ids = [np.arange(n, dtype=np.int64) for n in LENGTHS[::-1]]
    k = draw.random((len(rows), 3))
    at_ids = 64 + -(-staged_bytes(LENGTHS, rows[0][:1].nbytes or rows[0].itemsize) // 64) * 64
    at_k = at_ids + -(-staged_bytes(LENGTHS[::-1], 8) // 64) * 64
    memory = np.full(at_k + k.nbytes, 0xA5, np.uint8)
    staged = {
        "x": stage([row.view(moved) for row in rows], memory, 64)._replace(dtype=dtype),
        "ids": stage(ids, memory, at_ids),
        "k": DenseInput(at_k, k.shape, "float64"),
    }
    memory[at_k:] = k.reshape(-1).view(np.uint8)
    return StagedBatch(memory, staged, np.array(LENGTHS, np.float64))


def alike(found, expected):
    (data, ragged), (expected_data, expected_ragged) = found, expected
    assert data.dtype == expected_data.dtype and torch.equal(data, expected_data)
    assert ragged.lengths.tolist() == expected_ragged.lengths.tolist()
    assert ragged.max_seqlen == expected_ragged.max_seqlen
    for field in ("cu_seqlens", "position_ids", "mask"):
        ours, theirs = getattr(ragged, field), getattr(expected_ragged, field)
        assert (ours is None) == (theirs is None), field
        assert ours is None or (ours.dtype == theirs.dtype and torch.equal(ours, theirs)), field


CASES = [
    ("float32", (4,), torch.bfloat16),
    ("float64", (), torch.float16),
    ("bool", (3,), None),
    ("int16", (), None),
    ("complex64", (), None),
]
LOWEST = {"int16": -32768}  # as float16, whose bits the kernels move, it is -0.0


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["whole", "groups"])
@pytest.mark.parametrize(("dtype", "trailing", "cast"), CASES)
def test_kernels_pack_what_the_cpu_packs(dtype, trailing, cast, groups):
    model = infcore.Model(
        "m",
        {"x": (dtype, (None, *trailing)), "ids": ("int64", (None,)), "k": ("float64", (3,))},
        {"y": ("float32", ())},
        pad_value={"x": LOWEST.get(dtype, 1), "ids": -7},
    )
    x, ids, _ = model.inputs
    batch = batch_of(model, dtype, trailing)
    ahead = tables_ahead(batch, groups or [])
    assert len(ahead) % 64 == 0 and (len(ahead) > 0) == (groups is not None)
    memory = torch.from_numpy(np.concatenate([ahead, batch.memory]))
    by_kernels, by_cpu = KernelRegion(torch, batch, memory, len(ahead), groups), HostRegion(torch, batch)
    for group in groups or [None]:
        for layout in ("padded", "packed"):
            for spec, to in ((x, cast), (ids, None)):
                arguments = (batch.inputs[spec.name], spec, layout, to, group)
                alike(by_kernels.ragged(*arguments), by_cpu.ragged(*arguments))
        assert torch.equal(
            by_kernels.dense(batch.inputs["k"], cast, group), by_cpu.dense(batch.inputs["k"], cast, group)
        )


class Interpreted(infcore.TorchDevice):
    interprets_kernels = True


class Held:
    """A module that waits inside its first call until it is let go, so that requests gather meanwhile."""

    def __init__(self, module):
        self.module, self.entered, self.go = module, threading.Event(), threading.Event()

    def __call__(self, ids, layout, mask, cu_seqlens, position_ids):
        self.entered.set()
        assert self.go.wait(WAIT_S), "the test never let this run go"
        return self.module(ids, layout=layout, mask=mask, cu_seqlens=cu_seqlens, position_ids=position_ids)


def test_an_engine_through_the_kernels(monkeypatch):
    calls = []

    def counted(name):
        real = getattr(launch, name)

        def call(*arguments, **named):
            calls.append((name, named["layout"]))
            return real(*arguments, **named)

        monkeypatch.setattr(launch, name, call)

    counted("pack")
    counted("unpack")
    module = RaggedTransformer().eval()
    held = Held(module)
    device = Interpreted("torch0", {"text": held}, takes={"text": "both"})
    draw = np.random.default_rng(2)
    asked = [draw.integers(0, 100, n) for n in [5, 1, 0, 12, 3, 2, 30] * 6]
    with infcore.Engine([device], [text_model(max_batch_size=8)], batching="greedy") as engine:
        first = engine.submit("text", {"ids": asked[0]})
        assert held.entered.wait(WAIT_S)
        futures = [first, *(engine.submit("text", {"ids": ids}) for ids in asked[1:])]
        held.go.set()
        for ids, future in zip(asked, futures, strict=True):
            answer, expected = future.result(timeout_s=WAIT_S), alone(module, ids)
            for name, array in expected.items():
                assert answer[name].shape == array.shape and answer[name].dtype == array.dtype
                np.testing.assert_allclose(answer[name], array, rtol=1e-4, atol=1e-5)
        assert sum(of.n_grouped for of in device.layouts()["text"].values()) >= 1
    assert {("pack", "padded"), ("pack", "packed"), ("unpack", "padded")} <= set(calls)


def test_the_copy_to_the_device_is_shared_out_among_groups_by_work(monkeypatch):
    class Ticks:
        """Time passes from one look at the clock to the next."""

        time_s = 0.0

        def now_s(self):
            self.time_s += 1.0
            return self.time_s

    model = infcore.Model("m", {"x": ("float32", (None,))}, {"y": ("float32", ())})
    device = Interpreted("d", {"m": lambda x: x.sum(1)}, clock=Ticks())
    device.load(model)
    choice, learned = device._held["m"].choice, []
    monkeypatch.setattr(choice, "plan", lambda works: Plan("padded", [[0], [2, 1]], None, "predicted"))
    monkeypatch.setattr(choice, "learn", lambda plan, works, seconds: learned.append((list(map(list, works)), seconds)))
    rows = [np.ones(n, np.float32) for n in (1, 5, 2)]
    memory = np.empty(staged_bytes([1, 5, 2], 4), np.uint8)
    outputs = device.run_staged("m", StagedBatch(memory, {"x": stage(rows, memory)}, np.ones(3)))
    assert [float(y) for y in outputs["y"]] == [1, 5, 2]
    assert learned == [([[1], [2, 5]], [1 + 1 / 8, 1 + 7 / 8])]


def test_answers_in_another_dtype_leave_by_the_kernels_too():
    model = infcore.Model("m", {"x": ("float32", (None, 2))}, {"y": ("float32", (None, 2)), "z": ("bool", (None,))})

    def module(x):
        return {"y": x.bfloat16(), "z": x[..., 0] > 0.5}

    x, answers = np.random.default_rng(1).random((3, 4, 2), np.float32), []
    for kind in (Interpreted, infcore.TorchDevice):
        device = kind("d", {"m": module})
        device.load(model)
        answers.append(device.run_staged("m", stage_arrays(model, {"x": x})))
    for name in ("y", "z"):
        for ours, theirs in zip(answers[0][name], answers[1][name], strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("takes", ["padded", "packed"])
def test_rows_without_a_step_go_through(takes):
    model = infcore.Model("m", {"x": ("float32", (None, 2))}, {"y": ("float32", (None, 2)), "n": ("int64", ())})
    device = Interpreted(
        "d", {"m": lambda x, batch: {"y": x, "n": torch.from_numpy(batch.first.lengths)}}, takes={"m": takes}
    )
    device.load(model)
    for lengths in ([0], [0, 0, 0], [0, 2, 0], [0, 2, 0], [0, 2, 0]):
        rows = [np.ones((n, 2), np.float32) for n in lengths]
        memory = np.empty(staged_bytes(lengths, 8), np.uint8)
        outputs = device.run_staged("m", StagedBatch(memory, {"x": stage(rows, memory)}, np.array(lengths, np.float64)))
        assert [row.shape for row in outputs["y"]] == [(n, 2) for n in lengths]
        assert [int(n) for n in outputs["n"]] == lengths
