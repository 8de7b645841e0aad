"""image_pack: cases of every dtype, channel count and path, and what is measured of it."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch_ways
from checking import Case, Output, Place, known_dtypes
from numpy.typing import NDArray
from workloads import Turn, Workload, random_block, torch_dtype

from infcore.kernels import dtypes
from infcore.kernels.image_pack import launch, reference, staging

AT = 32  # where the tables begin: something else may lie before them


def _sizes_drawn(rng: np.random.Generator, *, smoke: bool) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Heights and widths by name: those that loads of 128 bits suit, those that they do not, both at once."""
    most = 40 if smoke else 300
    wide = (int(rng.integers(1, most)), 16 * int(rng.integers(1, most // 16 + 1)))
    odd = (int(rng.integers(1, most)), 16 * int(rng.integers(1, most // 16 + 1)) - 1)
    any_size = [(int(rng.integers(1, most)), int(rng.integers(1, most))) for _ in range(2 if smoke else 9)]
    yield "of one size", [wide] * 2
    yield "of one odd size", [odd] * 2
    yield "wide and odd ones", [wide, (wide[0], max(1, wide[1] - 5))]
    yield "of any size", any_size
    yield "one pixel", [(1, 1)]
    yield "no pixel beside others", [(0, 16), wide, (3, 0)]


def _answer(
    place: Place, images: list[NDArray[np.uint8]], numbers: Any, options: Any, off: int, expected: Any
) -> list[Output]:
    heights, widths = [image.shape[0] for image in images], [image.shape[1] for image in images]
    region = np.full(AT + staging.staged_bytes(heights, widths, images[0].shape[2]), 0xEE, np.uint8)
    staged = staging.stage(images, region, AT)
    dtype = options["dtype"]
    out = place.poisoned(expected.shape, dtype, off * dtypes.ITEM_BYTES[dtype])
    got = launch.image_pack(place.array(region), staged, *numbers, **options, backend=place.backend, out=out)
    return [Output("batch", place.numpy(got, dtype), expected, ulps=1)]


def image_cases(rng: np.random.Generator, *, smoke: bool) -> Iterator[Case]:
    """Each kind of sizes in each dtype and channel count; at smoke size one of them each."""
    floats = [name for name in dtypes.FLOATS if name in known_dtypes()]
    forms = [(dtype, channels) for dtype in floats for channels in staging.CHANNELS]
    for k, (says, sizes) in enumerate(_sizes_drawn(rng, smoke=smoke)):
        for dtype, channels in [forms[(k * 4) % len(forms)]] if smoke else forms:
            images = [rng.integers(0, 256, (*size, channels), np.uint8) for size in sizes]
            grown = bool(rng.integers(2))
            options: dict[str, Any] = {
                "dtype": dtype,
                "pad_value": float(rng.integers(-9, 9)) / 4,
                "swap_channels": channels > 1 and bool(rng.integers(2)),
                "height": max(height for height, _ in sizes) + 5 if grown else None,
                "width": max(width for _, width in sizes) + int(rng.integers(20)) if grown else None,
            }
            numbers = (rng.uniform(0, 255, channels), rng.uniform(-0.1, 0.1, channels))
            off = int(rng.choice([0, 0, 1]))
            expected = reference.image_pack(images, *numbers, **options)
            told = f"{len(sizes)} images {says}, {sizes[:3]} x {channels}, out {off} items off, {options}"
            yield Case(
                "image_pack",
                told,
                partial(_answer, images=images, numbers=numbers, options=options, off=off, expected=expected),
            )


class ImagesShape(NamedTuple):
    """Images of one size, or of heights and widths from half of it on."""

    height: int
    width: int
    dtype: str
    ragged: bool = False

    def __str__(self) -> str:
        sizes = f"{self.height} x {self.width} x 3"
        return f"{'up to ' if self.ragged else ''}{sizes} to {self.dtype}"


SHAPES = (
    ImagesShape(64, 64, "float16"),
    ImagesShape(224, 224, "float16"),
    ImagesShape(224, 224, "float32"),
    ImagesShape(384, 384, "bfloat16", ragged=True),
)
# ImageNet's, in units of a byte; any numbers would do.
MEAN = (123.675, 116.28, 103.53)
SCALE = (1 / 58.395, 1 / 57.12, 1 / 57.375)
CHANNELS = 3
# PyTorch's ways round more than once in the narrow types, on numbers of up to 2.7.
TOLERANCES = {"float32": 1e-6, "float16": 4e-3, "bfloat16": 3e-2}


def image_workload(rng: np.random.Generator, shape: ImagesShape, size_bytes: int) -> Workload:
    """Staged images to a batch."""
    image_bytes = CHANNELS * shape.height * shape.width * dtypes.ITEM_BYTES[shape.dtype]
    n = max(1, size_bytes // image_bytes)
    sides = np.array([(shape.height, shape.width)] * n)
    if shape.ragged:
        sides = rng.integers(sides // 2, sides, endpoint=True)
        sides[0] = shape.height, shape.width
    pixels = random_block(rng, "uint8", shape.height * shape.width * CHANNELS)
    region = np.empty(staging.staged_bytes(sides[:, 0], sides[:, 1], CHANNELS), np.uint8)
    images = [pixels[: height * width * CHANNELS].reshape(height, width, CHANNELS) for height, width in sides.tolist()]
    staged = staging.stage(images, region)
    batch = (n, CHANNELS, shape.height, shape.width)

    def build(device: Any) -> Turn:
        memory = device.array(region)
        out = device.poisoned(batch, shape.dtype)
        call = partial(
            launch.image_pack, memory, staged, MEAN, SCALE, dtype=shape.dtype, backend=device.backend, out=out
        )
        if device.backend != "triton" or shape.ragged:
            return Turn(call, {})
        alike = memory[staging.tables_bytes(n) :].view(n, shape.height, shape.width, CHANNELS)
        return Turn(call, torch_ways.image_ways(alike, np.array(MEAN), np.array(SCALE), torch_dtype(shape.dtype)))

    return Workload(
        op="image_pack",
        says=str(shape),
        size_bytes=n * image_bytes,
        floor_bytes=sum(image.size for image in images) + 16 * n + n * image_bytes,
        set_bytes=region.nbytes + n * image_bytes,
        build=build,
        tolerance=TOLERANCES[shape.dtype],
    )


def image_workloads(rng: np.random.Generator, size_bytes: int) -> Iterator[Workload]:
    """Every shape; one image at least."""
    return (image_workload(rng, shape, size_bytes) for shape in SHAPES)
