#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include <infcore/device/staging_ring.hpp>

namespace {

using Ring = infcore::device::StagingRing<>;

TEST(StagingRing, BeginsAgainWhereNothingIsOut) {
  Ring ring(4096);
  for (int batch = 0; batch < 10; ++batch) {
    const auto region = ring.reserve(100);
    ASSERT_TRUE(region.has_value());
    EXPECT_EQ(region->at, 0u);
    ring.release(region->ticket);
  }
}

TEST(StagingRing, TwoBatchesLieBesideEachOtherAndAThirdHasNoRoom) {
  Ring ring(256);
  const auto first = ring.reserve(128), second = ring.reserve(65);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(second->at, 128u);
  EXPECT_FALSE(ring.reserve(1).has_value());
  ring.release(first->ticket);
  const auto third = ring.reserve(128);
  ASSERT_TRUE(third.has_value());
  EXPECT_EQ(third->at, 0u);
  EXPECT_FALSE(ring.reserve(1).has_value());  // exactly full, wrapped
}

TEST(StagingRing, WhatIsTooLargeIsRefused) {
  Ring ring(128);
  EXPECT_FALSE(ring.reserve(129).has_value());
  EXPECT_FALSE(ring.reserve(SIZE_MAX).has_value());
  EXPECT_FALSE(ring.reserve(SIZE_MAX - 62).has_value());
  EXPECT_TRUE(ring.reserve(0).has_value());
}

TEST(StagingRing, AsManyRegionsAsThereAreSlots) {
  Ring ring(std::size_t{1} << 20);
  std::vector<std::uint64_t> tickets;
  for (std::uint32_t i = 0; i < Ring::regions_max; ++i) tickets.push_back(ring.reserve(1)->ticket);
  EXPECT_FALSE(ring.reserve(1).has_value());
  ring.release(tickets[1]);
  EXPECT_FALSE(ring.reserve(1).has_value());  // behind an older one that is kept
  ring.release(tickets[0]);
  EXPECT_TRUE(ring.reserve(1).has_value());
  EXPECT_EQ(ring.n_out(), Ring::regions_max - 1u);
}

/// Against a map of what is out: no region overlaps another, and one that is refused would not have fitted in the gaps
/// before and behind, taken in the order of the ring.
TEST(StagingRing, RegionsNeverOverlapWhateverTheOrderOfReleases) {
  std::mt19937 random(7);
  Ring ring(64 * 40);
  std::map<std::size_t, std::pair<std::size_t, std::uint64_t>> out;  // at -> (bytes, ticket)
  int refused = 0;
  for (int step = 0; step < 200'000; ++step) {
    if (!out.empty() && random() % 2 == 0) {
      auto one = out.begin();
      std::advance(one, random() % out.size());
      ring.release(one->second.second);
      out.erase(one);
      continue;
    }
    const std::size_t bytes = random() % 900;
    const auto region = ring.reserve(bytes);
    if (!region) {
      ++refused;
      ASSERT_FALSE(out.empty());
      continue;
    }
    const std::size_t end = region->at + Ring::rounded(bytes);
    ASSERT_EQ(region->at % Ring::alignment, 0u);
    ASSERT_LE(end, ring.bytes());
    const auto next = out.lower_bound(region->at);
    ASSERT_TRUE(next == out.end() || next->first >= end);
    ASSERT_TRUE(next == out.begin() || std::prev(next)->first + std::prev(next)->second.first <= region->at);
    out[region->at] = {Ring::rounded(bytes), region->ticket};
  }
  EXPECT_GT(refused, 1000);
}

TEST(StagingRing, ReadersOnOtherThreadsSeeTheirBatch) {
  constexpr int n_batches = 20'000;
  Ring ring(64 * 16);
  std::vector<std::byte> memory(ring.bytes());
  struct Batch {
    std::atomic<int> state{0};
    std::size_t at{}, bytes{};
    std::uint64_t ticket{};
    std::byte value{};
  };
  std::vector<Batch> batches(n_batches);
  std::atomic<int> wrong{0};
  const auto read = [&](int from) {
    for (int i = from; i < n_batches; i += 2) {
      Batch& batch = batches[static_cast<std::size_t>(i)];
      while (batch.state.load(std::memory_order_acquire) == 0) std::this_thread::yield();
      for (std::size_t b = 0; b < batch.bytes; ++b)
        if (memory[batch.at + b] != batch.value) wrong.fetch_add(1, std::memory_order_relaxed);
      ring.release(batch.ticket);
    }
  };
  std::thread even(read, 0), odd(read, 1);
  for (int i = 0; i < n_batches; ++i) {
    Batch& batch = batches[static_cast<std::size_t>(i)];
    batch.bytes = static_cast<std::size_t>(1 + i % 300);
    auto region = ring.reserve(batch.bytes);
    while (!region) std::this_thread::yield(), region = ring.reserve(batch.bytes);
    batch.at = region->at, batch.ticket = region->ticket, batch.value = static_cast<std::byte>(i);
    std::memset(memory.data() + batch.at, i & 0xFF, batch.bytes);
    batch.state.store(1, std::memory_order_release);
  }
  even.join(), odd.join();
  EXPECT_EQ(wrong.load(std::memory_order_relaxed), 0);
}

}  // namespace
