"""infcore.pack against the ways NumPy users pack by hand, and against memcpy of the same bytes.

Each group shows ratios to its fastest row; test_ratios prints the medians of ratios taken in turn, which a machine that
others use, too, disturbs less. Every output is fresh: a new array each time.
"""

import time

import numpy as np
import pytest

import infcore

# name -> shapes of the rows: the batches of the suite's models (features, text, audio, pictures of text), token
# embeddings, and many rows of next to nothing.
BATCHES = {
    "32 x (8,)": [(8,)] * 32,
    "64 ragged (L,) <= 512": [(length,) for length in np.random.default_rng(1).integers(1, 513, 64)],
    "16 x (576,)": [(576,)] * 16,
    "8 ragged (L, 768) <= 256": [(length, 768) for length in np.random.default_rng(2).integers(1, 257, 8)],
    "32 ragged (L, 384), 4 to 512": [(length, 384) for length in [512, *np.random.default_rng(4).integers(4, 513, 31)]],
    "2,000 x (8,)": [(8,)] * 2000,
}
EMBEDDINGS = "32 ragged (L, 384), 4 to 512"
TINY = "2,000 x (8,)"


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


def memcpy(whole):
    out = np.empty_like(whole)
    np.copyto(out, whole)
    return out


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("way", ["infcore.pack", "np.zeros and a loop", "np.pad and np.stack", "memcpy of the rows"])
def test_padded(benchmark, name, way):
    rows = rows_of(name)
    benchmark.group = f"padded: {name}"
    expected, whole = pad_by_loop(rows), np.concatenate(rows)
    ways = {
        "infcore.pack": lambda: infcore.pack(rows, layout="padded").data,
        "np.zeros and a loop": lambda: pad_by_loop(rows),
        "np.pad and np.stack": lambda: pad_by_stack(rows),
        "memcpy of the rows": lambda: memcpy(whole),
    }
    assert np.array_equal(benchmark(ways[way]), whole if way.startswith("memcpy") else expected)


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("way", ["infcore.pack", "np.concatenate and np.cumsum", "memcpy of the rows"])
def test_packed(benchmark, name, way):
    rows = rows_of(name)
    benchmark.group = f"packed: {name}"
    expected = pack_by_concatenate(rows)

    def ours():
        batch = infcore.pack(rows)
        return batch.data, batch.cu_seqlens

    ways = {
        "infcore.pack": ours,
        "np.concatenate and np.cumsum": lambda: pack_by_concatenate(rows),
        "memcpy of the rows": lambda: (memcpy(expected[0]), expected[1]),
    }
    data, cu_seqlens = benchmark(ways[way])
    assert np.array_equal(data, expected[0])
    assert np.array_equal(cu_seqlens, expected[1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int64", "int8"])
@pytest.mark.parametrize("way", ["infcore.pack(dtype=)", "astype, then infcore.pack", "infcore.pack, then astype"])
def test_cast(benchmark, dtype, way):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes").bfloat16
    rows = [row * 100 for row in rows_of(EMBEDDINGS)]
    benchmark.group = f"packed, float32 to {np.dtype(dtype).name}: {EMBEDDINGS}"
    ways = {
        "infcore.pack(dtype=)": lambda: infcore.pack(rows, dtype=dtype).data,
        "astype, then infcore.pack": lambda: infcore.pack([row.astype(dtype) for row in rows]).data,
        "infcore.pack, then astype": lambda: infcore.pack(rows).data.astype(dtype),
    }
    assert np.array_equal(benchmark(ways[way]), np.concatenate(rows).astype(dtype))


@pytest.mark.parametrize("way", ["infcore.unpack", "np.split"])
def test_unpack(benchmark, way):
    benchmark.group = "unpack: 64 ragged (L,) <= 512"
    rows = rows_of("64 ragged (L,) <= 512")
    batch = infcore.pack(rows)
    cuts = batch.cu_seqlens[1:-1]
    back = benchmark(lambda: infcore.unpack(batch) if way == "infcore.unpack" else np.split(batch.data, cuts))
    assert all(np.array_equal(there, here) for there, here in zip(back, rows, strict=True))


def ratios(ours, theirs, repetitions):
    """Time of ours over time of theirs, alternately first: CPU time of this thread, as others may use the machine."""
    out = []
    for repetition in range(repetitions):
        took = {}
        for way in (ours, theirs) if repetition % 2 else (theirs, ours):
            begin_ns = time.thread_time_ns()
            way()
            took[way] = time.thread_time_ns() - begin_ns
        out.append(took[ours] / took[theirs])
    return out


# What is asked of the packer: figure, what, whether speed (else time) is compared, ours, theirs.
FIGURES = {
    "packed, share of memcpy's speed": (">= .85", True, lambda: pack_of(EMBEDDINGS), lambda: memcpy_of(EMBEDDINGS)),
    "padded, time over the loop's": ("<= .65", False, lambda: pad_of(EMBEDDINGS), lambda: loop_of(EMBEDDINGS)),
    "memcpy, time over the loop's": (".51-.54", False, lambda: memcpy_of(EMBEDDINGS), lambda: loop_of(EMBEDDINGS)),
    "2,000 rows of 8 padded, speed over the loop's": (">= 20", True, lambda: pad_of(TINY), lambda: loop_of(TINY)),
    "2,000 rows of 8 packed, speed over the loop's": (">= 20", True, lambda: pack_of(TINY), lambda: loop_of(TINY)),
}


def pack_of(name):
    rows = rows_of(name)
    return lambda: infcore.pack(rows)


def pad_of(name):
    rows = rows_of(name)
    return lambda: infcore.pack(rows, layout="padded")


def loop_of(name):
    rows = rows_of(name)
    return lambda: pad_by_loop(rows)


def memcpy_of(name):
    whole = np.concatenate(rows_of(name))
    return lambda: memcpy(whole)


@pytest.mark.parametrize("what", FIGURES)
def test_ratios(request, capsys, what):
    asked, is_speed, make_ours, make_theirs = FIGURES[what]
    smoke = request.config.getoption("--benchmark-disable")
    found = ratios(make_ours(), make_theirs(), 2 if smoke else 200)
    low, middle, high = np.quantile([1 / ratio for ratio in found] if is_speed else found, [0.25, 0.5, 0.75])
    assert 0 < low <= high
    if not smoke:
        with capsys.disabled():
            print(f"\n{what}: {middle:.3g} (quartiles {low:.3g} to {high:.3g}); asked {asked}")
