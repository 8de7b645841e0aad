"""TorchDevice in a real Engine on CPU PyTorch: a transformer's answers in each layout are those of each text alone."""

import re
import threading

import numpy as np
import pytest
from engine_rig import WAIT_S, wait_until

import infcore

torch = pytest.importorskip("torch", reason="the extra infcore[gpu] is not installed")
from ragged_transformer import RaggedTransformer, alone, text_model  # noqa: E402  (needs torch)

# float32 sums in another order: each layout blocks its matrices by its own shape.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
LENGTHS = [1, 7, 0, 33, 2, 64, 5, 5, 18, 0, 40, 3, 100, 9, 1, 27]


def texts(n, seed=0):
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 100, LENGTHS[i % len(LENGTHS)]) for i in range(n)]


def engine_of(device, *models, **options):
    return infcore.Engine([device], models, **{"batching": "greedy", **options})


def same(answer, expected):
    assert {name: held.shape for name, held in answer.items()} == {name: held.shape for name, held in expected.items()}
    for name, held in expected.items():
        assert answer[name].dtype == held.dtype
        np.testing.assert_allclose(answer[name], held, **CLOSE)


class Held:
    """A module that waits inside its first call until it is let go, so that requests gather meanwhile."""

    def __init__(self, module):
        self.module, self.entered, self.go = module, threading.Event(), threading.Event()
        self.batches = []

    def __call__(self, ids, batch, layout, mask, cu_seqlens, position_ids):
        self.batches.append(batch)
        self.entered.set()
        assert self.go.wait(WAIT_S), "the test never let this run go"
        return self.module(ids, layout=layout, mask=mask, cu_seqlens=cu_seqlens, position_ids=position_ids)


class Gate:
    """A module that waits until it may answer."""

    def __init__(self, event):
        self.event = event

    def __call__(self, x):
        assert self.event.wait(WAIT_S), "the test never let this run go"
        return x


WAYS = [("padded", "segments"), *((takes, p) for takes in ("packed", "both") for p in ("segments", "block_diagonal"))]


@pytest.mark.parametrize(("takes", "packed"), WAYS)
def test_answers_are_those_of_each_text_alone(takes, packed):
    module = RaggedTransformer(packed=packed).eval()
    held = Held(module)
    device = infcore.TorchDevice("torch0", {"text": held}, takes={"text": takes})
    with engine_of(device, text_model()) as engine:
        asked = texts(160)
        first = engine.submit("text", {"ids": asked[0]})
        assert held.entered.wait(WAIT_S)
        futures = [first, *(engine.submit("text", {"ids": ids}) for ids in asked[1:])]
        held.go.set()
        for ids, future in zip(asked, futures, strict=True):
            same(future.result(timeout_s=WAIT_S), alone(module, ids))
        figures = device.layouts()["text"]
    assert set(figures) == {"padded", "packed"} & {"both": {"padded", "packed"}}.get(takes, {takes})
    assert all(of.n_batches >= 2 and of.n_observed >= 1 and of.measured_s > 0 for of in figures.values())
    assert sum(of.n_grouped for of in figures.values()) >= 1  # one batch at least was split, and came back in order
    assert max(batch.n_requests for batch in held.batches) == 16
    assert device.layouts() == {}  # unloaded


def test_asyncio_callers_get_the_same():
    import asyncio

    module = RaggedTransformer().eval()

    async def ask():
        device = infcore.TorchDevice("torch0", {"text": module}, takes={"text": "both"})
        async with engine_of(device, text_model(), batching="dynamic") as engine:
            return await asyncio.gather(*(engine.asubmit("text", {"ids": ids}) for ids in texts(64)))

    for answer, ids in zip(asyncio.run(ask()), texts(64), strict=True):
        same(answer, alone(module, ids))


def test_what_is_packed_and_what_is_told():
    """Two ragged inputs of unlike lengths, a fixed one, one that is ragged elsewhere."""
    model = infcore.Model(
        "m",
        {"a": ("float32", (None, 2)), "b": ("int32", (None,)), "c": ("uint8", (3,)), "d": ("float64", (2, None))},
        {"sums": ("float32", (None,)), "n": ("int64", ())},
        pad_value={"a": -1.0, "d": 7.0},
    )
    seen = []

    def module(a, b, c, d, batch, layout, mask, cu_seqlens, max_seqlen, position_ids):
        seen.append((a, b, c, d, batch, layout, mask, cu_seqlens, max_seqlen, position_ids))
        lengths = torch.from_numpy(batch.ragged["b"].lengths)
        return {"sums": a.sum(-1), "n": lengths + c.sum(1, dtype=torch.int64) + d.shape[2]}

    draw = np.random.default_rng(1)
    asked = [
        {
            "a": draw.random((la, 2), np.float32),
            "b": np.arange(lb, dtype=np.int32),
            "c": np.full(3, i, np.uint8),
            "d": draw.random((2, ld)),
        }
        for i, (la, lb, ld) in enumerate([(3, 1, 2), (0, 4, 5), (5, 0, 1)])
    ]
    for layout in ("padded", "packed"):
        gate = threading.Event()
        models = {"m": module, "gate": Gate(gate)}
        blocker = infcore.Model("gate", {"x": ("float32", (1,))}, {"y": ("float32", (1,))})
        with engine_of(infcore.TorchDevice("d", models, takes={"m": layout}), model, blocker) as engine:
            waits = engine.submit("gate", {"x": np.zeros(1, np.float32)})
            wait_until(lambda engine=engine: engine.fleet.nodes()["inflight"][0] == 1, "the first run to begin")
            futures = [engine.submit("m", inputs) for inputs in asked]
            gate.set()
            waits.result(timeout_s=WAIT_S)
            answers = [future.result(timeout_s=WAIT_S) for future in futures]
        for answer, inputs in zip(answers, asked, strict=True):
            np.testing.assert_array_equal(answer["sums"], inputs["a"].sum(-1))
            assert answer["n"] == len(inputs["b"]) + 3 * inputs["c"][0] + 5
    (padded, packed) = seen
    a, b, c, d, batch, layout, mask, cu_seqlens, max_seqlen, position_ids = padded
    assert (layout, batch.layout, batch.n_requests, max_seqlen, position_ids) == ("padded", "padded", 3, 5, None)
    assert (
        a.shape == (3, 5, 2) and a[1].eq(-1).all() and b.shape == (3, 4) and c.shape == (3, 3) and d.shape == (3, 2, 5)
    )
    assert d[2, :, 1:].eq(7.0).all() and d.dtype == torch.float64 and b.dtype == torch.int32
    assert mask.tolist() == [[True] * 3 + [False] * 2, [False] * 5, [True] * 5]
    assert batch.ragged["b"].mask.sum(1).tolist() == [1, 4, 0] and batch.ragged["b"].max_seqlen == 4
    assert cu_seqlens.dtype == torch.int32 and cu_seqlens.tolist() == [0, 3, 3, 8]
    a, b, c, d, batch, layout, mask, cu_seqlens, max_seqlen, position_ids = packed
    assert (layout, max_seqlen, mask) == ("packed", 5, None)
    assert a.shape == (8, 2) and b.tolist() == [0, 0, 1, 2, 3] and c.shape == (3, 3) and d.shape == (3, 2, 5)
    assert position_ids.tolist() == [0, 1, 2, 0, 1, 2, 3, 4] and cu_seqlens.tolist() == [0, 3, 3, 8]
    assert batch.ragged["b"].cu_seqlens.tolist() == [0, 1, 5, 5] and batch.ragged["b"].position_ids.dtype == torch.int32


def test_the_example_of_the_class_runs():
    example = re.search(r"( {8}class Tagger.*?)\n\n {4}An output", infcore.TorchDevice.__doc__, re.S).group(1)
    names = {"torch": torch, "infcore": infcore}
    exec(compile(re.sub(r"^ {8}", "", example, flags=re.M), "TorchDevice", "exec"), names)
    device, tagger = names["device"], names["tagger"]
    with engine_of(device, tagger) as engine:
        for ids in texts(20):
            tags = engine.submit("tagger", {"ids": ids}).result(timeout_s=WAIT_S)["tags"]
            with torch.inference_mode():
                expected = device._held["tagger"].module({"ids": torch.from_numpy(ids)}, {}).numpy()
            np.testing.assert_allclose(tags, expected, **CLOSE)


@pytest.mark.parametrize(
    ("module", "output", "expected"),
    [
        (lambda x: torch.conj(x), "complex64", [1 - 2j, 3 + 4j]),
        (lambda x: torch.conj(x).imag, "float32", [-2, 4]),
    ],
)
def test_what_pytorch_puts_off_is_done_before_answers_leave(module, output, expected):
    """A conjugate is a bit of the tensor, and so is the sign of its imaginary part."""
    model = infcore.Model("m", {"x": ("complex64", (2,))}, {"y": (output, (2,))})
    device = infcore.TorchDevice("d", {"m": module})
    device.load(model)
    assert device.run("m", {"x": np.array([[1 + 2j, 3 - 4j]], np.complex64)})["y"].tolist() == [expected]
