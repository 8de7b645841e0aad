#pragma once
#include <infcore/device/row_table.hpp>

#include <cstddef>
#include <cstdint>

/// One ragged tensor of a batch as it goes to a device that packs by itself: tables, then the rows. One block of bytes
/// holds it all, so one copy takes it there. kernels/staging.py says the same in NumPy and is what the kernels read.
///
/// From `at`, a multiple of 16: row_offsets int64[n], bytes from the region's start; right behind it cu_seqlens
/// int32[n + 1]; then each row at the next multiple of 16. What lies between is not written.
namespace infcore::device {

inline constexpr std::size_t staged_alignment = 16;  ///< what a 128-bit load asks of an address

/// Bytes that the tensor takes up from `at` on. Precondition: they are below 2**63.
[[nodiscard]] std::size_t staged_bytes(const RowTable& table) noexcept;

/// Writes it to region + at.
void stage_rows(const RowTable& table, std::size_t at, std::byte* region) noexcept;

}  // namespace infcore::device
