"""Drawn batches of images, for infcore.image_pack and for its kernels."""

import numpy as np
from hypothesis import strategies as st


@st.composite
def batches(draw, dtypes=("float32", "float16")):
    """(images, mean, scale, options): sizes alike or not, whole groups of 16 pixels or not, any channels."""
    channels = draw(st.sampled_from([1, 3, 4]))
    side = st.integers(0, 40)
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
        "dtype": draw(st.sampled_from(dtypes)),
        "pad_value": draw(st.floats(-1000, 1000)),
        "swap_channels": channels > 1 and draw(st.booleans()),
        "height": draw(st.none() | st.just(max(height for height, _ in sizes) + draw(st.integers(0, 3)))),
        "width": draw(st.none() | st.just(-(-max(width for _, width in sizes) // 16) * 16)),
    }
    return images, mean, scale, options
