#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include <infcore/device/packer.hpp>
#include <infcore/device/row_casts.hpp>

/// Rows that differ in their first axis alone -> one packed or padded batch, cast in the same pass if need be.
/// (packer.hpp pads rows that differ on any axis.) Nothing allocates, throws or touches Python; each input byte is read
/// once.
namespace infcore::device {

/// Row i is steps cu_seqlens[i] .. cu_seqlens[i + 1] of the packed batch.
struct RowTable {
  std::span<const std::byte* const> rows;  ///< C-contiguous from any address; may be null where a row has no items
  const std::int32_t* cu_seqlens{};        ///< rows.size() + 1 entries, the first 0, none smaller than the one before
  std::size_t step_items{};                ///< numbers in one step, an entry of the first axis
  std::uint32_t item_bytes{};              ///< of a row's number, 1 to max_item_bytes
};

/// What the batch holds.
struct BatchItem {
  RowCast cast{};         ///< null: the bytes as they are
  std::uint32_t bytes{};  ///< of one number; the row's without a cast
};

/// A padded batch, C-contiguous: (steps, trailing axes) with the axis over rows put in somewhere.
struct PaddedForm {
  std::size_t steps{};          ///< of a row once padded; at least the longest row's
  std::size_t chunks{1};        ///< pieces that the axis over rows cuts a step into; 0: it comes first and cuts nothing
  bool left{};                  ///< padding before a row's steps, not after
  const std::byte* pad_item{};  ///< BatchItem::bytes of it
  bool is_filled{};             ///< dst holds the pad item everywhere already
};

/// All rows end to end into dst.
void pack_table(const RowTable& table, const BatchItem& item, std::byte* dst) noexcept;

/// All rows into dst, each padded.
void pad_table(const RowTable& table, const BatchItem& item, const PaddedForm& form, std::byte* dst) noexcept;

}  // namespace infcore::device
