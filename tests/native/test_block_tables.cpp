#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include <infcore/device/block_tables.hpp>

namespace {

using infcore::device::BadBlock;
using infcore::device::BlockRow;
using infcore::device::fill_block_table;
using infcore::device::fill_slot_mapping;
using infcore::device::first_bad_block;
using infcore::device::query_start_loc_of;

using Lists = std::vector<std::vector<std::int32_t>>;

std::vector<BlockRow> rows_of(const Lists& lists) {
  std::vector<BlockRow> rows;
  for (const auto& list : lists)
    rows.push_back({list.empty() ? nullptr : list.data(), static_cast<std::int64_t>(list.size())});
  return rows;
}

TEST(BlockTables, TablesAndSlotsMatchTheDefinition) {
  std::minstd_rand engine(1);
  const auto below = [&](std::int32_t n) {
    return static_cast<std::int32_t>((engine() >> 4) % static_cast<unsigned>(n));
  };
  for (int round = 0; round < 500; ++round) {
    const std::int32_t block_size = 1 + below(round % 2 ? 5 : 40);
    Lists lists;
    std::vector<std::int32_t> computed, query_lens;
    std::vector<std::int64_t> slots;
    std::size_t longest = 0;
    for (std::int32_t n = 1 + below(4); n > 0; --n) {
      std::vector<std::int32_t>& list = lists.emplace_back(static_cast<std::size_t>(below(7)));
      for (std::int32_t& id : list) id = below(1 << 20) + (1 << 30);
      longest = std::max(longest, list.size());
      const std::int32_t room = static_cast<std::int32_t>(list.size()) * block_size;
      computed.push_back(below(room + 1));
      query_lens.push_back(below(room - computed.back() + 1));
      for (std::int32_t at = computed.back(); at < computed.back() + query_lens.back(); ++at)
        slots.push_back(std::int64_t{list[static_cast<std::size_t>(at / block_size)]} * block_size + at % block_size);
    }
    const std::size_t max_blocks = longest + static_cast<std::size_t>(below(3));
    const auto table = std::make_unique<std::int32_t[]>(lists.size() * max_blocks);
    std::memset(table.get(), 0xEE, lists.size() * max_blocks * sizeof(std::int32_t));
    fill_block_table(rows_of(lists), static_cast<std::int64_t>(max_blocks), -7, table.get());
    for (std::size_t row = 0; row < lists.size(); ++row)
      for (std::size_t at = 0; at < max_blocks; ++at)
        EXPECT_EQ(table[row * max_blocks + at], at < lists[row].size() ? lists[row][at] : -7);

    slots.resize(slots.size() + static_cast<std::size_t>(below(5)), -1);
    const auto got = std::make_unique<std::int64_t[]>(slots.size());
    fill_slot_mapping(rows_of(lists), {computed, query_lens}, block_size, {got.get(), slots.size()});
    EXPECT_TRUE(std::equal(slots.begin(), slots.end(), got.get()));

    const auto starts = std::make_unique<std::int32_t[]>(lists.size() + 1);
    query_start_loc_of(query_lens, starts.get());
    EXPECT_EQ(starts[0], 0);
    for (std::size_t row = 0; row < lists.size(); ++row) EXPECT_EQ(starts[row + 1] - starts[row], query_lens[row]);
  }
}

TEST(BlockTables, TheFirstBadIdIsFound) {
  const std::int64_t int32_end = std::int64_t{std::numeric_limits<std::int32_t>::max()} + 1;
  const Lists lists{{0, 5}, {}, {7, 3, -1, 9}, {-2}};
  const auto expect = [&](std::int64_t ids_end, std::size_t row, std::int64_t at) {
    const BadBlock bad = first_bad_block(rows_of(lists), ids_end);
    EXPECT_EQ(bad.row, row);
    EXPECT_EQ(bad.at, at);
  };
  expect(int32_end, 2, 2);
  expect(6, 2, 0);
  expect(5, 0, 1);
  expect(0, 0, 0);
  EXPECT_EQ(first_bad_block(rows_of({{0, std::numeric_limits<std::int32_t>::max()}, {}}), int32_end).row, 2u);
}

TEST(BlockTables, TheLargestIdsAndBlocksDoNotOverflow) {
  const std::int32_t largest = std::numeric_limits<std::int32_t>::max();
  const Lists lists{{largest}};
  const std::vector<std::int32_t> computed{largest - 2}, query_lens{2};
  std::int64_t slots[2];
  fill_slot_mapping(rows_of(lists), {computed, query_lens}, largest, slots);
  EXPECT_EQ(slots[1], std::int64_t{largest} * largest + largest - 1);
}

}  // namespace
