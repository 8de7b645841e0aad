"""image_pack in NumPy, one image at a time: what the kernels must give, to the bit."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import dtypes
from .staging import checked_form, checked_images


def image_pack(images: Any, mean: Any, scale: Any, **options: Any) -> NDArray[Any]:
    """(n, channels, height, width); arguments as those of staging.checked_form."""
    images = checked_images(images)
    form = checked_form([image.shape[:2] for image in images], images[0].shape[2], mean, scale, **options)
    dtype = dtypes.numpy_dtype(form.dtype)
    shape = (len(images), len(form.order), form.height, form.width)
    batch = np.full(shape, np.float32(form.pad_value).astype(dtype), dtype)
    for image, place in zip(images, batch, strict=True):
        height, width = image.shape[:2]
        for c, source in enumerate(form.order):
            with np.errstate(over="ignore"):
                normal = (image[:, :, source].astype(np.float32) - form.mean[c]) * form.scale[c]
                place[c, :height, :width] = normal.astype(dtype)
    return batch
