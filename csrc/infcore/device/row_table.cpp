#include <infcore/device/row_moves.hpp>
#include <infcore/device/row_table.hpp>

namespace infcore::device {
namespace {

struct Copy {
  std::size_t item_bytes;
  [[gnu::always_inline]] void operator()(const std::byte* src, std::byte* dst, std::size_t items) const noexcept {
    copy_bytes(dst, src, items * item_bytes);
  }
};

struct Cast {
  RowCast cast;
  void operator()(const std::byte* src, std::byte* dst, std::size_t items) const noexcept { cast(src, dst, items); }
};

/// use(place): place(src, dst, items) lays numbers from a row into the batch.
template <class Use>
void with_place(const BatchItem& item, Use use) noexcept {
  if (item.cast == nullptr) {
    use(Copy{item.bytes});
  } else {
    use(Cast{item.cast});
  }
}

std::size_t steps_of(const RowTable& table, std::size_t i) noexcept {
  return static_cast<std::size_t>(table.cu_seqlens[i + 1] - table.cu_seqlens[i]);
}

/// The axis over rows comes first: a row is one piece of dst, padding before or after it.
template <class Place>
void pad_rows_first(const RowTable& table, const BatchItem& item, const PaddedForm& form, std::byte* dst,
                    const Fill& fill, Place place) noexcept {
  const std::size_t step_bytes = table.step_items * item.bytes;
  for (std::size_t i = 0; i < table.rows.size(); ++i) {
    const std::size_t steps = steps_of(table, i);
    const std::size_t row_bytes = steps * step_bytes;
    const std::size_t pad_bytes = form.steps * step_bytes - row_bytes;
    place(table.rows[i], form.left ? dst + pad_bytes : dst, steps * table.step_items);
    if (!form.is_filled) fill(form.left ? dst : dst + row_bytes, pad_bytes);
    dst += row_bytes + pad_bytes;
  }
}

/// The axis over rows comes later: in the order of dst, a chunk of each row in turn.
template <class Place>
void pad_rows_inside(const RowTable& table, const BatchItem& item, const PaddedForm& form, std::byte* dst,
                     const Fill& fill, Place place) noexcept {
  const std::size_t chunk_items = table.step_items / form.chunks;
  const std::size_t chunk_bytes = chunk_items * item.bytes;
  const std::size_t chunk_bytes_from = chunk_items * table.item_bytes;
  for (std::size_t step = 0; step < form.steps; ++step) {
    for (std::size_t chunk = 0; chunk < form.chunks; ++chunk) {
      for (std::size_t i = 0; i < table.rows.size(); ++i, dst += chunk_bytes) {
        const std::size_t steps = steps_of(table, i);
        const std::size_t own = step - (form.left ? form.steps - steps : 0);  // wraps before a row's begin
        if (own < steps) {
          place(table.rows[i] + (own * form.chunks + chunk) * chunk_bytes_from, dst, chunk_items);
        } else if (!form.is_filled) {
          fill(dst, chunk_bytes);
        }
      }
    }
  }
}

}  // namespace

void pack_table(const RowTable& table, const BatchItem& item, std::byte* dst) noexcept {
  const std::size_t step_bytes = table.step_items * item.bytes;
  with_place(item, [&](auto place) {
    for (std::size_t i = 0; i < table.rows.size(); ++i) {
      const std::size_t steps = steps_of(table, i);
      place(table.rows[i], dst, steps * table.step_items);
      dst += steps * step_bytes;
    }
  });
}

void pad_table(const RowTable& table, const BatchItem& item, const PaddedForm& form, std::byte* dst) noexcept {
  if (table.step_items == 0) return;  // no row to point into
  const std::size_t bytes = table.rows.size() * form.steps * table.step_items * item.bytes;
  const Fill fill(form.pad_item, item.bytes, is_to_stream(dst, bytes));
  with_place(item, [&](auto place) {
    if (form.chunks == 0) {
      pad_rows_first(table, item, form, dst, fill, place);
    } else {
      pad_rows_inside(table, item, form, dst, fill, place);
    }
  });
}

}  // namespace infcore::device
