"""Packs the same images by every back-end that runs without a GPU, and gives NumPy arrays."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from gpu import interpreter
from gpu.host_arrays import pretended_cupy
from gpu.host_build import HostBuild, Memory
from gpu.pack_rig import aligned, from_torch, to_torch
from numpy.typing import NDArray

from infcore.kernels import dtypes
from infcore.kernels.image_pack import cupy_kernel, launch, staging
from infcore.kernels.image_pack.plan import plan

Images = list[NDArray[np.uint8]]


class Moved(NamedTuple):
    """Bytes that a launch moved: of the images and their tables, read; of the batch, written."""

    image_bytes: int
    table_bytes: int
    written_bytes: int
    overwritten_bytes: int
    wide_reads: int | None = None  # of 16 bytes; not known of interpreted kernels
    wide_writes: int | None = None


@cache
def build() -> HostBuild:
    """Every instantiation that a plan can ask for."""
    types, paths = cupy_kernel.CPP_TYPES.values(), range(len(cupy_kernel.PATHS))
    names = [
        f"infcore::kernels::pack_images<{dst}, {channels}, {path}>"
        for dst in types
        for channels in staging.CHANNELS
        for path in paths
    ]
    return HostBuild(cupy_kernel.SOURCE, names)


def staged(images: Images, at: int = 32) -> tuple[NDArray[np.uint8], staging.StagedImages]:
    """A region with room before the images, where something else might be, and none after them."""
    sizes = np.array([image.shape[:2] for image in images])
    memory = aligned(at + staging.staged_bytes(sizes[:, 0], sizes[:, 1], images[0].shape[2]))
    return memory, staging.stage(images, memory, at)


def form_of(images: Images, mean: Any, scale: Any, options: dict[str, Any]) -> staging.ImageForm:
    return staging.checked_form([image.shape[:2] for image in images], images[0].shape[2], mean, scale, **options)


def batch_shape(images: Images, form: staging.ImageForm) -> tuple[int, ...]:
    return (len(images), images[0].shape[2], form.height, form.width)


def by_triton(
    images: Images, mean: Any, scale: Any, options: dict[str, Any], out_shift: int = 0
) -> tuple[NDArray[Any], Moved]:
    """By the interpreter, watched; out_shift items past a multiple of 16 bytes."""
    torch = interpreter.require()
    form = form_of(images, mean, scale, options)
    memory, place = staged(images)
    first_image = place.tables_at + staging.tables_bytes(place.n_images)
    region = torch.from_numpy(memory)
    with interpreter.watched(torch) as watch:
        watch.allow("tables", region[place.tables_at : first_image])
        watch.allow("images", region[first_image:])
        out = to_torch(torch, np.zeros(batch_shape(images, form), dtypes.numpy_dtype(form.dtype)), out_shift)
        out.view(-1).view(torch.uint8).fill_(0xA5)
        watch.allow("out", out)
        got = launch.image_pack(region, place, mean, scale, **options, backend="triton", out=out)
    read, written = watch.read_bytes, watch.written_bytes
    return from_torch(got), Moved(read["images"], read["tables"], written["out"], watch.overwritten_bytes)


def by_cuda(
    images: Images, mean: Any, scale: Any, options: dict[str, Any], out_shift: int = 0
) -> tuple[NDArray[Any], Moved | None]:
    """By the CUDA source on the host, through all of launch()."""
    form = form_of(images, mean, scale, options)
    with pretended_cupy(build()) as arrays:
        memory, place = staged(images)
        shift = out_shift * dtypes.ITEM_BYTES[form.dtype]
        out = arrays.empty(batch_shape(images, form), form.dtype, "cuda:0", misaligned_by=shift)
        got = launch.image_pack(arrays.array(memory), place, mean, scale, **options, backend="cupy", out=out)
        return got.numpy(), None


def counted_cuda(images: Images, mean: Any, scale: Any, options: dict[str, Any]) -> Moved:
    """By the CUDA source on the host, tables and images in memory of their own, so that bytes are counted apart."""
    form = form_of(images, mean, scale, options)
    staged_bytes, place = staged(images)
    memory = Memory()
    region = memory.add(staged_bytes)
    tables = memory.add(staged_bytes[place.tables_at : place.tables_at + 16 * place.n_images])
    items = int(np.prod(batch_shape(images, form)))
    out = memory.add_poisoned(items * dtypes.ITEM_BYTES[form.dtype])
    made = plan(place, form, aligned=True)
    n = place.n_images
    build().run(
        cupy_kernel.cuda_launch(
            made, base=region, image_offsets=tables, heights=tables + 8 * n, widths=tables + 12 * n, out=out
        ),
        memory,
    )
    read, table, target = (memory.counted_at(address) for address in (region, tables, out))
    return Moved(
        read.read_bytes,
        table.read_bytes,
        target.written_bytes,
        target.overwritten_bytes,
        read.wide_reads,
        target.wide_writes,
    )
