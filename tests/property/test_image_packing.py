"""Whatever the images: the batch is the NumPy model's, to the bit."""

import pytest
from hypothesis import given
from image_batches import batches

import infcore
from infcore.kernels.image_pack import reference

pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: NumPy has no bfloat16")


@given(batches(("float32", "float16", "bfloat16")))
def test_the_batch_is_the_model(batch):
    images, mean, scale, options = batch
    made = infcore.image_pack(images, mean, scale, **options)
    expected = reference.image_pack(images, mean, scale, **options)
    assert made.dtype == expected.dtype and made.shape == expected.shape
    assert made.tobytes() == expected.tobytes()
