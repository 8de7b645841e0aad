"""Whatever the images: the batch is the NumPy model's, to the bit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import infcore
from infcore.kernels.image_pack import reference


@st.composite
def batches(draw, side_max=40):
    """(images, mean, scale, options): sizes alike or not, any channels."""
    channels = draw(st.sampled_from([1, 3, 4]))
    side = st.integers(0, side_max)
    if draw(st.booleans()):
        sizes = [(draw(side), draw(side))] * draw(st.integers(1, 3))
    else:
        sizes = draw(st.lists(st.tuples(side, side | st.sampled_from([16, 32])), min_size=1, max_size=4))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images = [random.integers(0, 256, (height, width, channels), np.uint8) for height, width in sizes]
    number = st.floats(-300, 300, width=32)
    mean = draw(number | st.lists(number, min_size=channels, max_size=channels))
    scale = draw(st.floats(-1, 1, width=32) | st.lists(number, min_size=channels, max_size=channels))
    options = {
        "dtype": draw(st.sampled_from(["float32", "float16"])),
        "pad_value": draw(st.floats(-1000, 1000)),
        "swap_channels": channels > 1 and draw(st.booleans()),
        "height": draw(st.none() | st.just(max(height for height, _ in sizes) + draw(st.integers(0, 3)))),
        "width": draw(st.none() | st.just(-(-max(width for _, width in sizes) // 16) * 16)),
    }
    return images, mean, scale, options


@given(batches())
def test_the_batch_is_the_model(batch):
    images, mean, scale, options = batch
    made = infcore.image_pack(images, mean, scale, **options)
    expected = reference.image_pack(images, mean, scale, **options)
    assert made.dtype == expected.dtype and made.shape == expected.shape
    assert made.tobytes() == expected.tobytes()
