"""How many bytes image_pack moves, and how wide: at most 1.05 of what there is to move."""

import numpy as np
import pytest
from gpu import image_rig

from infcore.kernels import dtypes

FLOOR_FACTOR_MAX = 1.05

WIDE = {
    "one size": ([(64, 64)] * 2, {}),
    "one size of odd rows": ([(48, 37)], {}),
    "padded": ([(20, 48), (64, 16)], {"height": 64, "width": 64}),
}
EVERY = WIDE | {"mixed": ([(64, 64), (63, 50)], {}), "narrow": ([(31, 33)] * 2, {})}


def moved_by(backend, name, channels, dtype):
    sizes, options = EVERY[name]
    random = np.random.default_rng(1)
    images = [random.integers(0, 256, (*size, channels), np.uint8) for size in sizes]
    options = {"dtype": dtype, **options}
    if backend == "triton":
        moved = image_rig.by_triton(images, 1.5, 0.5, options)[1]
    else:
        moved = image_rig.counted_cuda(images, 1.5, 0.5, options)
    form = image_rig.form_of(images, 1.5, 0.5, options)
    items = int(np.prod(image_rig.batch_shape(images, form)))
    return moved, sum(image.size for image in images), items * dtypes.ITEM_BYTES[dtype]


# Interpreted in one form alone: a program of it takes a tenth of a second.
FORMS = [(3, "float32"), (3, "float16"), (1, "float16"), (4, "float32")]
CASES = [("triton", name, 3, "float16") for name in EVERY] + [
    ("cuda", name, channels, dtype) for name in EVERY for channels, dtype in FORMS
]


@pytest.mark.parametrize(("backend", "name", "channels", "dtype"), CASES)
def test_bytes_are_moved_once(backend, name, channels, dtype):
    moved, image_bytes, batch_bytes = moved_by(backend, name, channels, dtype)
    assert moved.image_bytes == image_bytes
    assert (moved.written_bytes, moved.overwritten_bytes) == (batch_bytes, 0)
    total = moved.image_bytes + moved.table_bytes + moved.written_bytes
    assert total <= FLOOR_FACTOR_MAX * (image_bytes + batch_bytes)


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("dtype", dtypes.FLOATS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_whole_groups_are_moved_by_16_bytes(name, channels, dtype):
    moved, image_bytes, batch_bytes = moved_by("cuda", name, channels, dtype)
    assert (moved.wide_reads, moved.wide_writes) == (image_bytes // 16, batch_bytes // 16)
