"""image_pack's launch(): what it refuses before anything runs, and the public function that leads to it."""

from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
from gpu import image_rig, interpreter
from gpu.host_arrays import HostArray, pretended_cupy

import infcore
from infcore import _on_device
from infcore.kernels import backends, transfer
from infcore.kernels.image_pack import launch, reference, staging

IMAGES = [np.full((4, 16, 3), 7, np.uint8), np.full((3, 5, 3), 9, np.uint8)]


@pytest.fixture
def arrays():
    with pretended_cupy(image_rig.build()) as arrays:
        yield arrays


@pytest.fixture
def region(arrays):
    memory, place = image_rig.staged(IMAGES)
    return arrays.array(memory), place


def refused(arrays, error, named, memory, place, **options):
    with pytest.raises(error, match=named):
        launch.image_pack(memory, place, 0, 1, backend="cupy", **options)
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
    other = HostArray(arrays.memory, memory.address, (memory.shape[0] // 4,), "int32")
    refused(arrays, TypeError, "memory is int32", other, place)
    refused(arrays, TypeError, r"of shape \(2, ", HostArray(arrays.memory, memory.address, (2, 8), "uint8"), place)
    gaps = HostArray(arrays.memory, memory.address, memory.shape, "uint8", contiguous=False)
    refused(arrays, ValueError, "memory .*not C-contiguous", gaps, place)


def test_memory_that_is_too_small_or_not_aligned(arrays, region):
    memory, place = region
    refused(arrays, ValueError, f"memory has {memory.shape[0] - 1} bytes; allowed: at least", memory[:-1], place)
    refused(arrays, ValueError, "multiples of 16", memory[8:], place)
    refused(arrays, ValueError, "multiples of 16", memory, place._replace(tables_at=24))
    refused(arrays, ValueError, "allowed: at least", memory, place._replace(tables_at=-16))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"channels": 2}, "images.channels is 2; allowed: 1, 3 or 4"),
        ({"widths": np.array([16], np.int32)}, r"have shapes \(2,\) and \(1,\)"),
        ({"heights": np.array([], np.int32), "widths": np.array([], np.int32)}, "at least one image"),
        ({"heights": np.array([4, -3], np.int32)}, "images are -3 x 5 or more; allowed: at least 0"),
    ],
)
def test_images_that_are_none(arrays, region, change, named):
    memory, place = region
    refused(arrays, ValueError, named, memory, place._replace(**change))


def test_more_images_than_a_grid_has_rows(arrays):
    many = staging.StagedImages(0, 1, np.zeros(65536, np.int32), np.zeros(65536, np.int32))
    memory = arrays.empty((many.n_bytes,), "uint8", "cuda:0")
    refused(arrays, ValueError, "images are 65536; allowed: at most 65535", memory, many)


def test_options_that_do_not_fit(arrays, region):
    refused(arrays, ValueError, "width is 15; allowed: at least 16", *region, width=15)
    refused(arrays, TypeError, "dtype is 'int32'", *region, dtype="int32")
    refused(arrays, ValueError, "pad_value is nan", *region, pad_value=float("nan"))


def test_out_of_another_form(arrays, region):
    shape = (2, 3, 4, 16)
    refused(
        arrays, TypeError, "out is float16; allowed: float32", *region, out=arrays.empty(shape, "float16", "cuda:0")
    )
    other = arrays.empty((2, 3, 4, 17), "float32", "cuda:0")
    refused(arrays, ValueError, r"out has shape \(2, 3, 4, 17\); allowed: \(2, 3, 4, 16\)", *region, out=other)
    gaps = arrays.empty(shape, "float32", "cuda:0")
    gaps.contiguous = False
    refused(arrays, ValueError, "out .*not C-contiguous", *region, out=gaps)
    misaligned = arrays.empty(shape, "float32", "cuda:0", misaligned_by=2)
    refused(arrays, ValueError, "out begins at", *region, out=misaligned)


def test_an_empty_batch_launches_nothing(arrays):
    images = [np.zeros((0, 5, 3), np.uint8)]
    memory, place = image_rig.staged(images)
    got = launch.image_pack(arrays.array(memory), place, 0, 1, backend="cupy")
    assert got.shape == (1, 3, 0, 5) and arrays.launches == []


def test_memory_on_the_cpu():
    torch = interpreter.require()
    memory, place = image_rig.staged(IMAGES)
    with mock.patch.object(backends, "interpreted", lambda: False):
        with pytest.raises(ValueError, match="memory is on cpu"):
            launch.image_pack(torch.from_numpy(memory), place, 0, 1, backend="triton")


def test_staging_checks_its_memory():
    for memory, at, named in [
        (np.zeros(64, np.uint8), 0, "memory has 64 bytes; allowed: at least"),
        (np.zeros(4096, np.int8), 0, "memory is int8"),
        (np.zeros((64, 64), np.uint8), 0, "memory is uint8 of shape"),
        (np.zeros(8192, np.uint8)[::2], 0, "C-contiguous"),
        (np.zeros(4096, np.uint8), 8, "at is 8; allowed: a multiple of 16"),
        (np.zeros(4096, np.uint8), -16, "at is -16"),
    ]:
        with pytest.raises(ValueError, match=named):
            staging.stage(IMAGES, memory, at)


def test_the_public_function_on_an_interpreted_device():
    interpreter.require()
    made = infcore.image_pack(IMAGES, 1.5, 0.25, device="cuda", dtype="float16", pad_value=3)
    expected = reference.image_pack(IMAGES, 1.5, 0.25, dtype="float16", pad_value=3)
    assert np.array_equal(made.numpy(), expected)
    with pytest.raises(infcore.InvalidArgument, match="out has shape"):
        infcore.image_pack(IMAGES, 1.5, 0.25, device="cuda", out=made[:1].float())


def test_the_public_function_through_cupy(arrays):
    with on_gpu_of(arrays):
        made = infcore.image_pack(IMAGES, 1.5, 0.25, device="cuda:0", swap_channels=True)
        assert np.array_equal(made.numpy(), reference.image_pack(IMAGES, 1.5, 0.25, swap_channels=True))
        with pytest.raises(
            infcore.InvalidArgument, match="device is 'cuda:1'; allowed here: 'cpu', 'cuda:0' to 'cuda:0'"
        ):
            infcore.image_pack(IMAGES, 1.5, 0.25, device="cuda:1")


def test_without_a_gpu_or_a_library_for_it():
    with mock.patch.object(backends, "interpreted", lambda: False):
        with mock.patch.object(_on_device, "gpus", lambda backend: (0, 0)):
            with pytest.raises(infcore.InvalidArgument, match="there is no GPU"):
                infcore.image_pack(IMAGES, 0, 1, device="cuda")
        with mock.patch.object(backends, "available", list):
            with pytest.raises(infcore.MissingExtra, match=r"infcore\[gpu\]"):
                infcore.image_pack(IMAGES, 0, 1, device="cuda")
    with pytest.raises(infcore.InvalidType, match="device is None"):
        infcore.image_pack(IMAGES, 0, 1, device=None)


@pytest.mark.parametrize("backend", ["triton", "cupy"])
def test_gpus_are_counted_where_there_are_none(backend):
    if backend not in backends.available():
        pytest.skip(f"the packages of {backend} are not installed")
    n_gpus, current = _on_device.gpus(backend)
    assert 0 <= current <= n_gpus
