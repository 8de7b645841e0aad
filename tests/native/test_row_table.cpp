#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include <infcore/device/row_moves.hpp>
#include <infcore/device/row_table.hpp>

namespace {

using infcore::device::BatchItem;
using infcore::device::cast_of;
using infcore::device::copy_bytes;
using infcore::device::Fill;
using infcore::device::is_to_stream;
using infcore::device::Item;
using infcore::device::n_items;
using infcore::device::pack_table;
using infcore::device::pad_table;
using infcore::device::PaddedForm;
using infcore::device::RowTable;

constexpr std::size_t item_bytes_of[n_items] = {4, 2, 2, 8, 4, 1, 1};

/// A small whole number as each type stores it, from the definition of the type.
std::vector<std::byte> stored(Item item, int number) {
  std::vector<std::byte> out(item_bytes_of[static_cast<std::size_t>(item)]);
  const auto put = [&](auto value) { std::memcpy(out.data(), &value, sizeof value); };
  const float as_float = static_cast<float>(number);
  std::uint32_t bits = 0;
  std::memcpy(&bits, &as_float, sizeof bits);
  switch (item) {
    case Item::float32:
      put(as_float);
      break;
    case Item::float16:  // five bits of exponent around 15, the fraction's first ten bits
      put(static_cast<std::uint16_t>(number == 0 ? 0 : (((bits >> 23) - 127 + 15) << 10) | (bits >> 13 & 0x3ff)));
      break;
    case Item::bfloat16:
      put(static_cast<std::uint16_t>(bits >> 16));
      break;
    case Item::int64:
      put(std::int64_t{number});
      break;
    case Item::int32:
      put(std::int32_t{number});
      break;
    case Item::int8:
      put(static_cast<std::int8_t>(number));
      break;
    case Item::uint8:
      put(static_cast<std::uint8_t>(number));
      break;
  }
  return out;
}

/// Rows of small whole numbers, each in a heap block that ends with it, so that the address sanitizer sees one byte too
/// many; `shift` bytes into the block.
struct Rows {
  std::vector<std::vector<int>> numbers;
  std::vector<std::unique_ptr<std::byte[]>> blocks;
  std::vector<const std::byte*> addresses;
  std::vector<std::int32_t> cu_seqlens{0};
  std::size_t step_items;
  Item item;

  Rows(const std::vector<std::int32_t>& lengths, std::size_t items_of_a_step, Item of, std::size_t shift, unsigned seed)
      : step_items(items_of_a_step), item(of) {
    std::mt19937 random(seed);
    const std::size_t bytes = item_bytes_of[static_cast<std::size_t>(of)];
    for (const std::int32_t length : lengths) {
      const std::size_t n = static_cast<std::size_t>(length) * step_items;
      numbers.emplace_back(n);
      blocks.emplace_back(n == 0 ? nullptr : new std::byte[shift + n * bytes]);
      addresses.push_back(n == 0 ? nullptr : blocks.back().get() + shift);
      cu_seqlens.push_back(cu_seqlens.back() + length);
      for (std::size_t i = 0; i < n; ++i) {
        numbers.back()[i] = static_cast<int>(random() % 100);
        const std::vector<std::byte> one = stored(of, numbers.back()[i]);
        std::memcpy(blocks.back().get() + shift + i * bytes, one.data(), bytes);
      }
    }
  }

  [[nodiscard]] RowTable table() const {
    return {.rows = addresses,
            .cu_seqlens = cu_seqlens.data(),
            .step_items = step_items,
            .item_bytes = static_cast<std::uint32_t>(item_bytes_of[static_cast<std::size_t>(item)])};
  }

  [[nodiscard]] std::size_t steps(std::size_t row) const {
    return static_cast<std::size_t>(cu_seqlens[row + 1] - cu_seqlens[row]);
  }
};

BatchItem batch_item(Item from, Item to) {
  return {.cast = from == to ? nullptr : cast_of(from, to),
          .bytes = static_cast<std::uint32_t>(item_bytes_of[static_cast<std::size_t>(to)])};
}

std::vector<std::byte> all_stored(Item item, const std::vector<int>& numbers) {
  std::vector<std::byte> out;
  for (const int number : numbers) {
    const std::vector<std::byte> one = stored(item, number);
    out.insert(out.end(), one.begin(), one.end());
  }
  return out;
}

void expect_filled(const std::vector<std::byte>& expected, const std::unique_ptr<std::byte[]>& dst) {
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), dst.get()));
}

std::unique_ptr<std::byte[]> poisoned(std::size_t n) {
  auto dst = std::make_unique<std::byte[]>(n);
  if (n != 0) std::memset(dst.get(), 0xEE, n);
  return dst;
}

void expect_packed(const Rows& rows, Item to) {
  std::vector<int> numbers;
  for (const std::vector<int>& row : rows.numbers) numbers.insert(numbers.end(), row.begin(), row.end());
  const std::vector<std::byte> expected = all_stored(to, numbers);
  const auto dst = poisoned(expected.size());
  pack_table(rows.table(), batch_item(rows.item, to), dst.get());
  expect_filled(expected, dst);
}

/// Each number on its own: the batch is (steps, chunks, rows, rest), or (rows, steps, step's items) for chunks = 0.
void expect_padded(const Rows& rows, Item to, std::size_t steps, std::size_t chunks, bool left) {
  constexpr int pad = 77;
  const std::size_t n = rows.addresses.size();
  const std::size_t inner = chunks == 0 ? rows.step_items : rows.step_items / chunks;
  const std::size_t per_step = chunks == 0 ? 1 : chunks;
  std::vector<int> numbers(n * steps * rows.step_items, pad);
  for (std::size_t row = 0; row < n; ++row) {
    for (std::size_t at = 0; at < rows.numbers[row].size(); ++at) {
      const std::size_t step = at / rows.step_items + (left ? steps - rows.steps(row) : 0);
      const std::size_t chunk = at % rows.step_items / inner;
      const std::size_t block = chunks == 0 ? row * steps + step : (step * per_step + chunk) * n + row;
      numbers[block * inner + at % inner] = rows.numbers[row][at];
    }
  }
  const std::vector<std::byte> expected = all_stored(to, numbers);
  const std::vector<std::byte> pad_item = stored(to, pad);
  const auto dst = poisoned(expected.size());
  const PaddedForm form{.steps = steps, .chunks = chunks, .left = left, .pad_item = pad_item.data()};
  pad_table(rows.table(), batch_item(rows.item, to), form, dst.get());
  expect_filled(expected, dst);
}

TEST(RowTable, EveryCastInEveryLayoutFromAnyAddress) {
  std::minstd_rand engine(1);
  const auto random = [&] { return static_cast<std::uint32_t>(engine() >> 4); };
  for (std::size_t from = 0; from < n_items; ++from) {
    for (std::size_t to = 0; to < n_items; ++to) {
      for (int round = 0; round < 12; ++round) {
        const std::size_t chunks = 1 + random() % 3;
        std::vector<std::int32_t> lengths(1 + random() % 4);
        for (std::int32_t& length : lengths) length = static_cast<std::int32_t>(random() % (round < 6 ? 5 : 50));
        const Rows rows(lengths, chunks * (random() % 4), static_cast<Item>(from), random() % 3, random());
        const auto longest = static_cast<std::size_t>(*std::max_element(lengths.begin(), lengths.end()));
        expect_packed(rows, static_cast<Item>(to));
        for (const bool left : {false, true}) {
          expect_padded(rows, static_cast<Item>(to), longest, 0, left);
          expect_padded(rows, static_cast<Item>(to), longest + random() % 3, chunks, left);
        }
      }
    }
  }
}

TEST(RowTable, WhatIsFilledAlreadyIsLeftAlone) {
  const Rows rows({2, 0, 1}, 3, Item::int32, 0, 1);
  for (const std::size_t chunks : {0, 1, 3}) {
    const auto dst = poisoned(3 * 2 * 3 * 4);
    const PaddedForm form{.steps = 2, .chunks = chunks, .pad_item = dst.get(), .is_filled = true};
    pad_table(rows.table(), batch_item(Item::int32, Item::int32), form, dst.get());
    std::size_t kept = 0;
    for (std::size_t at = 0; at < 3 * 2 * 3 * 4; ++at) kept += dst[at] == std::byte{0xEE};
    EXPECT_EQ(kept, std::size_t{3 * 3 * 4});
  }
}

TEST(RowTable, NoRowsTouchNothing) {
  const std::int32_t bounds[1] = {0};
  const RowTable table{.rows = {}, .cu_seqlens = bounds, .step_items = 3, .item_bytes = 4};
  const std::byte pad[4]{};
  pack_table(table, {.cast = nullptr, .bytes = 4}, nullptr);
  pad_table(table, {.cast = nullptr, .bytes = 4}, {.steps = 2, .chunks = 0, .pad_item = pad}, nullptr);
}

TEST(RowMoves, FillsPastTheCachesAreFillsOfEverySizeFromAnyItem) {
  for (const std::size_t item_bytes : {1, 2, 3, 4, 8, 12, 16, 32}) {
    std::vector<std::byte> item(item_bytes);
    for (std::size_t i = 0; i < item_bytes; ++i) item[i] = static_cast<std::byte>(i + 1);
    for (const std::size_t items : {0, 1, 5, 500, 5000}) {
      for (std::size_t before = 0; before < 4; ++before) {
        for (const std::size_t shift : {0, 1}) {  // bytes that put items at odd addresses
          const std::size_t from = shift + before * item_bytes;
          const std::size_t n = items * item_bytes;
          const auto dst = poisoned(from + n + 1);
          for (const bool stream : {true, false}) {
            {
              const Fill fill(item.data(), item_bytes, stream);
              fill(dst.get() + from, n);
            }
            std::size_t wrong = 0;
            for (std::size_t at = 0; at < n; ++at) wrong += dst[from + at] != item[at % item_bytes];
            EXPECT_EQ(wrong, std::size_t{0}) << item_bytes << " x " << items;
            for (std::size_t at = 0; at < from; ++at) EXPECT_EQ(dst[at], std::byte{0xEE});
            EXPECT_EQ(dst[from + n], std::byte{0xEE});
            if (n != 0) std::memset(dst.get() + from, 0xEE, n);
          }
        }
      }
    }
  }
}

TEST(RowMoves, LargeBatchesInPagesThatAreThereStream) {
  constexpr std::size_t n = std::size_t{32} << 20;
  const std::unique_ptr<std::byte[]> fresh(new std::byte[n]);  // not touched: the kernel has given no page
  EXPECT_FALSE(is_to_stream(fresh.get(), n));
  std::memset(fresh.get(), 1, n);
#if defined(__SSE2__)
  EXPECT_TRUE(is_to_stream(fresh.get(), n));
  EXPECT_TRUE(is_to_stream(fresh.get() + 13, n - 13));
#endif
  EXPECT_FALSE(is_to_stream(fresh.get(), n / 4));
}

TEST(RowMoves, EverySizeIsCopiedAndNoByteMore) {
  for (std::size_t n = 0; n <= 130; ++n) {
    for (std::size_t shift = 0; shift < 3; ++shift) {
      const auto src = std::make_unique<std::byte[]>(shift + n);
      const auto dst = poisoned(shift + n + 1);
      for (std::size_t i = 0; i < n; ++i) src[shift + i] = static_cast<std::byte>(i + 1);
      copy_bytes(dst.get() + shift, src.get() + shift, n);
      EXPECT_EQ(0, std::memcmp(dst.get() + shift, src.get() + shift, n)) << n;
      EXPECT_EQ(dst[shift + n], std::byte{0xEE}) << n;
      for (std::size_t i = 0; i < shift; ++i) EXPECT_EQ(dst[i], std::byte{0xEE}) << n;
    }
  }
}

}  // namespace
