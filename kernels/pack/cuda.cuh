#pragma once

#include "../cuda/moves.cuh"
#include "../cuda/numbers.cuh"

/// Ragged rows -> packed or padded, and back, with a cast on the way.
/// A block takes one tile of one row of the target: grid (rows, tiles & 0x7FFF.., rest of the tiles). It finds where
/// its row begins in the tables, so that the host builds none; blocks past the end of a short row leave at once. An
/// "item" is what is moved at once by the narrow path: an element, or for a move the widest word that fits everywhere.
namespace infcore::kernels {

enum RowsFrom : int { from_table = 0, from_packed = 1, from_padded = 2, from_padded_left = 3 };
enum RowsTo : int { to_packed = 0, to_padded = 1, to_padded_left = 2 };

constexpr int pack_threads = 256;

/// Items of one load and store of the wide path: 16 bytes of the narrower type.
template <typename Src, typename Dst>
constexpr int chunk_items = wide_bytes / int(sizeof(Src) < sizeof(Dst) ? sizeof(Src) : sizeof(Dst));

/// A whole tile of data, nothing masked: every thread has all its loads under way before it stores.
template <typename Src, typename Dst, bool wide, int tile_items>
__device__ __forceinline__ void move_tile(const Src* src, Dst* dst) {
  constexpr int chunk = wide ? chunk_items<Src, Dst> : 1;
  constexpr int n_chunks = tile_items / (chunk * pack_threads);
  static_assert(n_chunks * chunk * pack_threads == tile_items, "the tile is shared out evenly");
  Src taken[n_chunks][chunk];
#pragma unroll
  for (int k = 0; k < n_chunks; ++k) {
    const int at = (k * pack_threads + int(threadIdx.x)) * chunk;
    if constexpr (wide) {
      read_wide(src + at, taken[k]);
    } else {
      taken[k][0] = read(src + at);
    }
  }
#pragma unroll
  for (int k = 0; k < n_chunks; ++k) {
    const int at = (k * pack_threads + int(threadIdx.x)) * chunk;
    Dst given[chunk];
#pragma unroll
    for (int i = 0; i < chunk; ++i) given[i] = converted<Dst>(taken[k][i]);
    if constexpr (wide) {
      write_wide(dst + at, given);
    } else {
      write(dst + at, given[0]);
    }
  }
}

/// Items [begin, end) of a row's target: data where data_begin <= item < data_end, padding elsewhere. On the wide path
/// all four are multiples of the chunk, since a step is.
template <typename Src, typename Dst, bool wide>
__device__ __forceinline__ void move_part(const Src* src, Dst* dst, long long begin, long long end,
                                          long long data_begin, long long data_end, unsigned long long pad) {
  constexpr int chunk = wide ? chunk_items<Src, Dst> : 1;
  Dst padding;
  memcpy(&padding, &pad, sizeof padding);
  for (long long at = begin + int(threadIdx.x) * chunk; at < end; at += pack_threads * chunk) {
    const bool is_data = data_begin <= at && at < data_end;
    Src taken[chunk] = {};
    if constexpr (wide) {
      if (is_data) read_wide(src + (at - data_begin), taken);
    } else {
      if (is_data) taken[0] = read(src + (at - data_begin));
    }
    Dst given[chunk];
#pragma unroll
    for (int i = 0; i < chunk; ++i) given[i] = is_data ? converted<Dst>(taken[i]) : padding;
    if constexpr (wide) {
      write_wide(dst + at, given);
    } else {
      write(dst + at, given[0]);
    }
  }
}

/// base         what row_offsets count from; else the packed or padded source itself
/// row_offsets  (n_rows,) bytes; read only where rows_from is from_table
/// cu_seqlens   (n_rows + 1,) steps
/// cu_out       (n_rows + 1,) the same again, for the caller to keep; may be null
/// marks        packed: position_ids (steps,) int; padded: mask (n_rows, max_seqlen) of bytes; may be null
/// pad          the bits of one target item, repeated to 64
/// Both tile sizes are such that a row's tiles cover its steps where they cover its items.
template <typename Src, typename Dst, bool wide, int tile_items>
__global__ void __launch_bounds__(pack_threads)
    move_rows(const unsigned char* __restrict__ base, const long long* __restrict__ row_offsets,
              const int* __restrict__ cu_seqlens, unsigned char* __restrict__ out, int* __restrict__ cu_out,
              unsigned char* __restrict__ marks, int max_seqlen, long long step_items, long long tile_steps,
              unsigned long long pad, int rows_from, int rows_to) {
  const long long row = blockIdx.x;
  const long long tile = blockIdx.y + static_cast<long long>(blockIdx.z) * gridDim.y;
  const int begin = read_by_all(cu_seqlens + row);
  const int length = read_by_all(cu_seqlens + row + 1) - begin;
  if (cu_out != nullptr && tile == 0 && threadIdx.x == 0) {
    write(cu_out + row, begin);
    if (row + 1 == gridDim.x) write(cu_out + row + 1, begin + length);
  }
  const int n_steps = rows_to == to_packed ? length : max_seqlen;
  const int pad_steps = max_seqlen - length;
  const int lead = rows_to == to_padded_left ? pad_steps : 0;  // steps of padding before the data

  if (marks != nullptr) {
    const long long steps_end = (tile + 1) * tile_steps < n_steps ? (tile + 1) * tile_steps : n_steps;
#pragma unroll 1
    for (long long step = tile * tile_steps + threadIdx.x; step < steps_end; step += pack_threads) {
      if (rows_to == to_packed) {
        write(reinterpret_cast<int*>(marks) + begin + step, static_cast<int>(step));
      } else {
        const bool is_data = lead <= step && step < lead + length;
        write(marks + row * max_seqlen + step, static_cast<unsigned char>(is_data));
      }
    }
  }

  const long long item = tile * tile_items;
  const long long n_items = n_steps * step_items;
  if (item >= n_items) return;
  const Src* src = reinterpret_cast<const Src*>(base);
  if (rows_from == from_table) {
    src = reinterpret_cast<const Src*>(base + read_by_all(row_offsets + row));
  } else if (rows_from == from_packed) {
    src += begin * step_items;
  } else {
    src += (row * max_seqlen + (rows_from == from_padded_left ? pad_steps : 0)) * step_items;
  }
  Dst* dst = reinterpret_cast<Dst*>(out) + (rows_to == to_packed ? begin : row * max_seqlen) * step_items;
  const long long data_begin = lead * step_items;
  const long long data_end = data_begin + length * step_items;
  const long long item_end = item + tile_items;
  if (data_begin <= item && item_end <= data_end) {
    move_tile<Src, Dst, wide, tile_items>(src + (item - data_begin), dst + item);
  } else {
    move_part<Src, Dst, wide>(src, dst, item, item_end < n_items ? item_end : n_items, data_begin, data_end, pad);
  }
}

}  // namespace infcore::kernels
