#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include <infcore/device/image_packer.hpp>

namespace {

using infcore::device::ImageLayout;
using infcore::device::ImageSource;
using infcore::device::pack_images;
using infcore::device::pack_images_bfloat16;
using infcore::device::pack_images_float16;

/// An image in a heap block of exactly its size, so that the address sanitizer sees one byte too many; none when empty.
struct Image {
  std::int64_t height, width;
  std::size_t bytes;
  std::unique_ptr<std::uint8_t[]> data;

  Image(std::int64_t h, std::int64_t w, std::uint32_t channels, std::minstd_rand& random)
      : height(h),
        width(w),
        bytes(static_cast<std::size_t>(h * w) * channels),
        data(bytes ? new std::uint8_t[bytes] : nullptr) {
    for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::uint8_t>(random() >> 8);
  }
};

/// The nearest binary16 by search, from the definition: of two equally near ones, that whose last bit is 0.
std::uint16_t nearest_float16(float value) {
  const auto as_double = [](std::uint32_t bits) {
    const std::uint32_t exponent = bits >> 10, fraction = bits & 0x3FF;
    if (exponent == 0) return std::ldexp(double(fraction), -24);
    return std::ldexp(double(1024 + fraction), static_cast<int>(exponent) - 25);
  };
  const double magnitude = std::fabs(double{value});
  std::uint32_t below = 0, above = 0x7C00;  // its value, read as a finite number, is 2**16: where the range would go on
  while (above - below > 1) {
    const std::uint32_t middle = (below + above) / 2;
    (as_double(middle) <= magnitude ? below : above) = middle;
  }
  const double to_below = magnitude - as_double(below), to_above = as_double(above) - magnitude;
  const bool up = to_above < to_below || (to_above == to_below && (below & 1) != 0);
  return static_cast<std::uint16_t>((std::signbit(value) ? 0x8000u : 0u) | (up ? above : below));
}

/// Of the two bfloat16 around a float the nearer one, or the even one.
std::uint16_t nearest_bfloat16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value), below = bits >> 16, dropped = bits & 0xFFFF;
  const bool up = dropped > 0x8000 || (dropped == 0x8000 && (below & 1) != 0);
  return static_cast<std::uint16_t>(below + (up ? 1 : 0));
}

struct Batch {
  std::vector<Image> images;
  ImageLayout layout{};

  [[nodiscard]] std::vector<ImageSource> sources() const {
    std::vector<ImageSource> out;
    for (const Image& image : images) out.push_back({image.data.get(), image.height, image.width});
    return out;
  }

  [[nodiscard]] std::size_t items() const {
    return images.size() * layout.channels * static_cast<std::size_t>(layout.height * layout.width);
  }

  /// Each number on its own.
  [[nodiscard]] float item(std::size_t i, std::uint32_t c, std::int64_t y, std::int64_t x) const {
    const Image& image = images[i];
    if (y >= image.height || x >= image.width) return layout.pad_value;
    const std::size_t at = static_cast<std::size_t>(y * image.width + x) * layout.channels + layout.from[c];
    const float centred = static_cast<float>(image.data[at]) - layout.mean[c];
    return centred * layout.scale[c];
  }

  void expect_packed() const {
    const auto floats = std::make_unique<float[]>(items());
    const auto halves = std::make_unique<std::uint16_t[]>(items());
    const auto brains = std::make_unique<std::uint16_t[]>(items());
    std::memset(floats.get(), 0xEE, items() * sizeof(float));
    std::memset(halves.get(), 0xEE, items() * sizeof(std::uint16_t));
    pack_images(sources(), layout, floats.get());
    pack_images_float16(sources(), layout, halves.get());
    std::memset(brains.get(), 0xEE, items() * sizeof(std::uint16_t));
    pack_images_bfloat16(sources(), layout, brains.get());
    std::size_t at = 0;
    for (std::size_t i = 0; i < images.size(); ++i)
      for (std::uint32_t c = 0; c < layout.channels; ++c)
        for (std::int64_t y = 0; y < layout.height; ++y)
          for (std::int64_t x = 0; x < layout.width; ++x, ++at) {
            const float expected = item(i, c, y, x);
            ASSERT_EQ(std::bit_cast<std::uint32_t>(floats[at]), std::bit_cast<std::uint32_t>(expected))
                << i << ' ' << c << ' ' << y << ' ' << x;
            ASSERT_EQ(halves[at], nearest_float16(expected)) << i << ' ' << c << ' ' << y << ' ' << x;
            ASSERT_EQ(brains[at], nearest_bfloat16(expected)) << i << ' ' << c << ' ' << y << ' ' << x;
          }
  }
};

TEST(ImagePacker, EveryShapeAndChannelOrderMatchesItemByItem) {
  std::minstd_rand random(1);
  const auto below = [&](std::uint32_t n) { return static_cast<std::int64_t>((random() >> 4) % n); };
  for (int round = 0; round < 300; ++round) {
    Batch batch;
    batch.layout.channels = std::vector<std::uint32_t>{1, 3, 4}[static_cast<std::size_t>(below(3))];
    const bool same_size = round % 3 == 0;
    const std::int64_t height = below(6), width = below(round % 20 == 0 ? 700 : 40);
    for (std::int64_t n = 1 + below(3); n > 0; --n) {
      batch.images.emplace_back(same_size ? height : below(6), same_size ? width : below(40), batch.layout.channels,
                                random);
      batch.layout.height = std::max(batch.layout.height, batch.images.back().height);
      batch.layout.width = std::max(batch.layout.width, batch.images.back().width);
    }
    batch.layout.height += below(2);
    batch.layout.width += below(2);
    for (std::uint32_t c = 0; c < batch.layout.channels; ++c) {
      batch.layout.from[c] = batch.layout.channels > 1 && c < 3 && round % 2 ? 2 - c : c;
      batch.layout.mean[c] = static_cast<float>(below(2560)) / 10.0f;
      batch.layout.scale[c] = static_cast<float>(below(1000) - 500) / 3.0e4f;
    }
    batch.layout.pad_value = static_cast<float>(below(100)) - 49.7f;
    batch.expect_packed();
  }
}

TEST(ImagePacker, Float16RoundsLikeTheDefinitionEverywhere) {
  // Scales that spread the 256 bytes over the normal, subnormal and overflowing ranges, with every kind of tie.
  std::minstd_rand random(2);
  for (const float scale : {1.0f, 257.0f, 0.0009765625f, 5.9604645e-8f, 2.9802322e-8f, 1.1e-7f, 1.0f / 3.0f, 300.5f}) {
    Batch batch;
    batch.layout.channels = 1;
    batch.images.emplace_back(1, 256, 1u, random);
    for (std::size_t i = 0; i < 256; ++i) batch.images[0].data[i] = static_cast<std::uint8_t>(i);
    batch.layout.height = 1;
    batch.layout.width = 256;
    batch.layout.mean[0] = 100.25f;
    batch.layout.scale[0] = scale;
    batch.expect_packed();
  }
}

TEST(ImagePacker, PadValuesBecomeTheNearestFloat16) {
  std::minstd_rand random(3);
  for (const float pad : {0.0f, -0.0f, 65504.0f, 65519.996f, 65520.0f, 1.0e30f, 6.1035156e-5f, 6.1e-5f, 2.9802322e-8f,
                          2.9802326e-8f, 1.0009766f, 1.0014648f, std::numeric_limits<float>::infinity()}) {
    Batch batch;
    batch.layout.channels = 3;
    batch.layout.from[1] = 1;
    batch.layout.from[2] = 2;
    batch.images.emplace_back(0, 0, 3u, random);
    batch.layout.height = 1;
    batch.layout.width = 1;
    batch.layout.pad_value = pad;
    std::uint16_t out[3] = {1, 1, 1};
    pack_images_float16(batch.sources(), batch.layout, out);
    EXPECT_EQ(out[0], std::isinf(pad) || pad >= 65520.0f ? 0x7C00 : nearest_float16(pad)) << pad;
    EXPECT_EQ(out[2], out[0]);
  }
}

TEST(ImagePacker, NoImagesTouchNothing) {
  ImageLayout layout{};
  layout.channels = 3;
  layout.height = 4;
  layout.width = 4;
  pack_images({}, layout, nullptr);
  pack_images_float16({}, layout, nullptr);
  pack_images_bfloat16({}, layout, nullptr);
}

}  // namespace
