from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t


cdef extern from * nogil:
    """
    #include <infcore/device/image_packer.hpp>
    typedef std::span<const infcore::device::ImageSource> InfcoreImages;
    """
    cdef cppclass ImageSpan "InfcoreImages":
        ImageSpan() noexcept
        ImageSpan(const ImageSource*, size_t) noexcept


cdef extern from "<infcore/device/image_packer.hpp>" namespace "infcore::device" nogil:
    cdef enum:
        image_channels_max

    cdef cppclass ImageSource:
        const uint8_t* data
        int64_t height
        int64_t width

    cdef cppclass ImageLayout:
        ImageLayout() noexcept
        uint32_t channels
        int64_t height
        int64_t width
        uint32_t source "from"[image_channels_max]
        float mean[image_channels_max]
        float scale[image_channels_max]
        float pad_value

    void pack_images(ImageSpan, const ImageLayout&, float* dst) noexcept
    void pack_images_float16(ImageSpan, const ImageLayout&, uint16_t* dst) noexcept
    void pack_images_bfloat16(ImageSpan, const ImageLayout&, uint16_t* dst) noexcept
