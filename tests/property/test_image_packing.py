"""Whatever the images: the batch is the NumPy model's, to the bit."""

from hypothesis import given
from image_batches import batches

import infcore
from infcore.kernels.image_pack import reference


@given(batches())
def test_the_batch_is_the_model(batch):
    images, mean, scale, options = batch
    made = infcore.image_pack(images, mean, scale, **options)
    expected = reference.image_pack(images, mean, scale, **options)
    assert made.dtype == expected.dtype and made.shape == expected.shape
    assert made.tobytes() == expected.tobytes()
