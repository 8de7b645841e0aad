#pragma once

#include "../cuda/moves.cuh"
#include "../cuda/numbers.cuh"

/// Staged uint8 images of height x width x channels -> one batch of channels x height x width each, normalised.
/// A block takes one tile of one image's place in the batch: grid (tiles, images). A thread takes a group of 16 pixels:
/// 16 bytes of each channel, which are loads of 128 bits, and 16 numbers of each channel, which are stores of 128 bits.
/// Images that are not whole groups go pixel by pixel, a pixel a thread, so that neighbours still share a store.
namespace infcore::kernels {

constexpr int image_threads = 128;
constexpr int group_pixels = 16;
constexpr int image_tile_pixels = image_threads * group_pixels;

enum ImagePaths : int { all_wide = 0, mixed_paths = 1, all_narrow = 2 };

/// Of each channel of an image: how it is normalised and where its plane of the batch begins, in items.
template <int channels>
struct ChannelForms {
  float mean[channels];
  float scale[channels];
  int plane_at[channels];
};

/// One image and its place in the batch; both sizes in pixels.
struct ImagePlace {
  int image_height;
  int image_width;
  int height;
  int width;
};

template <typename Dst>
__device__ __forceinline__ Dst normalised(unsigned int byte, float mean, float scale) {
  return converted<Dst>((static_cast<float>(byte) - mean) * scale);
}

/// A tile of an image that is whole groups. One of the batch's own size is a single row of them, whatever its width.
template <typename Dst, int channels>
__device__ __forceinline__ void pack_wide(const unsigned char* src, Dst* dst, const ImagePlace& place,
                                          const ChannelForms<channels>& forms, float pad) {
  const int plane = place.height * place.width;
  const bool whole = place.image_height == place.height && place.image_width == place.width;
  const int row_groups = (whole ? plane : place.width) / group_pixels;
  const int image_groups = (whole ? plane : place.image_width) / group_pixels;
  const int n_rows = whole ? 1 : place.image_height;
  const int group = static_cast<int>(blockIdx.x) * image_threads + static_cast<int>(threadIdx.x);
  if (group >= plane / group_pixels) return;
  const int y = group / row_groups;
  const int x = group - y * row_groups;
  const bool inside = y < n_rows && x < image_groups;
  constexpr int n_words = channels * group_pixels / 4;
  unsigned int words[n_words] = {};
  if (inside) {
    const long long src_group = static_cast<long long>(y) * image_groups + x;
    read_wide(reinterpret_cast<const unsigned int*>(src + src_group * (channels * group_pixels)), words);
  }
#pragma unroll
  for (int c = 0; c < channels; ++c) {
    constexpr int n_values = wide_bytes / int(sizeof(Dst));  // of one store
#pragma unroll
    for (int part = 0; part < group_pixels; part += n_values) {
      Dst values[n_values];
#pragma unroll
      for (int i = 0; i < n_values; ++i) {
        const int at = (part + i) * channels + c;
        const unsigned int byte = (words[at / 4] >> (at % 4 * 8)) & 0xFFu;
        values[i] = inside ? normalised<Dst>(byte, forms.mean[c], forms.scale[c]) : converted<Dst>(pad);
      }
      write_wide(dst + forms.plane_at[c] + group * group_pixels + part, values);
    }
  }
}

/// A tile of any image.
template <typename Dst, int channels>
__device__ __forceinline__ void pack_narrow(const unsigned char* src, Dst* dst, const ImagePlace& place,
                                            const ChannelForms<channels>& forms, float pad) {
  const int plane = place.height * place.width;
  const int first = static_cast<int>(blockIdx.x) * image_tile_pixels + static_cast<int>(threadIdx.x);
#pragma unroll 4
  for (int k = 0; k < group_pixels; ++k) {
    const int at = first + k * image_threads;
    if (at >= plane) return;
    const int y = at / place.width;
    const int x = at - y * place.width;
    const bool inside = y < place.image_height && x < place.image_width;
    const unsigned char* from = src + (static_cast<long long>(y) * place.image_width + x) * channels;
#pragma unroll
    for (int c = 0; c < channels; ++c) {
      const Dst value = inside ? normalised<Dst>(read(from + c), forms.mean[c], forms.scale[c]) : converted<Dst>(pad);
      write(dst + forms.plane_at[c] + at, value);
    }
  }
}

/// base           what image_offsets count from; a multiple of 16 bytes, as each offset is
/// heights, widths  (images,) of each image
/// out            (images, channels, height, width); a multiple of 16 bytes unless all_narrow
/// swapped        1: the first three channels in the opposite order
/// mean0 ...      of an image's channels, in their order; unused ones are there for one signature
/// At least 8 blocks on a multiprocessor: without a bound ptxas aims at 16, for which a narrow type's 32 registers of
/// one channel are not enough on sm_80, and spills. Nor are 64 for four channels and both paths.
template <typename Dst, int channels, int paths>
__global__ void __launch_bounds__(image_threads, paths == mixed_paths && channels == 4 ? 7 : 8)
    pack_images(const unsigned char* __restrict__ base, const long long* __restrict__ image_offsets,
                const int* __restrict__ heights, const int* __restrict__ widths, unsigned char* __restrict__ out,
                int height, int width, int swapped, float mean0, float mean1, float mean2, float mean3, float scale0,
                float scale1, float scale2, float scale3, float pad) {
  const int image = static_cast<int>(blockIdx.y);
  const ImagePlace place{read_by_all(heights + image), read_by_all(widths + image), height, width};
  const int plane = height * width;
  const unsigned char* const src = base + read_by_all(image_offsets + image);
  Dst* const dst = reinterpret_cast<Dst*>(out) + static_cast<long long>(image) * channels * plane;
  const float means[4] = {mean0, mean1, mean2, mean3};
  const float scales[4] = {scale0, scale1, scale2, scale3};
  ChannelForms<channels> forms;
#pragma unroll
  for (int c = 0; c < channels; ++c) {
    forms.mean[c] = means[c];
    forms.scale[c] = scales[c];
    forms.plane_at[c] = (swapped != 0 && c < 3 ? 2 - c : c) * plane;
  }
  const bool whole = place.image_height == height && place.image_width == width;
  const bool whole_groups = whole || (place.image_width % group_pixels == 0 && width % group_pixels == 0);
  if (paths == all_wide || (paths == mixed_paths && whole_groups)) {
    pack_wide<Dst, channels>(src, dst, place, forms, pad);
  } else {
    pack_narrow<Dst, channels>(src, dst, place, forms, pad);
  }
}

}  // namespace infcore::kernels
