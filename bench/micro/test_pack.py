"""infcore.pack against the ways NumPy users pack by hand. Each group shows ratios to its fastest row."""

import numpy as np
import pytest

import infcore

# name -> shapes of the rows: the batches of the suite's models (features, text, audio, pictures of text).
BATCHES = {
    "32 x (8,)": [(8,)] * 32,
    "64 ragged (L,) <= 512": [(length,) for length in np.random.default_rng(1).integers(1, 513, 64)],
    "16 x (576,)": [(576,)] * 16,
    "8 ragged (L, 768) <= 256": [(length, 768) for length in np.random.default_rng(2).integers(1, 257, 8)],
}


def rows_of(name):
    random = np.random.default_rng(3)
    return [random.random(shape, np.float32) for shape in BATCHES[name]]


def pad_by_loop(rows):
    out = np.zeros((len(rows), max(len(row) for row in rows), *rows[0].shape[1:]), rows[0].dtype)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def pad_by_stack(rows):
    longest = max(len(row) for row in rows)
    ends = [(0, 0)] * (rows[0].ndim - 1)
    return np.stack([row if len(row) == longest else np.pad(row, [(0, longest - len(row)), *ends]) for row in rows])


def pack_by_concatenate(rows):
    cu_seqlens = np.zeros(len(rows) + 1, np.int32)
    np.cumsum([len(row) for row in rows], out=cu_seqlens[1:])
    return np.concatenate(rows), cu_seqlens


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("way", ["infcore.pack", "np.zeros and a loop", "np.pad and np.stack"])
def test_padded(benchmark, name, way):
    rows = rows_of(name)
    benchmark.group = f"padded: {name}"
    ways = {
        "infcore.pack": lambda: infcore.pack(rows, layout="padded").data,
        "np.zeros and a loop": lambda: pad_by_loop(rows),
        "np.pad and np.stack": lambda: pad_by_stack(rows),
    }
    assert np.array_equal(benchmark(ways[way]), pad_by_loop(rows))


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("way", ["infcore.pack", "np.concatenate and np.cumsum"])
def test_packed(benchmark, name, way):
    rows = rows_of(name)
    benchmark.group = f"packed: {name}"

    def ours():
        batch = infcore.pack(rows)
        return batch.data, batch.cu_seqlens

    data, cu_seqlens = benchmark(ours if way == "infcore.pack" else lambda: pack_by_concatenate(rows))
    expected = pack_by_concatenate(rows)
    assert np.array_equal(data, expected[0])
    assert np.array_equal(cu_seqlens, expected[1])


@pytest.mark.parametrize("way", ["infcore.unpack", "np.split"])
def test_unpack(benchmark, way):
    benchmark.group = "unpack: 64 ragged (L,) <= 512"
    rows = rows_of("64 ragged (L,) <= 512")
    batch = infcore.pack(rows)
    cuts = batch.cu_seqlens[1:-1]
    back = benchmark(lambda: infcore.unpack(batch) if way == "infcore.unpack" else np.split(batch.data, cuts))
    assert all(np.array_equal(there, here) for there, here in zip(back, rows, strict=True))
