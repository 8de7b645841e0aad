#pragma once
#include <cstddef>
#include <cstdint>

/// Numbers of one type -> numbers of another, in the pass that copies them.
namespace infcore::device {

/// The types among which rows are cast; the order is that of `item_names` in _core/rows.pyx.
enum class Item : std::uint8_t { float32, float16, bfloat16, int64, int32, int8, uint8 };
inline constexpr std::size_t n_items = 7;

/// n numbers at src, any address, to n numbers at dst, any address. The two do not overlap; both may be null for n = 0.
using RowCast = void (*)(const std::byte* src, std::byte* dst, std::size_t n) noexcept;

/// The cast of two types, in the copy for this CPU; all copies give the same bits. Its values are NumPy's astype: to
/// the nearest, ties to even; integers modulo 2**bits; a float's fraction is cut off. Unspecified there, and here what
/// is nearest in the integer's range that the float type can hold: a float outside that range; NaN is 0. Among floats a
/// NaN stays one.
[[nodiscard]] RowCast cast_of(Item from, Item to) noexcept;

}  // namespace infcore::device
