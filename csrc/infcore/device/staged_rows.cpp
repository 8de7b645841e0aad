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

std::size_t row_bytes(const RowTable& table, std::size_t i) noexcept {
  const auto steps = static_cast<std::size_t>(table.cu_seqlens[i + 1] - table.cu_seqlens[i]);
  return steps * table.step_items * table.item_bytes;
}

}  // namespace

std::size_t staged_bytes(const RowTable& table) noexcept {
  std::size_t bytes = tables_bytes(table.rows.size());
  for (std::size_t i = 0; i < table.rows.size(); ++i) bytes += rounded_up(row_bytes(table, i));
  return bytes;
}

void stage_rows(const RowTable& table, std::size_t at, std::byte* region) noexcept {
  const std::size_t n = table.rows.size();
  std::byte* const row_offsets = region + at;
  std::memcpy(row_offsets + n * sizeof(std::int64_t), table.cu_seqlens, (n + 1) * sizeof(std::int32_t));
  std::size_t to = at + tables_bytes(n);
  for (std::size_t i = 0; i < n; ++i) {
    const auto offset = static_cast<std::int64_t>(to);
    std::memcpy(row_offsets + i * sizeof offset, &offset, sizeof offset);
    const std::size_t bytes = row_bytes(table, i);
    if (bytes != 0) std::memcpy(region + to, table.rows[i], bytes);
    to += rounded_up(bytes);
  }
}

}  // namespace infcore::device
