#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

/// Per-request lists of KV cache blocks -> what attention kernels over paged caches take: padded block tables and slot
/// mappings, in host memory. The layouts are vLLM's. Nothing allocates, throws or touches Python.
namespace infcore::device {

/// One request's blocks, borrowed: block i holds its positions i * block_size .. (i + 1) * block_size. ids may be null
/// where there are none.
struct BlockRow {
  const std::int32_t* ids{};
  std::int64_t n_blocks{};
};

/// Where an id stands that is none.
struct BadBlock {
  std::size_t row{};
  std::int64_t at{};
};

/// What the new tokens of a batch are: row i has query_lens[i] of them, from position computed[i] on.
struct NewTokens {
  std::span<const std::int32_t> computed{};
  std::span<const std::int32_t> query_lens{};
};

/// The first id that is negative or not below ids_end; row == rows.size() where there is none.
[[nodiscard]] BadBlock first_bad_block(std::span<const BlockRow> rows, std::int64_t ids_end) noexcept;

/// rows.size() x max_blocks ids, C-contiguous: each row's, then pad_block. Precondition: no row is longer.
void fill_block_table(std::span<const BlockRow> rows, std::int64_t max_blocks, std::int32_t pad_block,
                      std::int32_t* dst) noexcept;

/// n_slots entries: for each new token, in order, ids[position / block_size] * block_size + position % block_size;
/// then -1. Preconditions: each position's block is there, and n_slots is at least as many as there are new tokens.
void fill_slot_mapping(std::span<const BlockRow> rows, const NewTokens& tokens, std::int32_t block_size,
                       std::span<std::int64_t> slots) noexcept;

/// rows + 1 entries: row i has new tokens out[i] .. out[i + 1]. Precondition: fewer than 2**31 in all.
void query_start_loc_of(std::span<const std::int32_t> query_lens, std::int32_t* out) noexcept;

}  // namespace infcore::device
