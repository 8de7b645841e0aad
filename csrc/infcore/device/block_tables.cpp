#include <infcore/device/block_tables.hpp>

#include <algorithm>
#include <cstring>

namespace infcore::device {

BadBlock first_bad_block(std::span<const BlockRow> rows, std::int64_t ids_end) noexcept {
  for (std::size_t row = 0; row < rows.size(); ++row) {
    const std::int32_t* const ids = rows[row].ids;
    // The least and the largest first: without an early end, the loop makes vectors. Which one it is matters to an
    // error only.
    std::int32_t least = 0, largest = -1;
    for (std::int64_t at = 0; at < rows[row].n_blocks; ++at) {
      least = std::min(least, ids[at]);
      largest = std::max(largest, ids[at]);
    }
    if (least >= 0 && largest < ids_end) continue;
    std::int64_t at = 0;
    while (ids[at] >= 0 && ids[at] < ids_end) ++at;
    return {row, at};
  }
  return {rows.size(), 0};
}

void fill_block_table(std::span<const BlockRow> rows, std::int64_t max_blocks, std::int32_t pad_block,
                      std::int32_t* dst) noexcept {
  for (const BlockRow& row : rows) {
    const auto used = static_cast<std::size_t>(row.n_blocks);
    if (used != 0) std::memcpy(dst, row.ids, used * sizeof(std::int32_t));
    std::fill(dst + used, dst + max_blocks, pad_block);
    dst += max_blocks;
  }
}

void fill_slot_mapping(std::span<const BlockRow> rows, const NewTokens& tokens, std::int32_t block_size,
                       std::span<std::int64_t> slots) noexcept {
  std::int64_t* dst = slots.data();
  for (std::size_t row = 0; row < rows.size(); ++row) {
    std::int32_t left = tokens.query_lens[row];
    if (left == 0) continue;
    const std::int32_t* id = rows[row].ids + tokens.computed[row] / block_size;
    std::int32_t offset = tokens.computed[row] % block_size;
    // Block by block: a division for each row instead of two for each token.
    for (; left > 0; ++id, offset = 0) {
      const std::int32_t here = std::min(left, block_size - offset);
      const std::int64_t first = std::int64_t{*id} * block_size + offset;
      for (std::int32_t i = 0; i < here; ++i) dst[i] = first + i;
      dst += here;
      left -= here;
    }
  }
  std::fill(dst, slots.data() + slots.size(), std::int64_t{-1});
}

void query_start_loc_of(std::span<const std::int32_t> query_lens, std::int32_t* out) noexcept {
  *out = 0;
  for (const std::int32_t length : query_lens) {
    out[1] = out[0] + length;
    ++out;
  }
}

}  // namespace infcore::device
