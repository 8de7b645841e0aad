"""What one launch of image_pack does, from plain numbers. Both back-ends launch the same plan."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .staging import ImageForm, StagedImages

N_THREADS = 128
GROUP_PIXELS = 16  # a thread's: 16 bytes of each channel come in loads of 128 bits, and leave in whole stores of 128
TILE_PIXELS = N_THREADS * GROUP_PIXELS
N_IMAGES_MAX = 65535  # CUDA's bound of a grid's second axis


class Plan(NamedTuple):
    """A launch. mean and scale are in the order of an image's channels; plane c of the batch is written by channel c,
    or by 2 - c where swapped (channel 3 stays)."""

    paths: str  # "wide": every image in loads and stores of 128 bits, "narrow": none, "mixed": each as its size allows
    channels: int
    dtype: str
    height: int
    width: int
    swapped: bool
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    pad_value: float
    grid: tuple[int, int, int]


def is_wide(heights: NDArray[np.int32], widths: NDArray[np.int32], height: int, width: int) -> NDArray[np.bool_]:
    """Which images are whole groups of pixels, in the image as in a batch whose planes are: those of the batch's size,
    as one run of pixels, and those whose rows are whole groups, in rows that are."""
    whole = (heights == height) & (widths == width)
    return whole | ((widths % GROUP_PIXELS == 0) & (width % GROUP_PIXELS == 0))


def plan(images: StagedImages, form: ImageForm, *, aligned: bool) -> Plan:
    """aligned: the batch begins at a multiple of 16 bytes, as the region does."""
    if not aligned or form.height * form.width % GROUP_PIXELS:
        paths = "narrow"
    elif images.heights.min() == form.height and images.widths.min() == form.width:
        paths = "wide"  # as below, for images of one size
    else:
        wide = is_wide(images.heights, images.widths, form.height, form.width)
        paths = "wide" if wide.all() else "mixed" if wide.any() else "narrow"
    n_tiles = -(-form.height * form.width // TILE_PIXELS)
    by_source = sorted(range(images.channels), key=form.order.__getitem__)
    return Plan(
        paths,
        images.channels,
        form.dtype,
        form.height,
        form.width,
        form.order[0] != 0,
        tuple(float(form.mean[c]) for c in by_source),
        tuple(float(form.scale[c]) for c in by_source),
        form.pad_value,
        (n_tiles, images.n_images, 1),
    )
