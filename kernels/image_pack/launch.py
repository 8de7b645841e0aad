"""image_pack on a GPU: checks, then one launch."""

from typing import Any

from .. import backends, dtypes
from .plan import N_IMAGES_MAX, plan
from .staging import ImageForm, StagedImages, check_staged, checked_form


def image_pack(
    memory: Any,
    images: StagedImages,
    mean: Any,
    scale: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    dtype: Any = "float32",
    pad_value: float = 0.0,
    swap_channels: bool = False,
    backend: str | None = None,
    stream: Any = None,
    out: Any = None,
) -> Any:
    """Staged uint8 images as one batch, channels first: (x - mean) * scale in float32, rounded once.

    memory         (bytes,) uint8 on the device, 16-byte aligned: a copy of what staging.stage wrote; read only
    images         what stage returned
    mean, scale    a number, or one for each channel of the batch
    height, width  of the batch; None: of the highest and the widest image. Images lie at the top left
    dtype          float32, float16 or bfloat16
    pad_value      what the batch holds beside an image; neither mean nor scale apply to it
    swap_channels  the first three channels in the opposite order
    out            (n, channels, height, width) of dtype on the same device, C-contiguous; None makes it
    stream         of the back-end's library, or an address; None is its current one
    Returns        out; valid once the stream reaches this point. The caller's
    Raises         TypeError, ValueError: naming the argument, what it is and what is allowed; before the launch
    Moves          each byte of the images once, each number of the batch once, 16 bytes an image of tables
    """
    check_staged(images)
    form = checked_form(
        [(int(images.heights.max()), int(images.widths.max()))],
        images.channels,
        mean,
        scale,
        height=height,
        width=width,
        dtype=dtype,
        pad_value=pad_value,
        swap_channels=swap_channels,
    )
    return launched(memory, images, form, backend=backend, stream=stream, out=out)


def launched(memory: Any, images: StagedImages, form: ImageForm, *, backend: str | None, stream: Any, out: Any) -> Any:
    """The same of a form that is checked."""
    arrays = backends.arrays(backend)
    memory = arrays.adopt(memory, stream)
    facts = arrays.facts(memory)
    backends.check_device(facts, "memory")
    backends.check_contiguous(facts, "memory")
    if facts.dtype != "uint8" or len(facts.shape) != 1:
        raise TypeError(f"memory is {facts.dtype} of shape {facts.shape}; allowed: uint8, (bytes,)")
    if facts.address % 16 or images.tables_at % 16:
        raise ValueError(
            f"memory is at {facts.address:#x}, images.tables_at {images.tables_at}; allowed: multiples of 16"
        )
    if images.tables_at < 0 or images.tables_at + images.n_bytes > facts.shape[0]:
        raise ValueError(f"memory has {facts.shape[0]} bytes; allowed: at least {images.tables_at + images.n_bytes}")
    if images.n_images > N_IMAGES_MAX:
        raise ValueError(f"images are {images.n_images}; allowed: at most {N_IMAGES_MAX}")
    shape = (images.n_images, images.channels, form.height, form.width)
    with arrays.on(facts.device, stream):
        if out is None:
            out = arrays.empty(shape, form.dtype, facts.device)
        out = arrays.adopt(out, stream)
        target = arrays.facts(out)
        backends.check_device(target, "out", facts.device)
        backends.check_contiguous(target, "out")
        if target.dtype != form.dtype:
            raise TypeError(f"out is {target.dtype}; allowed: {form.dtype}")
        if target.shape != shape:
            raise ValueError(f"out has shape {target.shape}; allowed: {shape}")
        if target.address % dtypes.ITEM_BYTES[form.dtype]:
            raise ValueError(f"out begins at {target.address:#x}; allowed: a multiple of one {form.dtype}'s size")
        if form.height * form.width == 0:
            return out
        made = plan(images, form, aligned=target.address % 16 == 0)
        if arrays.name == "triton":
            from . import triton_kernel

            triton_kernel.launch(made, memory, images.tables_at, out)
        else:
            from .. import cuda_module
            from .cupy_kernel import cuda_launch

            tables_at, n = facts.address + images.tables_at, images.n_images
            launch = cuda_launch(
                made,
                base=facts.address,
                image_offsets=tables_at,
                heights=tables_at + 8 * n,
                widths=tables_at + 12 * n,
                out=target.address,
            )
            cuda_module.run(launch, device=backends.device_index(facts.device))
    return out
