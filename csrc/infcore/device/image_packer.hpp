#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

/// Images as cameras and decoders give them -> the dense, normalised batch that a vision model takes, in host memory.
/// One pass: each byte of the images is read once, each number of the batch is written once, by the thread that calls.
/// Nothing allocates, throws or touches Python.
namespace infcore::device {

inline constexpr std::uint32_t image_channels_max = 4;

/// One borrowed image: height rows of width pixels of `channels` bytes each, without gaps. data may be null where a
/// dimension is 0.
struct ImageSource {
  const std::uint8_t* data{};
  std::int64_t height{};
  std::int64_t width{};
};

/// The batch, (n, channels, height, width) and C-contiguous. Channel c of the batch is (x - mean[c]) * scale[c] of the
/// image's channel from[c], each operation rounded to float once, and the result rounded to the batch's type once.
struct ImageLayout {
  std::uint32_t channels{};                  ///< 1, 3 or 4
  std::int64_t height{};                     ///< no image is higher
  std::int64_t width{};                      ///< no image is wider
  std::uint32_t from[image_channels_max]{};  ///< a permutation of 0 .. channels - 1
  float mean[image_channels_max]{};
  float scale[image_channels_max]{};
  float pad_value{};  ///< what the batch holds right of an image and below it
};

/// Fills dst with the batch, as floats.
void pack_images(std::span<const ImageSource> images, const ImageLayout& layout, float* dst) noexcept;

/// Fills dst with the batch, as IEEE 754 binary16; what is beyond its range becomes an infinity.
void pack_images_float16(std::span<const ImageSource> images, const ImageLayout& layout, std::uint16_t* dst) noexcept;

/// The same as bfloat16.
void pack_images_bfloat16(std::span<const ImageSource> images, const ImageLayout& layout, std::uint16_t* dst) noexcept;

}  // namespace infcore::device
