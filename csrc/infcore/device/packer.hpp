#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

/// Request rows, ragged on any axis -> one dense batch in host memory. (The way back needs no code: a row of the batch
/// is a view of it.) Each input byte is copied once, by the thread that calls: a device's worker into that device's
/// staging memory. Nothing allocates, throws or touches Python.
namespace infcore::device {

inline constexpr std::uint32_t max_rank = 8;         ///< axes of one row; ours, no model here has more than 5
inline constexpr std::uint32_t max_item_bytes = 32;  ///< NumPy's largest number, complex of two long doubles

/// One borrowed row: C-contiguous, of as many dims as the layout's rank. data may be null where a dim is 0.
struct RowSource {
  const std::byte* data;
  const std::int64_t* dims;
};

/// The dense batch that rows are padded into: dims_max with the batch axis, as long as there are rows, put in before
/// axis `batch_axis`.
struct PadLayout {
  std::uint32_t item_bytes{};            ///< 1 to max_item_bytes
  std::uint32_t rank{};                  ///< of a row, 0 to max_rank
  std::uint32_t batch_axis{};            ///< 0 to rank
  std::int64_t dims_max[max_rank]{};     ///< of a row once padded; no row is longer on any axis
  std::byte pad_item[max_item_bytes]{};  ///< item_bytes of it are what fills the rest
};

/// Fills dst, C-contiguous, with the padded batch. A row as large as dims_max is one memcpy when batch_axis is 0.
void pad_rows(std::span<const RowSource> rows, const PadLayout& layout, std::byte* dst) noexcept;

/// The smallest dims that hold every row, into out[0 .. rank). Zeros without rows.
void dims_max_of(std::span<const RowSource> rows, std::uint32_t rank, std::int64_t* out) noexcept;

/// Steps (entries of the ragged first axis) of all rows together. Precondition: rank >= 1, here and below.
[[nodiscard]] std::int64_t packed_steps(std::span<const RowSource> rows) noexcept;

/// rows.size() + 1 entries: row i is steps out[i] .. out[i + 1] of all. Precondition: packed_steps < 2**31.
void cu_seqlens_of(std::span<const RowSource> rows, std::int32_t* out) noexcept;

}  // namespace infcore::device
