"""Whatever the lengths, every request gets its own rows back in its own place, in every layout and grouping."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from staged_batches import staged

import infcore

torch = pytest.importorskip("torch", reason="the extra infcore[gpu] is not installed")

MODEL = infcore.Model(
    "m",
    {"x": ("float32", (None,)), "k": ("int32", (2,))},
    {"y": ("float32", (None,)), "total": ("float32", ()), "k": ("int32", (2,))},
    work="x",
    pad_value={"x": 1e6},  # padding that gets into an answer shows
)


class Summing:
    """y doubles each step, total sums each row; runs take what a curve of the layout says."""

    def __init__(self, clock):
        self.clock = clock

    def __call__(self, x, k, batch, mask, cu_seqlens):
        lengths = batch.ragged["x"].lengths
        if batch.layout == "padded":
            self.clock.advance(1e-3 + 1e-5 * lengths.max() * len(lengths))
            total = torch.where(mask, x, 0.0).sum(1)
        else:
            self.clock.advance(1e-3 + 2e-5 * lengths.sum())
            row = torch.repeat_interleave(torch.arange(len(lengths)), cu_seqlens.diff().long())
            total = torch.zeros(len(lengths)).index_add(0, row, x)
        return {"y": 2 * x, "total": total, "k": k}


def check(device, lengths, seed):
    draw = np.random.default_rng(seed)
    # Small integers: their sums are exact in any order.
    rows = [draw.integers(-8, 9, n).astype(np.float32) for n in lengths]
    k = draw.integers(0, 1000, (len(rows), 2)).astype(np.int32)
    outputs = device.run_staged("m", staged(rows, k=k))
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(outputs["y"][i], 2 * row)
        assert outputs["total"][i] == row.sum()
        np.testing.assert_array_equal(outputs["k"][i], k[i])


@given(
    batches=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=20), min_size=1, max_size=12),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_each_request_gets_its_own(batches, seed):
    clock = infcore.ManualClock()
    device = infcore.TorchDevice("d", {"m": Summing(clock)}, takes={"m": "both"}, clock=clock)
    device.load(MODEL)
    for lengths in batches:
        check(device, lengths, seed)
    assert sum(of.n_batches for of in device.layouts()["m"].values()) == len(batches)
