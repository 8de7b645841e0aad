"""infcore.image_pack on the CPU: what it gives, and what it refuses."""

import sys
from unittest import mock

import numpy as np
import pytest

import infcore


def image(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def test_a_normalised_batch_in_channels_first_order():
    images = [image(4, 5, seed=1), image(4, 5, seed=2)]
    mean, scale = [123.675, 116.28, 103.53], [1 / 58.395, 1 / 57.12, 1 / 57.375]
    batch = infcore.image_pack(images, mean, scale)
    assert batch.shape == (2, 3, 4, 5) and batch.dtype == np.float32
    expected = (np.stack(images).astype(np.float32) - np.float32(mean)) * np.float32(scale)
    assert np.array_equal(batch, expected.transpose(0, 3, 1, 2))


def test_smaller_images_are_padded_right_and_below():
    batch = infcore.image_pack([image(2, 3, 1), image(3, 1, 1)], 0, 1, pad_value=-7, height=5)
    assert batch.shape == (2, 1, 5, 3)
    assert np.array_equal(batch[0, 0, :2], image(2, 3, 1)[:, :, 0])
    assert np.all(batch[0, 0, 2:] == -7)
    assert np.all(batch[1, 0, :3, 1:] == -7) and np.all(batch[1, 0, 3:] == -7)


def test_swapped_channels_have_the_mean_and_scale_of_their_new_place():
    picture = image(2, 2, 4)
    batch = infcore.image_pack([picture], [1, 2, 3, 4], [1, 10, 100, 1000], swap_channels=True)
    assert np.array_equal(batch[0, 0], picture[:, :, 2] - np.float32(1))
    assert np.array_equal(batch[0, 2], (picture[:, :, 0] - np.float32(3)) * np.float32(100))
    assert np.array_equal(batch[0, 3], (picture[:, :, 3] - np.float32(4)) * np.float32(1000))


def test_float16_beyond_its_range_is_infinite():
    batch = infcore.image_pack([np.full((1, 1, 1), 255, np.uint8)], 0, 300.0, dtype="float16")
    assert batch.dtype == np.float16 and np.isinf(batch[0, 0, 0, 0])


def test_bfloat16_is_that_of_ml_dtypes():
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    out = np.empty((1, 3, 2, 2), bfloat16)
    assert infcore.image_pack([image(2, 2)], 0.3, 0.7, dtype="bfloat16", out=out) is out
    expected = (image(2, 2).astype(np.float32) - np.float32(0.3)) * np.float32(0.7)
    assert np.array_equal(out[0], expected.transpose(2, 0, 1).astype(bfloat16))
    with mock.patch.dict(sys.modules, {"ml_dtypes": None}):
        with pytest.raises(infcore.MissingExtra, match="ml_dtypes"):
            infcore.image_pack([image(2, 2)], 0, 1, dtype="bfloat16")


def test_out_is_filled_and_returned():
    out = np.empty((1, 3, 2, 2), np.float16)
    assert infcore.image_pack([image(2, 2)], 0, 1, dtype=np.float16, out=out) is out
    assert np.array_equal(out[0], image(2, 2).transpose(2, 0, 1))


def test_the_input_may_be_one_array_of_images():
    stack = np.stack([image(3, 3, seed=i) for i in range(4)])
    assert np.array_equal(infcore.image_pack(stack, 0, 1), stack.transpose(0, 3, 1, 2))


def test_images_without_pixels():
    batch = infcore.image_pack([image(0, 4), image(2, 0)], 0, 1, pad_value=3)
    assert batch.shape == (2, 3, 2, 4) and np.all(batch == 3)
    assert infcore.image_pack([image(0, 0)], 0, 1).shape == (1, 3, 0, 0)


def test_a_large_batch_runs_without_the_gil_and_alike():
    images = [image(96, 128, seed=i) for i in range(8)]
    expected = (np.stack(images).astype(np.float32) - np.float32(9.5)) * np.float32(0.25)
    assert np.array_equal(infcore.image_pack(images, 9.5, 0.25), expected.transpose(0, 3, 1, 2))


# images, options, the error, what it must name.
REFUSED = [
    ([], {}, infcore.InvalidArgument, "images is empty"),
    (7, {}, infcore.InvalidType, "images is int"),
    ("abc", {}, infcore.InvalidType, "images is str"),
    ([[[1]]], {}, infcore.InvalidType, r"images\[0\] is list"),
    ([np.zeros((2, 2, 3), np.float32)], {}, infcore.InvalidType, r"images\[0\] has dtype float32; allowed: uint8"),
    ([image(2, 2)[:, :, 0]], {}, infcore.InvalidArgument, r"images\[0\] has shape \(2, 2\)"),
    ([image(2, 2, 2)], {}, infcore.InvalidArgument, "1, 3 or 4"),
    ([image(2, 2), image(2, 2, 4)], {}, infcore.InvalidArgument, r"images\[1\] has shape .*\(height, width, 3\)"),
    ([image(2, 4)[:, ::2]], {}, infcore.InvalidArgument, "strides .* C-contiguous"),
    ([image(2, 4)[::-1]], {}, infcore.InvalidArgument, r"strides \(-12, 3, 1\)"),
    ([image(2, 2)], {"mean": [1, 2]}, infcore.InvalidArgument, r"mean has shape \(2,\)"),
    ([image(2, 2)], {"mean": "1"}, infcore.InvalidType, "mean is '1'"),
    ([image(2, 2)], {"scale": [1, np.nan, 1]}, infcore.InvalidArgument, "scale is .*finite"),
    ([image(2, 2)], {"scale": 1e39}, infcore.InvalidArgument, "scale is 1e.39"),
    ([image(2, 2)], {"height": 1}, infcore.InvalidArgument, "height is 1; allowed: at least 2"),
    ([image(2, 2)], {"width": 2.5}, infcore.InvalidType, "width is 2.5"),
    ([image(2, 2)], {"height": 2**20, "width": 2**20}, infcore.InvalidArgument, "pixels"),
    ([image(2, 2)], {"dtype": "int8"}, infcore.InvalidType, "dtype is 'int8'; allowed: float32, float16, bfloat16"),
    ([image(2, 2)], {"pad_value": np.inf}, infcore.InvalidArgument, "pad_value is inf"),
    ([image(2, 2)], {"pad_value": "0"}, infcore.InvalidType, "pad_value is '0'"),
    ([image(2, 2)], {"pad_value": 70000, "dtype": "float16"}, infcore.InvalidArgument, "pad_value is 70000"),
    ([image(2, 2)], {"swap_channels": 1}, infcore.InvalidType, "swap_channels is 1"),
    ([image(2, 2, 1)], {"swap_channels": True}, infcore.InvalidArgument, "swap_channels is True"),
    ([image(2, 2)], {"stream": 3}, infcore.InvalidArgument, "stream is 3"),
    ([image(2, 2)], {"device": "tpu"}, infcore.InvalidArgument, "device is 'tpu'"),
    ([image(2, 2)], {"out": np.empty((1, 3, 2, 2))}, infcore.InvalidType, "out is float64"),
    ([image(2, 2)], {"out": np.empty((1, 3, 2, 3), np.float32)}, infcore.InvalidArgument, r"allowed: \(1, 3, 2, 2\)"),
    ([image(2, 2)], {"out": np.empty((1, 3, 2, 4), np.float32)[..., ::2]}, infcore.InvalidArgument, "C-contiguous"),
]


@pytest.mark.parametrize(("images", "options", "error", "named"), REFUSED)
def test_refused(images, options, error, named):
    options = {"mean": 0, "scale": 1, **options}
    with pytest.raises(error, match=named):
        infcore.image_pack(images, options.pop("mean"), options.pop("scale"), **options)


def test_float16_about_its_largest():
    """One pixel at a time, which no instruction of a vector unit rounds."""
    image = np.full((1, 1, 1), 255, np.uint8)
    for value in np.linspace(65480, 65700, 111, dtype=np.float32):
        scale = np.float32(value / 255)
        with np.errstate(over="ignore"):
            expected = (np.float32(255) * scale).astype(np.float16)
        assert infcore.image_pack([image], 0, scale, dtype="float16").item() == expected, value
