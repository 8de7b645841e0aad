#include <infcore/device/packer.hpp>
#include <infcore/device/row_moves.hpp>

#include <algorithm>

namespace infcore::device {
namespace {

class Padder {
 public:
  Padder(const PadLayout& layout, std::size_t n_rows, bool stream) noexcept
      : layout_(layout), fill_(layout.pad_item, layout.item_bytes, stream) {
    std::size_t bytes = layout.item_bytes;
    for (std::uint32_t axis = layout.rank; axis-- > 0;) {
      if (axis + 1 == layout.batch_axis) {
        block_bytes_ = bytes;
        bytes *= n_rows;
      }
      step_bytes_[axis] = bytes;
      bytes *= static_cast<std::size_t>(layout.dims_max[axis]);
    }
    if (layout.batch_axis == 0) block_bytes_ = bytes;
  }

  /// Bytes between the first items of neighbours on the batch axis.
  [[nodiscard]] std::size_t block_bytes() const noexcept { return block_bytes_; }

  void place(const RowSource& row, std::byte* dst) noexcept {
    src_ = row.data;
    dims_ = row.dims;
    whole_from_ = layout_.rank;
    while (whole_from_ > 0 && dims_[whole_from_ - 1] == layout_.dims_max[whole_from_ - 1]) --whole_from_;
    place_outer(0, true, dst);
  }

 private:
  /// Axes before the batch axis: a row has one block per index of them, blocks of the other rows between.
  void place_outer(std::uint32_t axis, bool inside, std::byte* dst) noexcept {
    if (axis == layout_.batch_axis) {
      if (inside) {
        place_block(axis, dst);
      } else {
        fill_(dst, block_bytes_);
      }
      return;
    }
    for (std::int64_t i = 0; i < layout_.dims_max[axis]; ++i, dst += step_bytes_[axis])
      place_outer(axis + 1, inside && i < dims_[axis], dst);
  }

  /// Axes from the batch axis on: contiguous in dst, and read from src in the order they lie there.
  void place_block(std::uint32_t axis, std::byte* dst) noexcept {
    if (axis >= whole_from_) {  // no padding on any axis from here
      const std::size_t bytes = axis == layout_.rank ? layout_.item_bytes : axis_bytes(axis, dims_[axis]);
      take(dst, bytes);
      return;
    }
    const std::size_t used = axis_bytes(axis, dims_[axis]);
    if (axis + 1 == whole_from_) {
      take(dst, used);
    } else {
      for (std::int64_t i = 0; i < dims_[axis]; ++i)
        place_block(axis + 1, dst + static_cast<std::size_t>(i) * step_bytes_[axis]);
    }
    fill_(dst + used, axis_bytes(axis, layout_.dims_max[axis]) - used);
  }

  void take(std::byte* dst, std::size_t bytes) noexcept {
    copy_bytes(dst, src_, bytes);
    if (bytes != 0) src_ += bytes;
  }

  [[nodiscard]] std::size_t axis_bytes(std::uint32_t axis, std::int64_t n_steps) const noexcept {
    return step_bytes_[axis] * static_cast<std::size_t>(n_steps);
  }

  const PadLayout& layout_;
  const Fill fill_;
  std::size_t step_bytes_[max_rank]{};  ///< in dst, from one index of an axis to the next
  std::size_t block_bytes_{};
  std::uint32_t whole_from_{};  ///< from this axis on, the row at hand needs no padding
  const std::byte* src_{};
  const std::int64_t* dims_{};
};

}  // namespace

void pad_rows(std::span<const RowSource> rows, const PadLayout& layout, std::byte* dst) noexcept {
  std::size_t bytes = layout.item_bytes * rows.size();
  for (std::uint32_t axis = 0; axis < layout.rank; ++axis) bytes *= static_cast<std::size_t>(layout.dims_max[axis]);
  Padder padder(layout, rows.size(), is_to_stream(dst, bytes));
  for (const RowSource& row : rows) {
    padder.place(row, dst);
    dst += padder.block_bytes();
  }
}

void dims_max_of(std::span<const RowSource> rows, std::uint32_t rank, std::int64_t* out) noexcept {
  std::fill_n(out, rank, std::int64_t{0});
  for (const RowSource& row : rows)
    for (std::uint32_t axis = 0; axis < rank; ++axis) out[axis] = std::max(out[axis], row.dims[axis]);
}

std::int64_t packed_steps(std::span<const RowSource> rows) noexcept {
  std::int64_t steps = 0;
  for (const RowSource& row : rows) steps += row.dims[0];
  return steps;
}

void cu_seqlens_of(std::span<const RowSource> rows, std::int32_t* out) noexcept {
  std::int64_t steps = 0;
  *out = 0;
  for (const RowSource& row : rows) *++out = static_cast<std::int32_t>(steps += row.dims[0]);
}

}  // namespace infcore::device
