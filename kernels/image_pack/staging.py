"""Staged images: a batch in one region of host memory, so that one copy takes it to the device; and what is allowed.

The region holds, from byte `tables_at` (a multiple of 16) on:

    image_offsets  int64[n]   bytes from the region's start to image i's first byte
    heights        int32[n]   directly after them
    widths         int32[n]   directly after those
    images         each begins at a multiple of 16 bytes: height x width x channels bytes, C-contiguous
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..staging import ALIGNMENT, rounded_up

CHANNELS = (1, 3, 4)
PIXELS_MAX = (2**31 - 1) // max(
    CHANNELS
)  # a byte of an image, and a number of its part of the batch, has an int32 index
REAL_NUMBERS = (float, int, np.floating, np.integer)
LARGEST = {"float32": 3.4028234663852886e38, "float16": 65504.0, "bfloat16": 3.3895313892515355e38}


class StagedImages(NamedTuple):
    """The images of a region: where the tables are and what the images look like. Plain data of the host."""

    tables_at: int
    channels: int
    heights: NDArray[np.int32]
    widths: NDArray[np.int32]

    @property
    def n_images(self) -> int:
        """How many."""
        return len(self.heights)

    @property
    def n_bytes(self) -> int:
        """Bytes from tables_at to where the last image's last 16 end."""
        return staged_bytes(self.heights, self.widths, self.channels)


class ImageForm(NamedTuple):
    """What a batch is to look like: channel c is (x - mean[c]) * scale[c] of an image's channel order[c]."""

    height: int
    width: int
    order: tuple[int, ...]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    dtype: str
    pad_value: float  # a float32; rounded to dtype once


def tables_bytes(n_images: int) -> int:
    """Bytes of the three tables, up to where the first image may begin."""
    return rounded_up(16 * n_images)


def staged_bytes(heights: Sequence[int] | NDArray[Any], widths: Sequence[int] | NDArray[Any], channels: int) -> int:
    """Bytes that a batch needs from a multiple of 16 on; itself a multiple of 16."""
    image_bytes = np.asarray(heights, np.int64) * widths * channels
    return tables_bytes(len(image_bytes)) + int(((image_bytes + (ALIGNMENT - 1)) & -ALIGNMENT).sum())


def checked_images(images: Iterable[Any]) -> list[NDArray[np.uint8]]:
    """The images as a list of one's own.

    Raises  TypeError, ValueError: no images; one that is no array, not uint8, not (height, width, channels), of other
            channels than the first, not C-contiguous, or larger than an int32 can index.
    """
    if isinstance(images, str | bytes) or not isinstance(images, Iterable):
        raise TypeError(f"images is {type(images).__name__}; allowed: a sequence of uint8 arrays")
    images = list(images)
    if not images:
        raise ValueError("images is empty; allowed: at least one image")
    for i, image in enumerate(images):
        if not isinstance(image, np.ndarray):
            raise TypeError(f"images[{i}] is {type(image).__name__}; allowed: a NumPy array")
        if image.dtype != np.uint8:
            raise TypeError(f"images[{i}] has dtype {image.dtype}; allowed: uint8")
        if image.ndim != 3 or image.shape[2] not in CHANNELS or image.shape[2] != images[0].shape[2]:
            channels = images[0].shape[2] if i else "1, 3 or 4"
            raise ValueError(f"images[{i}] has shape {image.shape}; allowed: (height, width, {channels})")
        if not image.flags.c_contiguous:
            raise ValueError(f"images[{i}] has strides {image.strides}; allowed: C-contiguous")
        if image.shape[0] * image.shape[1] > PIXELS_MAX:
            raise ValueError(f"images[{i}] has shape {image.shape}; allowed: at most {PIXELS_MAX} pixels")
    return images


def check_staged(images: StagedImages) -> None:
    """That a region's images may be what is said of them.

    Raises  ValueError: no images, other channels, tables of two lengths, negative sizes.
    """
    if images.channels not in CHANNELS:
        raise ValueError(f"images.channels is {images.channels}; allowed: 1, 3 or 4")
    if images.heights.ndim != 1 or images.heights.shape != images.widths.shape or not images.n_images:
        raise ValueError(
            f"images.heights and images.widths have shapes {images.heights.shape} and {images.widths.shape}; "
            "allowed: one of each for each of at least one image"
        )
    if min(images.heights.min(), images.widths.min()) < 0:
        raise ValueError(f"images are {images.heights.min()} x {images.widths.min()} or more; allowed: at least 0")


def _per_channel(argument: str, values: Any, channels: int) -> NDArray[np.float32]:
    given = np.asarray(values)
    if given.dtype.kind not in "iuf":
        raise TypeError(f"{argument} is {values!r}; allowed: a number, or one for each channel")
    if given.shape not in ((), (channels,)):
        raise ValueError(f"{argument} has shape {given.shape}; allowed: () or ({channels},), one for each channel")
    numbers = [given.item()] * channels if given.ndim == 0 else given.tolist()
    if not all(abs(number) <= LARGEST["float32"] for number in numbers):  # nor is NaN
        raise ValueError(f"{argument} is {values!r}; allowed: numbers that are finite as float32")
    return np.array(numbers, np.float32)


def _side(argument: str, given: Any, largest: int) -> int:
    if given is None:
        return largest
    if isinstance(given, bool) or not hasattr(given, "__index__"):
        raise TypeError(f"{argument} is {given!r}; allowed: an integer, or None for the largest image's")
    side = int(given.__index__())
    if side < largest:
        raise ValueError(f"{argument} is {side}; allowed: at least {largest}, the largest image's")
    return side


def checked_form(
    sizes: Sequence[tuple[int, int]],
    channels: int,
    mean: Any,
    scale: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    dtype: Any = "float32",
    pad_value: float = 0.0,
    swap_channels: bool = False,
) -> ImageForm:
    """How the batch of images of these (height, width) will look.

    Raises  TypeError, ValueError: naming the argument, what it is and what is allowed.
    """
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    if name not in LARGEST and not isinstance(dtype, str):
        try:
            name = str(np.dtype(dtype))
        except TypeError:
            pass
    if name not in LARGEST:
        raise TypeError(f"dtype is {dtype!r}; allowed: {', '.join(LARGEST)}")
    if not isinstance(swap_channels, bool):
        raise TypeError(f"swap_channels is {swap_channels!r}; allowed: True or False")
    if swap_channels and channels == 1:
        raise ValueError("swap_channels is True; allowed: False for images of 1 channel")
    if not isinstance(pad_value, REAL_NUMBERS) or isinstance(pad_value, bool):
        raise TypeError(f"pad_value is {pad_value!r}; allowed: one real number")
    if not math.isfinite(pad_value):
        raise ValueError(f"pad_value is {pad_value!r}; allowed: a finite number")
    limit = LARGEST[name]
    if abs(pad_value) > limit:
        raise ValueError(f"pad_value is {pad_value!r}; allowed for {name}: -{limit:g} to {limit:g}")
    rows = _side("height", height, int(max(size[0] for size in sizes)))
    columns = _side("width", width, int(max(size[1] for size in sizes)))
    if rows * columns > PIXELS_MAX:
        raise ValueError(f"height and width are {rows} and {columns}; allowed: at most {PIXELS_MAX} pixels")
    order = (2, 1, 0, *range(3, channels)) if swap_channels else tuple(range(channels))
    return ImageForm(
        rows,
        columns,
        order,
        _per_channel("mean", mean, channels),
        _per_channel("scale", scale, channels),
        name,
        float(np.float32(pad_value)),
    )


def stage(images: Iterable[NDArray[np.uint8]], memory: NDArray[np.uint8], at: int = 0) -> StagedImages:
    """Write images and their tables into host memory, as above.

    images    uint8 (height, width, channels) each, C-contiguous; only heights and widths differ
    memory    (bytes,) uint8, C-contiguous, written from byte `at` on, a multiple of 16
    Returns   where they are; it holds no reference to memory
    Raises    TypeError, ValueError: see checked_images; memory too small or of another form
    Moves     each image's bytes once, and 16 bytes an image of tables
    """
    images = checked_images(images)
    if memory.dtype != np.uint8 or memory.ndim != 1 or not memory.flags.c_contiguous:
        raise ValueError(f"memory is {memory.dtype} of shape {memory.shape}; allowed: uint8, (bytes,), C-contiguous")
    if at < 0 or at % ALIGNMENT:
        raise ValueError(f"at is {at}; allowed: a multiple of {ALIGNMENT}")
    n = len(images)
    heights, widths = np.array([image.shape[:2] for image in images], np.int32).T.copy()
    staged = StagedImages(at, images[0].shape[2], heights, widths)
    if at + staged.n_bytes > memory.size:
        raise ValueError(f"memory has {memory.size} bytes; allowed: at least {at + staged.n_bytes}")
    image_bytes = np.array([image.size for image in images], np.int64)
    ends = np.cumsum(-(-image_bytes // ALIGNMENT) * ALIGNMENT)
    offsets = at + tables_bytes(n) + np.concatenate([[0], ends[:-1]]).astype(np.int64)
    memory[at : at + 16 * n] = np.concatenate([table.view(np.uint8) for table in (offsets, heights, widths)])
    for image, begin in zip(images, offsets.tolist(), strict=True):
        memory[begin : begin + image.size] = image.reshape(-1)
    return staged
