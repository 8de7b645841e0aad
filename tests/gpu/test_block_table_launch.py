"""block_table's launch(): what it refuses before anything runs, and the public function that leads to it."""

from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
from gpu import block_rig, interpreter
from gpu.host_arrays import HostArray, pretended_cupy

import infcore
from infcore import _on_device
from infcore.kernels import backends, transfer
from infcore.kernels.block_table import launch, plan, reference, staging

BLOCKS = [[4, 2, 9], [7]]
OPTIONS = {"computed": [3, 0], "query_lens": [2, 1], "block_size": 2}


@pytest.fixture
def arrays():
    with pretended_cupy(block_rig.build()) as arrays:
        yield arrays


@pytest.fixture
def region(arrays):
    memory, place = block_rig.staged(BLOCKS, OPTIONS)
    return arrays.array(memory), place


def refused(arrays, error, named, memory, place, **options):
    with pytest.raises(error, match=named):
        launch.block_table(memory, place, backend="cupy", **{"block_size": 2, **options})
    assert arrays.launches == []


@contextmanager
def on_gpu_of(arrays):
    """The public function's way to the pretended device."""

    def upload(memory, device, *, backend, stream, event=None):
        assert (device, backend) == ("cuda:0", "cupy")
        return arrays.array(memory), None

    with (
        mock.patch.object(_on_device, "gpus", lambda backend: (1, 0)),
        mock.patch.object(transfer, "upload", upload),
    ):
        yield


def test_memory_of_another_kind(arrays, region):
    memory, place = region
    refused(arrays, TypeError, "is no array on a device", np.zeros(4096, np.uint8), place)
    refused(arrays, TypeError, "memory is int32", HostArray(arrays.memory, memory.address, (16,), "int32"), place)
    gaps = HostArray(arrays.memory, memory.address, memory.shape, "uint8", contiguous=False)
    refused(arrays, ValueError, "memory .*not C-contiguous", gaps, place)


def test_memory_that_is_too_small_or_not_aligned(arrays, region):
    memory, place = region
    refused(arrays, ValueError, f"memory has {memory.shape[0] - 1} bytes; allowed: at least", memory[:-1], place)
    refused(arrays, ValueError, "multiples of 16", memory[8:], place)
    refused(arrays, ValueError, "multiples of 16", memory, place._replace(tokens_at=24))
    refused(arrays, ValueError, "allowed: at least", memory, place._replace(tokens_at=-16))


def test_sizes_that_do_not_fit(arrays, region):
    refused(arrays, ValueError, "block_size is 1; allowed: 2, with which", *region, block_size=1)
    refused(arrays, ValueError, "block_size is None", *region, block_size=None)
    refused(arrays, ValueError, "max_blocks is 2; allowed: at least 3", *region, max_blocks=2)
    refused(arrays, ValueError, "n_slots is 2; allowed: at least 3", *region, n_slots=2)
    refused(arrays, TypeError, "pad_block is 0.5", *region, pad_block=0.5)


def test_more_tiles_than_a_grid_has():
    sizes = {"n_requests": 1, "max_query": 1, "n_tokens": 1, "block_size": 1, "pad_block": 0, "aligned": True}
    most = plan.N_TILES_MAX * plan.TILE
    assert plan.plan(max_blocks=most, n_slots=1, **sizes).grid == (2, plan.N_TILES_MAX, 1)
    for max_blocks, n_slots in [(most + 1, 1), (1, most + 2)]:
        with pytest.raises(ValueError, match=f"allowed: at most {most} each"):
            plan.plan(max_blocks=max_blocks, n_slots=n_slots, **sizes)


def test_memory_on_the_cpu():
    torch = interpreter.require()
    memory, place = block_rig.staged(BLOCKS, OPTIONS)
    with mock.patch.object(backends, "interpreted", lambda: False):
        with pytest.raises(ValueError, match="memory is on cpu"):
            launch.block_table(torch.from_numpy(memory), place, block_size=2, backend="triton")


def test_staging_checks_its_memory():
    for memory, at, named in [
        (np.zeros(64, np.uint8), 0, "memory has 64 bytes; allowed: at least"),
        (np.zeros(4096, np.int8), 0, "memory is int8"),
        (np.zeros(8192, np.uint8)[::2], 0, "C-contiguous"),
        (np.zeros(4096, np.uint8), 8, "at is 8; allowed: a multiple of 16"),
    ]:
        with pytest.raises(ValueError, match=named):
            staging.stage(BLOCKS, memory, at, **OPTIONS)


def test_the_public_function_on_an_interpreted_device():
    interpreter.require()
    made = infcore.block_table(BLOCKS, device="cuda", n_slots=5, **OPTIONS)
    expected = reference.block_table(BLOCKS, n_slots=5, **OPTIONS)
    assert all(np.array_equal(ours.numpy(), model) for ours, model in zip(made, expected, strict=True))
    with pytest.raises(infcore.InvalidArgument, match=r"blocks\[0\]\[2\] is 9; allowed: 0 to 8"):
        infcore.block_table(BLOCKS, device="cuda", n_blocks=9, **OPTIONS)


def test_the_public_function_through_cupy(arrays):
    with on_gpu_of(arrays):
        made = infcore.block_table(BLOCKS, device="cuda", max_blocks=4, pad_block=0, **OPTIONS)
    expected = reference.block_table(BLOCKS, max_blocks=4, pad_block=0, **OPTIONS)
    assert all(np.array_equal(ours.numpy(), model) for ours, model in zip(made, expected, strict=True))
