"""Images into one normalised batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infcore._core.images import pack_into
from infcore._on_device import known, on_device
from infcore.errors import InfcoreError, InvalidArgument, InvalidType, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["image_pack"]


def image_pack(
    images: Iterable[NDArray[np.uint8]],
    mean: float | Sequence[float] | NDArray[Any],
    scale: float | Sequence[float] | NDArray[Any],
    *,
    dtype: Any = "float32",
    device: str = "cpu",
    height: int | None = None,
    width: int | None = None,
    pad_value: float = 0.0,
    swap_channels: bool = False,
    out: Any = None,
    stream: Any = None,
) -> Any:
    """One array of many images: (x - mean) * scale of each channel, channels first, in one pass over the bytes.

    images         n >= 1 uint8 arrays (height, width, channels), C-contiguous, of 1, 3 or 4 channels each; heights and
                   widths may differ. Read only, not to be changed during the call
    mean, scale    a number, or one for each channel of the result, in units of the bytes: for a mean and deviation
                   given for 0 to 1, mean=255 * m and scale=1 / (255 * d)
    dtype          "float32", "float16" or "bfloat16" (on the CPU that of ml_dtypes). Computed in float32, rounded once
    device         "cpu", "cuda" or "cuda:N"
    height, width  of the result; None: of the highest and the widest image. Images lie at the top left
    pad_value      what the result holds beside them, as it is: neither mean nor scale apply to it
    swap_channels  the result's first three channels in the opposite order: RGB for BGR
    out            where to: an array of the device's library with the result's shape and dtype, C-contiguous. None: new
    stream         of the GPU, that of the library which runs it (PyTorch, else CuPy); None: its current one
    Returns        (n, channels, height, width); a new one is the caller's
    Raises         InvalidArgument, InvalidType: naming the argument, what it is and what is allowed; before any launch
    Costs          each byte of input read once, each number written once; large batches without the GIL
    """
    from infcore.kernels.image_pack import staging

    try:
        checked = staging.checked_images(images)
        sizes = [image.shape[:2] for image in checked]
        form = staging.checked_form(
            sizes,
            checked[0].shape[2],
            mean,
            scale,
            height=height,
            width=width,
            dtype=dtype,
            pad_value=pad_value,
            swap_channels=swap_channels,
        )
        if known(device) != "cpu":
            return _on_device(checked, form, device, out, stream)
    except InfcoreError:
        raise
    except ValueError as wrong:
        raise InvalidArgument(*wrong.args) from None
    except TypeError as wrong:
        raise InvalidType(*wrong.args) from None
    if stream is not None:
        raise InvalidArgument(f"stream is {stream!r}; allowed: None on the CPU")
    shape = (len(checked), len(form.order), form.height, form.width)
    dtype = _numpy_dtype(form.dtype)
    if out is None:
        out = np.empty(shape, dtype)
    elif not isinstance(out, np.ndarray) or out.dtype != dtype:
        raise InvalidType(f"out is {getattr(out, 'dtype', type(out).__name__)}; allowed: a NumPy array of {dtype}")
    elif out.shape != shape or not out.flags.carray:
        raise InvalidArgument(
            f"out has shape {out.shape} and strides {out.strides}; allowed: {shape}, C-contiguous, writable"
        )
    items = out.view(np.uint16) if form.dtype == "bfloat16" else out
    pack_into(items, checked, form.order, form.mean, form.scale, form.pad_value)
    return out


def _numpy_dtype(name: str) -> Any:
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError as missing:
        raise MissingExtra("dtype 'bfloat16' needs the package 'ml_dtypes': pip install 'infcore[gpu]'") from missing
    return np.dtype(ml_dtypes.bfloat16)


def _on_device(images: list[NDArray[np.uint8]], form: Any, device: str, out: Any, stream: Any) -> Any:
    from infcore.kernels.image_pack import launch, staging

    def launched(region: Any, staged: Any, backend: str) -> Any:
        return launch.launched(region, staged, form, backend=backend, stream=stream, out=out)

    heights, widths = zip(*(image.shape[:2] for image in images), strict=True)
    n_bytes = staging.staged_bytes(heights, widths, len(form.order))
    return on_device(device, stream, n_bytes, lambda memory: staging.stage(images, memory), launched)
