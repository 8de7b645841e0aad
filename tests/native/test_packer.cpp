#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include <infcore/device/packer.hpp>

namespace {

using infcore::device::dims_max_of;
using infcore::device::max_rank;
using infcore::device::pad_rows;
using infcore::device::PadLayout;
using infcore::device::RowSource;

std::size_t product(const std::vector<std::int64_t>& dims) {
  return std::accumulate(dims.begin(), dims.end(), std::size_t{1},
                         [](std::size_t n, std::int64_t dim) { return n * static_cast<std::size_t>(dim); });
}

/// A row in a heap block of exactly its size, so that the address sanitizer sees one byte too many; none when empty.
struct Row {
  std::vector<std::int64_t> dims;
  std::size_t bytes;
  std::unique_ptr<std::byte[]> data;

  Row(std::vector<std::int64_t> row_dims, std::size_t item_bytes, unsigned seed)
      : dims(std::move(row_dims)), bytes(product(dims) * item_bytes), data(bytes ? new std::byte[bytes] : nullptr) {
    std::mt19937 random(seed);
    for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(1 + random() % 200);
  }
};

std::vector<RowSource> sources(const std::vector<Row>& rows) {
  std::vector<RowSource> out;
  for (const Row& row : rows) out.push_back({row.data.get(), row.dims.data()});
  return out;
}

PadLayout layout_for(const std::vector<Row>& rows, std::uint32_t item_bytes, std::uint32_t batch_axis,
                     const std::vector<std::uint8_t>& pad_item) {
  PadLayout layout{};
  layout.item_bytes = item_bytes;
  layout.rank = static_cast<std::uint32_t>(rows.front().dims.size());
  layout.batch_axis = batch_axis;
  dims_max_of(sources(rows), layout.rank, layout.dims_max);
  std::memcpy(layout.pad_item, pad_item.data(), pad_item.size());
  return layout;
}

/// Each item on its own, from the definition: index (i, r) of the batch is index i of row r, or the pad item.
std::vector<std::byte> item_by_item(const std::vector<Row>& rows, const PadLayout& layout) {
  std::vector<std::int64_t> dims(layout.dims_max, layout.dims_max + layout.rank);
  dims.insert(dims.begin() + layout.batch_axis, static_cast<std::int64_t>(rows.size()));
  std::vector<std::byte> out(product(dims) * layout.item_bytes);
  for (std::size_t at = 0; at < product(dims); ++at) {
    std::vector<std::int64_t> index(dims.size());
    for (std::size_t axis = dims.size(), rest = at; axis-- > 0; rest /= static_cast<std::size_t>(dims[axis]))
      index[axis] = static_cast<std::int64_t>(rest % static_cast<std::size_t>(dims[axis]));
    const Row& row = rows[static_cast<std::size_t>(index[layout.batch_axis])];
    index.erase(index.begin() + layout.batch_axis);
    const std::byte* item = layout.pad_item;
    std::size_t from = 0;
    bool inside = true;
    for (std::uint32_t axis = 0; axis < layout.rank; ++axis) {
      inside = inside && index[axis] < row.dims[axis];
      from = from * static_cast<std::size_t>(row.dims[axis]) + static_cast<std::size_t>(index[axis]);
    }
    if (inside) item = row.data.get() + from * layout.item_bytes;
    std::memcpy(out.data() + at * layout.item_bytes, item, layout.item_bytes);
  }
  return out;
}

void expect_padded(const std::vector<Row>& rows, const PadLayout& layout) {
  const std::vector<std::byte> expected = item_by_item(rows, layout);
  const auto dst = std::make_unique<std::byte[]>(expected.size());
  std::memset(dst.get(), 0xEE, expected.size());
  pad_rows(sources(rows), layout, dst.get());
  EXPECT_EQ(0, expected.empty() ? 0 : std::memcmp(dst.get(), expected.data(), expected.size()));
}

TEST(Packer, EveryShapeAndBatchAxisMatchesItemByItem) {
  std::minstd_rand engine(1);
  const auto random = [&] { return static_cast<std::uint32_t>(engine() >> 4); };
  for (int round = 0; round < 600; ++round) {
    const std::uint32_t rank = random() % 4;
    const std::uint32_t item_bytes = std::vector<std::uint32_t>{1, 2, 4, 8, 16, 32}[random() % 6];
    std::vector<Row> rows;
    for (std::uint32_t n = 1 + random() % 5; n > 0; --n) {
      std::vector<std::int64_t> dims(rank);
      for (std::int64_t& dim : dims) dim = random() % 4;
      rows.emplace_back(dims, item_bytes, random());
    }
    std::vector<std::uint8_t> pad_item(item_bytes, 0);
    if (round % 2) std::iota(pad_item.begin(), pad_item.end(), std::uint8_t{201});
    for (std::uint32_t batch_axis = 0; batch_axis <= rank; ++batch_axis)
      expect_padded(rows, layout_for(rows, item_bytes, batch_axis, pad_item));
  }
}

TEST(Packer, BatchMayBeLargerThanItsLargestRow) {
  std::vector<Row> rows;
  rows.emplace_back(std::vector<std::int64_t>{2, 3}, 4, 1);
  rows.emplace_back(std::vector<std::int64_t>{0, 3}, 4, 2);
  PadLayout layout = layout_for(rows, 4, 1, {1, 2, 3, 4});
  layout.dims_max[0] = 5;
  layout.dims_max[1] = 8;
  expect_padded(rows, layout);
}

TEST(Packer, HighestRankAndOneRow) {
  std::vector<Row> rows;
  rows.emplace_back(std::vector<std::int64_t>{1, 2, 1, 2, 1, 2, 1, 2}, 2, 1);
  rows.emplace_back(std::vector<std::int64_t>{2, 1, 2, 1, 2, 1, 2, 1}, 2, 2);
  for (std::uint32_t axis = 0; axis <= max_rank; ++axis) expect_padded(rows, layout_for(rows, 2, axis, {7, 8}));
  rows.pop_back();
  for (std::uint32_t axis = 0; axis <= max_rank; ++axis) expect_padded(rows, layout_for(rows, 2, axis, {7, 8}));
}

TEST(Packer, NoRowsTouchNothing) {
  PadLayout layout{};
  layout.item_bytes = 4;
  layout.rank = 1;
  layout.dims_max[0] = 3;
  pad_rows({}, layout, nullptr);
  std::int64_t dims[1] = {9};
  dims_max_of({}, 1, dims);
  EXPECT_EQ(dims[0], 0);
}

}  // namespace
