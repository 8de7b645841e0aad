"""What a device that packs by itself is handed, what it may answer, and that its memory is taken once."""

import gc

import numpy as np
import pytest
from engine_rig import WAIT_S, engine_of

import infcore
from infcore.device import DenseInput
from infcore.kernels import staging

TOKENS = infcore.Model(
    "m",
    inputs={
        "tokens": ("int64", (None,)),
        "side": ("float32", (3,)),
        "wide": ("float32", (2, None)),
        "steps": ("int8", (None, 5)),
    },
    outputs={"y": ("int64", (None,)), "n": ("int32", ())},
    work="tokens",
    max_batch_size=8,
)


def request(length, seed):
    random = np.random.default_rng(seed)
    return {
        "tokens": random.integers(0, 1000, length),
        "side": random.random(3, np.float32),
        "wide": random.random((2, length + 1), np.float32),
        "steps": random.integers(-5, 5, (length, 5), np.int8),
    }


def rows_of(memory, rows):
    """A staged tensor's rows, read by its tables as a kernel does."""
    n = rows.n_rows
    offsets = memory[rows.tables_at :][: 8 * n].view(np.int64)
    cu_seqlens = memory[rows.tables_at + 8 * n :][: 4 * (n + 1)].view(np.int32)
    assert np.array_equal(np.diff(cu_seqlens), rows.lengths)
    assert cu_seqlens[0] == 0
    assert np.all(offsets % 16 == 0)
    step = np.dtype(rows.dtype).itemsize * int(np.prod(rows.trailing))
    return [
        memory[at : at + length * step].view(rows.dtype).reshape(length, *rows.trailing)
        for at, length in zip(offsets.tolist(), rows.lengths.tolist(), strict=True)
    ]


class Packing(infcore.Device):
    """Counts tokens; takes its batches staged, and keeps a copy of what it saw."""

    takes_staged = True

    def __init__(self, name="packing", answer=None, **options):
        super().__init__(name, **options)
        self.batches = []
        self.blocks = []
        self.answer = answer

    def run(self, model_name, inputs):
        raise AssertionError("an engine calls run_staged")

    def run_staged(self, model_name, batch):
        assert model_name == "m"
        assert batch.memory.ctypes.data % 64 == 0
        seen = {"works": batch.works.copy()}
        for name, where in batch.inputs.items():
            if isinstance(where, DenseInput):
                n_bytes = int(np.prod(where.shape)) * np.dtype(where.dtype).itemsize
                seen[name] = batch.memory[where.at : where.at + n_bytes].view(where.dtype).reshape(where.shape).copy()
            else:
                seen[name] = [row.copy() for row in rows_of(batch.memory, where)]
        self.batches.append(seen)
        if self.answer is not None:
            return self.answer(batch, seen)
        return {"y": [row * 2 for row in seen["tokens"]], "n": np.array([len(row) for row in seen["tokens"]], np.int32)}

    def staging_memory(self, n_bytes):
        self.blocks.append(n_bytes)
        return super().staging_memory(n_bytes)


def served(device, requests):
    with engine_of(device, models=[TOKENS]) as engine:
        futures = [engine.submit("m", one) for one in requests]
        return [future.result(timeout_s=WAIT_S) for future in futures]


def test_a_batch_arrives_as_it_was_sent_and_answers_are_each_requests_own():
    device = Packing()
    requests = [request(length, seed) for seed, length in enumerate([3, 0, 7, 1, 100, 64, 5, 2, 0, 9])]
    for sent, got in zip(requests, served(device, requests), strict=True):
        assert np.array_equal(got["y"], sent["tokens"] * 2)
        assert got["n"] == len(sent["tokens"])
    left = {id(one): one for one in requests}
    for batch in device.batches:
        n = len(batch["works"])
        assert len(batch["tokens"]) == len(batch["steps"]) == len(batch["wide"]) == n
        for i in range(n):
            sent = next(one for one in left.values() if np.array_equal(one["side"], batch["side"][i]))
            left.pop(id(sent))
            length = len(sent["tokens"])
            assert batch["works"][i] == length
            assert np.array_equal(batch["tokens"][i], sent["tokens"])
            assert np.array_equal(batch["steps"][i], sent["steps"])
            # Ragged in its second axis: padded, as run has it.
            assert np.array_equal(batch["wide"][i, :, : length + 1], sent["wide"])
            assert not batch["wide"][i, :, length + 1 :].any()
    assert not left


def test_the_engines_bytes_are_the_kernels_own():
    def check(batch, seen):
        n = batch.n_requests
        for name, where in batch.inputs.items():
            if not isinstance(where, DenseInput):
                memory = np.zeros(batch.memory.nbytes, np.uint8)
                again = staging.stage(seen[name], memory, at=where.tables_at)
                assert again._replace(lengths=None) == where._replace(lengths=None)
                assert np.array_equal(again.lengths, where.lengths)
                ends = where.tables_at + 12 * n + 4
                assert np.array_equal(memory[where.tables_at : ends], batch.memory[where.tables_at : ends])
                for there, here in zip(rows_of(memory, again), seen[name], strict=True):
                    assert np.array_equal(there, here)
        return {"y": list(seen["tokens"]), "n": np.zeros(n, np.int32)}

    device = Packing(answer=check)
    served(device, [request(length, length) for length in range(20)])
    assert device.batches


def test_no_memory_is_taken_once_it_is_warm():
    device = Packing()
    with engine_of(device, models=[TOKENS]) as engine:
        for _ in range(60):
            futures = [engine.submit("m", request(64 - 7 * i, i)) for i in range(8)]
            for future in futures:
                future.result(timeout_s=WAIT_S)
    # How many requests a batch has hangs on threads; a block has room for three of the batch it was taken for, so that
    # from one request of 8 to eight of 64 there are at most five, however many batches there are.
    assert 1 <= len(device.blocks) <= 5 < len(device.batches)


def test_what_a_run_keeps_is_never_written_again():
    kept = []

    def keep(batch, seen):
        kept.append((batch, seen))
        return {"y": list(seen["tokens"]), "n": np.zeros(batch.n_requests, np.int32)}

    served(Packing(answer=keep), [request(length % 50, length) for length in range(100)])
    gc.collect()
    for batch, seen in kept:
        for there, here in zip(rows_of(batch.memory, batch.inputs["tokens"]), seen["tokens"], strict=True):
            assert np.array_equal(there, here)


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (lambda seen: seen["tokens"][:-1], "one a request"),
        (lambda seen: [*seen["tokens"][:-1], None], r"'y'\[0\] is missing"),
        (lambda seen: [row.astype(np.int32) for row in seen["tokens"]], r"'y'\[0\] is int32"),
        (lambda seen: [row[:, None] for row in seen["tokens"]], r"'y'\[0\] has shape \(3, 1\)"),
        (lambda seen: tuple(seen["tokens"]), "'y' is tuple"),
    ],
)
def test_wrong_answers_are_named(y, said):
    def answer(batch, seen):
        return {"y": y(seen), "n": np.zeros(batch.n_requests, np.int32)}

    with engine_of(Packing(answer=answer), models=[TOKENS]) as engine:
        with pytest.raises(infcore.DeviceError, match=said):
            engine.submit("m", request(3, 1)).result(timeout_s=WAIT_S)


def test_a_device_that_forgot_run_staged_says_so():
    class Forgetful(infcore.Device):
        takes_staged = True

        def run(self, model_name, inputs):
            return {}

    with engine_of(Forgetful("f"), models=[TOKENS]) as engine:
        with pytest.raises(infcore.DeviceError, match="run_staged"):
            engine.submit("m", request(3, 1)).result(timeout_s=WAIT_S)


def test_a_plain_device_may_answer_with_a_list_too():
    def run(model_name, inputs):
        lengths = (inputs["tokens"] > 0).sum(axis=1)
        return {"y": [row[:n] for row, n in zip(inputs["tokens"], lengths, strict=True)], "n": lengths.astype(np.int32)}

    sent = {**request(4, 1), "tokens": np.array([5, 6, 7, 8])}
    more = {**request(2, 2), "tokens": np.array([9, 1])}
    (one, two) = served(infcore.CallableDevice("c", run), [sent, more])
    assert one["y"].tolist() == [5, 6, 7, 8]
    assert two["y"].tolist() == [9, 1]
