#pragma once

#include "../cuda/moves.cuh"

/// Staged lists of KV cache blocks -> a padded table of them, and a slot for each new token.
/// Grid (requests + 1, tiles): a block takes one tile of a request's row of the table and the same tile of its new
/// tokens; those of the last row fill the slots that no token has.
namespace infcore::kernels {

constexpr int table_threads = 128;
constexpr int table_tile = table_threads * 4;

/// A thread's four columns of one row of the table.
template <bool wide>
__device__ __forceinline__ void fill_columns(const int* ids, int n_blocks, int* row, int max_blocks, int first,
                                             int pad_block) {
  if constexpr (wide) {  // max_blocks is a multiple of 4, and so is `first`
    const int at = first + static_cast<int>(threadIdx.x) * 4;
    if (at >= max_blocks) return;
    int taken[4] = {pad_block, pad_block, pad_block, pad_block};
    if (at + 4 <= n_blocks) {
      read_wide(ids + at, taken);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (at + i < n_blocks) taken[i] = read(ids + at + i);
      }
    }
    write_wide(row + at, taken);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = first + i * table_threads + static_cast<int>(threadIdx.x);
      if (at < max_blocks) write(row + at, at < n_blocks ? read(ids + at) : pad_block);
    }
  }
}

/// base         what row_offsets count from; both are multiples of 16 bytes
/// row_offsets  (requests,) bytes to each request's ids
/// cu_blocks    (requests + 1,) blocks of the requests before
/// computed     (requests,) position of each request's first new token
/// query_start_loc  (requests + 1,) new tokens of the requests before
/// table        (requests, max_blocks); a multiple of 16 bytes where wide
/// slots        (n_slots,)
/// starts       (requests + 1,) query_start_loc again, for the caller to keep
template <bool wide>
__global__ void __launch_bounds__(table_threads)
    fill_tables(const unsigned char* __restrict__ base, const long long* __restrict__ row_offsets,
                const int* __restrict__ cu_blocks, const int* __restrict__ computed,
                const int* __restrict__ query_start_loc, int* __restrict__ table, long long* __restrict__ slots,
                int* __restrict__ starts, int max_blocks, int block_size, int pad_block, int n_slots) {
  const int row = static_cast<int>(blockIdx.x);
  const int n_requests = static_cast<int>(gridDim.x) - 1;
  const int first = static_cast<int>(blockIdx.y) * table_tile;
  const int start = read_by_all(query_start_loc + row);
  if (blockIdx.y == 0 && threadIdx.x == 0) write(starts + row, start);
  if (row == n_requests) {
    for (int i = 0; i < 4; ++i) {
      const long long at = static_cast<long long>(start) + first + i * table_threads + static_cast<int>(threadIdx.x);
      if (at < n_slots) write(slots + at, -1LL);
    }
    return;
  }
  const int n_tokens = read_by_all(query_start_loc + row + 1) - start;
  if (first >= max_blocks && first >= n_tokens) return;
  const int* const ids = reinterpret_cast<const int*>(base + read_by_all(row_offsets + row));
  if (first < max_blocks) {
    const int n_blocks = read_by_all(cu_blocks + row + 1) - read_by_all(cu_blocks + row);
    fill_columns<wide>(ids, n_blocks, table + static_cast<long long>(row) * max_blocks, max_blocks, first, pad_block);
  }
  if (first >= n_tokens) return;
  const int position = read_by_all(computed + row);
  for (int i = 0; i < 4; ++i) {
    const int token = first + i * table_threads + static_cast<int>(threadIdx.x);
    if (token >= n_tokens) return;
    const int at = position + token;
    const int block = at / block_size;
    const long long id = read(ids + block);
    write(slots + start + token, id * block_size + (at - block * block_size));
  }
}

}  // namespace infcore::kernels
