"""image_pack: Triton interpreted, CUDA under the host shim, the C++ core and NumPy give the same bits."""

import numpy as np
import pytest
from gpu import image_rig
from hypothesis import given, settings
from hypothesis import strategies as st
from image_batches import batches

import infcore
from infcore.kernels.image_pack import reference

pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: NumPy has no bfloat16")

BACKENDS = [pytest.param(image_rig.by_triton, id="triton"), pytest.param(image_rig.by_cuda, id="cuda")]
DTYPES = ("float32", "float16", "bfloat16")


def images_of(sizes, channels):
    random = np.random.default_rng(len(sizes))
    return [random.integers(0, 256, (*size, channels), np.uint8) for size in sizes]


def assert_same_bits(ours, model):
    assert ours.dtype == model.dtype and ours.shape == model.shape
    bits = f"uint{8 * model.dtype.itemsize}"
    np.testing.assert_array_equal(ours.view(bits), model.view(bits))


@pytest.mark.parametrize("pack", BACKENDS)
@given(batch=batches(DTYPES), out_shift=st.sampled_from([0, 0, 1]))
@settings(max_examples=25)
def test_any_batch(pack, batch, out_shift):
    images, mean, scale, options = batch
    ours, moved = pack(images, mean, scale, options, out_shift)
    assert_same_bits(ours, reference.image_pack(images, mean, scale, **options))
    if moved is not None:
        assert moved.overwritten_bytes == 0


@pytest.mark.parametrize("pack", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_byte_and_every_rounding(pack, dtype):
    """All 256 bytes under factors that lead to ties, subnormal numbers and beyond the largest."""
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    image = np.repeat(image, 4, axis=2)
    mean, scale = [0.5, 127.7, 0, 255], [2.9802322e-8, 1 / 3, 257.00390625, 3e38]
    ours, _ = pack([image], mean, scale, {"dtype": dtype})
    assert_same_bits(ours, reference.image_pack([image], mean, scale, dtype=dtype))


@pytest.mark.parametrize("pack", BACKENDS)
@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ([(70, 64)] * 2, {}),
        ([(65, 63)], {}),
        ([(64, 64), (20, 48), (33, 50)], {"swap_channels": True, "pad_value": -1.5}),
    ],
    ids=["wide", "narrow", "mixed"],
)
def test_images_of_several_tiles_as_the_core_packs_them(pack, sizes, options):
    images = images_of(sizes, 3)
    mean, scale = [123.675, 116.28, 103.53], [1 / 58.395, 1 / 57.12, 1 / 57.375]
    for dtype in DTYPES:
        ours, _ = pack(images, mean, scale, {"dtype": dtype, **options})
        assert_same_bits(ours, infcore.image_pack(images, mean, scale, dtype=dtype, **options))
