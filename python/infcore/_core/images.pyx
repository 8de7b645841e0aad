"""Images as one normalised batch: the border to image_packer.hpp. What is allowed, infcore.image_packing says."""
from libc.stdint cimport uint8_t, uint16_t
from libcpp.vector cimport vector

cimport numpy as cnp

from infcore._cpp.device cimport nogil_bytes_min
from infcore._cpp.image_packer cimport (ImageLayout, ImageSource, ImageSpan, pack_images, pack_images_bfloat16,
                                        pack_images_float16)

from infcore.errors import InvalidArgument

cnp.import_array()


def pack_into(cnp.ndarray out not None, list images not None, tuple order not None, mean, scale, float pad_value):
    """Fill out, (n, channels, height, width), C-contiguous: float32, float16, or bfloat16 as the uint16 of its bits.

    order, mean, scale: one per channel.
    """
    cdef ImageLayout layout
    cdef vector[ImageSource] sources
    cdef int item = out.descr.type_num
    cdef size_t c
    if cnp.PyArray_NDIM(out) != 4 or not cnp.PyArray_ISCARRAY(out) or len(images) != cnp.PyArray_DIM(out, 0):
        raise InvalidArgument(f"out has shape {(<object>out).shape}; allowed: 4 axes, C-contiguous, one entry an image")
    if item not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT16, cnp.NPY_UINT16):
        raise InvalidArgument(f"out has dtype {out.dtype}; allowed: float32, float16, uint16 for bfloat16")
    layout.channels = cnp.PyArray_DIM(out, 1)
    layout.height = cnp.PyArray_DIM(out, 2)
    layout.width = cnp.PyArray_DIM(out, 3)
    layout.pad_value = pad_value
    if layout.channels not in (1, 3, 4) or sorted(order) != list(range(layout.channels)):
        raise InvalidArgument(f"order is {order} for {layout.channels} channels; allowed: a permutation of 1, 3 or 4")
    for c in range(layout.channels):
        layout.source[c] = order[c]
        layout.mean[c] = mean[c]
        layout.scale[c] = scale[c]
    _borrow(images, layout, sources)
    cdef ImageSpan span = ImageSpan(sources.data(), sources.size())
    cdef void* dst = cnp.PyArray_DATA(out)
    if cnp.PyArray_NBYTES(out) < nogil_bytes_min:
        _pack(span, layout, dst, item)
    else:
        with nogil:
            _pack(span, layout, dst, item)


cdef int _borrow(list images, const ImageLayout& layout, vector[ImageSource]& sources) except -1:
    cdef const uint8_t[:, :, ::1] pixels
    cdef ImageSource source
    sources.reserve(len(images))
    for i, image in enumerate(images):
        pixels = image  # a buffer of another type or form is refused here
        source.height = pixels.shape[0]
        source.width = pixels.shape[1]
        if pixels.shape[2] != layout.channels or source.height > layout.height or source.width > layout.width:
            raise InvalidArgument(f"images[{i}] has shape {image.shape}; allowed: {layout.channels} channels, at most "
                                  f"{layout.height} x {layout.width}")
        source.data = &pixels[0, 0, 0] if source.height > 0 and source.width > 0 else NULL
        sources.push_back(source)
    return 0


cdef void _pack(ImageSpan images, const ImageLayout& layout, void* dst, int item) noexcept nogil:
    if item == cnp.NPY_FLOAT32:
        pack_images(images, layout, <float*>dst)
    elif item == cnp.NPY_FLOAT16:
        pack_images_float16(images, layout, <uint16_t*>dst)
    else:
        pack_images_bfloat16(images, layout, <uint16_t*>dst)
