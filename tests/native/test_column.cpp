// Columns, the id table and the heap over them: what is in stays where they grow, what is new is zero, and the table
// finds what a plain map does, however full it is.
#include <infcore/base/column.hpp>
#include <infcore/base/id_table.hpp>
#include <infcore/base/indexed_heap.hpp>

#include <gtest/gtest.h>
#include <cstdint>
#include <map>
#include <random>
#include <set>

namespace infcore::base {
namespace {

TEST(Column, KeepsWhatIsInAndBeginsWithZeros) {
  Column<std::uint64_t> column;
  std::size_t n_before = 0;
  for (const std::size_t n : {1u, 7u, 100u, 8'000u, 9'000u, 9'000u, 40'000u, 700'000u}) {  // mapped from 8,192 on
    column.grow(n);
    ASSERT_EQ(column.size(), n);
    for (std::size_t i = 0; i < n_before; ++i) ASSERT_EQ(column[i], ~i) << n;
    for (std::size_t i = n_before; i < n; ++i) {
      ASSERT_EQ(column[i], 0u) << n;
      column[i] = ~i;
    }
    n_before = n;
  }
}

TEST(Column, Swaps) {
  Column<std::uint32_t> small, large;
  small.grow(3);
  small[2] = 5;
  large.grow(100'000);
  large[99'999] = 6;
  small.swap(large);
  EXPECT_EQ(small.size(), 100'000u);
  EXPECT_EQ(small[99'999], 6u);
  EXPECT_EQ(large[2], 5u);
}

TEST(IdTable, FindsWhatAPlainMapDoes) {
  std::mt19937_64 draw(5);
  for (const bool crowded : {false, true}) {
    IdTable table;
    std::size_t n_places = 5;
    table.grow(n_places);
    std::multimap<std::uint32_t, std::uint32_t> plain;  // tag to id
    for (std::uint32_t id = 0; id < 3'000; ++id) {
      // Few tags, all at the end of the table: they wrap round it and stand far from their own place.
      const std::uint32_t tag = crowded ? ~0u - static_cast<std::uint32_t>(draw() % 400) * 9'999'991u % 70'000'000u
                                        : static_cast<std::uint32_t>(draw());
      if (plain.size() + 1 >= n_places) table.grow(n_places += n_places / 4 + 1);
      table.insert(tag, id);
      plain.emplace(tag, id);
      while (!plain.empty() && draw() % 5 < 2) {
        auto gone = plain.lower_bound(static_cast<std::uint32_t>(draw()));
        if (gone == plain.end()) gone = plain.begin();
        table.erase(gone->first, gone->second);
        plain.erase(gone);
      }
      if (id % 50 != 0) continue;
      for (const auto& [known, at] : plain) {
        std::multiset<std::uint32_t> found, wanted;
        for (auto probe = table.first(known); probe.id != IdTable::no_id; probe = table.next(probe, known))
          found.insert(probe.id);
        for (auto [it, end] = plain.equal_range(known); it != end; ++it) wanted.insert(it->second);
        ASSERT_EQ(found, wanted) << at;
      }
    }
    EXPECT_GT(plain.size(), 300u);
  }
}

TEST(IndexedHeap, TiesGoToTheLowestSlot) {
  std::mt19937_64 draw(9);
  IndexedHeap<double, true> heap(8);
  std::set<std::pair<double, std::uint32_t>> plain;
  std::map<std::uint32_t, double> keys;
  for (int i = 0; i < 20'000; ++i) {
    if (i == 100) heap.grow(300);
    const std::uint32_t slot = static_cast<std::uint32_t>(draw() % (i < 100 ? 8 : 300));
    if (heap.contains(slot)) {
      ASSERT_EQ(heap.key(slot), keys[slot]);
      heap.remove(slot);
      plain.erase({keys[slot], slot});
    } else {
      keys[slot] = static_cast<double>(draw() % 5);
      heap.push(slot, keys[slot]);
      plain.emplace(keys[slot], slot);
    }
    ASSERT_EQ(heap.size(), plain.size());
    if (plain.empty()) continue;
    ASSERT_EQ(heap.top(), plain.begin()->second);
  }
}

}  // namespace
}  // namespace infcore::base
