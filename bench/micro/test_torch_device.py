"""What packing and length grouping gain on 32 ragged texts: a transformer of random weights, one thread of the CPU.

    pytest bench/micro/test_torch_device.py
Every way runs on a TorchDevice that has explored first, and its answers are checked against each text alone. The ways
alternate round by round, so that a slower minute of the machine slows them all; a row's ratios are to "padded".
Without --benchmark-disable the transformer is of MiniLM's size (6 blocks of 384); with it, a small one, once.
"""

import time

import numpy as np
import pytest
from staged_batches import staged

import infcore

torch = pytest.importorskip("torch", reason="the extra infcore[gpu] is not installed")
from ragged_transformer import RaggedTransformer, alone, text_model  # noqa: E402  (needs torch)

N_TEXTS = 32
N_EXPLORED = 8  # batches of other texts before
N_ROUNDS = 5
# name -> takes, grouping
WAYS = {
    "padded": ("padded", False),
    "one by one": ("padded", False),
    "padded in groups": ("padded", True),
    "packed": ("packed", False),
    "packed or padded, in groups": ("both", True),
}


def texts(seed):
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 100, int(n)) for n in draw.lognormal(4.2, 0.9, N_TEXTS).clip(4, 500)]


def batches(way, rows):
    return [staged([row], name="ids") for row in rows] if way == "one by one" else [staged(rows, name="ids")]


def run(device, way, rows):
    """Seconds, and the answers in order."""
    held = batches(way, rows)
    begin_s = time.perf_counter()
    parts = [device.run_staged("text", batch) for batch in held]
    took_s = time.perf_counter() - begin_s
    return took_s, {name: [row for part in parts for row in part[name]] for name in parts[0]}


def test_32_ragged_texts(benchmark):
    small = {} if benchmark.disabled else {"width": 384, "n_heads": 12, "n_blocks": 6}
    module = RaggedTransformer(**small).eval()
    devices = {}
    for way, (takes, grouping) in WAYS.items():
        devices[way] = infcore.TorchDevice("cpu0", {"text": module}, takes={"text": takes}, grouping=grouping)
        devices[way].load(text_model(width=small.get("width", 32), max_batch_size=N_TEXTS))
        for seed in range(1 if way == "one by one" or benchmark.disabled else N_EXPLORED):
            run(devices[way], way, texts(1 + seed))
    rows = texts(0)
    expected = [alone(module, row) for row in rows]
    times = {way: [] for way in WAYS}

    def every_way():
        for way, device in devices.items():
            took_s, answers = run(device, way, rows)
            times[way].append(took_s)
            for name in ("tags", "vector"):
                for found, text in zip(answers[name], expected, strict=True):
                    np.testing.assert_allclose(found, text[name], rtol=1e-3, atol=1e-4)

    benchmark.pedantic(every_way, rounds=N_ROUNDS, iterations=1)
    medians = {way: float(np.median(of)) for way, of in times.items()}
    lengths = [len(row) for row in rows]
    n_rounds = len(times["padded"])
    print(f"\n32 texts of {min(lengths)} to {max(lengths)} steps, {sum(lengths)} in all, medians of {n_rounds}:")
    for way, median_s in medians.items():
        ratio = median_s / medians["padded"]
        benchmark.extra_info[way] = {"median_s": median_s, "of_padded": ratio}
        figures = devices[way].layouts()["text"]
        ran = ", ".join(f"{layout} {of.n_batches} ({of.n_grouped} in groups)" for layout, of in figures.items())
        print(f"{way:30} {1e3 * median_s:8.1f} ms   {ratio:5.2f} of padded   ran {ran}")
    if not benchmark.disabled:  # measured: .33 and .30; the bound leaves room for a busy machine
        assert medians["padded in groups"] < 0.8 * medians["padded"]
        assert medians["packed or padded, in groups"] < 0.8 * medians["padded"]
