#include <infcore/device/staged_rows.hpp>

#include <cstring>

namespace infcore::device {
namespace {

constexpr std::size_t rounded_up(std::size_t bytes) noexcept {
  return (bytes + staged_alignment - 1) / staged_alignment * staged_alignment;
}

constexpr std::size_t tables_bytes(std::size_t n_rows) noexcept {
  return rounded_up(n_rows * sizeof(std::int64_t) + (n_rows + 1) * sizeof(std::int32_t));
}

}  // namespace

std::size_t staged_bytes(std::span<const RowSource> rows, std::size_t step_bytes) noexcept {
  std::size_t bytes = tables_bytes(rows.size());
  for (const RowSource& row : rows) bytes += rounded_up(static_cast<std::size_t>(row.dims[0]) * step_bytes);
  return bytes;
}

void stage_rows(std::span<const RowSource> rows, std::size_t step_bytes, std::size_t at, std::byte* region) noexcept {
  std::byte* const row_offsets = region + at;
  cu_seqlens_of(rows, reinterpret_cast<std::int32_t*>(row_offsets + rows.size() * sizeof(std::int64_t)));
  std::size_t to = at + tables_bytes(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto offset = static_cast<std::int64_t>(to);
    std::memcpy(row_offsets + i * sizeof offset, &offset, sizeof offset);
    const std::size_t bytes = static_cast<std::size_t>(rows[i].dims[0]) * step_bytes;
    if (bytes != 0) std::memcpy(region + to, rows[i].data, bytes);
    to += rounded_up(bytes);
  }
}

}  // namespace infcore::device
