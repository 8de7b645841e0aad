// One item's way through the engine's queue, 1,000 deep: pushed to the ingress ring, popped from it 64 at a time, put into
// the lane, taken out by deadline. Beside it a mutex around std::priority_queue, as C++ users write it.
// Usage: queue_bench N_RUNS N_ITEMS. Prints JSON: per row the runs' nanoseconds of processor time an item, interleaved,
// with median and best.
#include <infcore/queue/mpmc_ring.hpp>
#include <infcore/queue/tiered_lane.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <queue>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <time.h>

namespace {

using infcore::base::TimeNs;
using infcore::queue::MpmcRing;
using infcore::queue::QueueSlots;
using infcore::queue::TieredLane;

constexpr std::uint32_t depth = 1'000, n_bulk = 64;

struct Result {
  double ns_per_item;
  std::uint64_t checksum;  // of the deadlines that came out
};

/// Item after item 100 us later, each due within 200 ms of its own time: what stays 1,000 deep is like what comes.
std::vector<TimeNs> draw_deadlines(std::size_t n) {
  std::mt19937_64 random(1);
  std::vector<TimeNs> out(n);
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<TimeNs>(i * 100'000 + random() % 200'000'000);
  return out;
}

/// This thread's processor time: others may have the cores in between.
double now_ns() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

/// The engine's own pieces. `n_tenants` 1: nothing is counted.
Result ring_and_lane(const std::vector<TimeNs>& deadlines, std::size_t n_items, std::uint32_t n_tenants) {
  MpmcRing<std::uint64_t> ring(2 * depth);
  QueueSlots slots(depth + n_bulk);
  TieredLane lane(slots, 8);
  std::vector<std::uint32_t> free_slots;
  for (std::uint32_t slot = depth + n_bulk; slot-- > 0;) free_slots.push_back(slot);
  std::uint64_t seq = 0, checksum = 0;
  const auto put = [&](std::uint64_t item) {
    const std::uint32_t slot = free_slots.back();
    free_slots.pop_back();
    infcore::queue::QueueSlot& queued = slots[slot];
    queued.deadline_ns = deadlines[item];
    queued.arrival_ns = static_cast<TimeNs>(seq);
    queued.seq = seq++;
    queued.tier = 0;
    queued.tenant = static_cast<std::uint32_t>(item % n_tenants);
    if (!lane.push(slot)) std::abort();
  };
  for (std::uint64_t i = 0; i < depth; ++i) put(i);
  std::array<std::uint64_t, n_bulk> items;
  const double begin_ns = now_ns();
  for (std::uint64_t i = depth; i < depth + n_items;) {
    for (std::uint32_t k = 0; k < n_bulk; ++k) {
      if (!ring.try_push(i++)) std::abort();
    }
    const std::size_t n = ring.try_pop_bulk(items);
    for (std::size_t k = 0; k < n; ++k) put(items[k]);
    for (std::size_t k = 0; k < n; ++k) {
      const std::uint32_t slot = lane.pop(0);
      checksum += static_cast<std::uint64_t>(slots[slot].deadline_ns);
      free_slots.push_back(slot);
    }
  }
  const double ns = (now_ns() - begin_ns) / static_cast<double>(n_items);
  for (std::uint32_t slot = lane.pop(0); slot != infcore::queue::no_slot; slot = lane.pop(0)) {
    checksum += static_cast<std::uint64_t>(slots[slot].deadline_ns);
  }
  return {ns, checksum};
}

Result mutex_priority_queue(const std::vector<TimeNs>& deadlines, std::size_t n_items) {
  using Entry = std::pair<TimeNs, std::uint64_t>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
  std::mutex lock;
  std::uint64_t checksum = 0;
  for (std::uint64_t i = 0; i < depth; ++i) queue.emplace(deadlines[i], i);
  const double begin_ns = now_ns();
  for (std::uint64_t i = depth; i < depth + n_items;) {
    for (std::uint32_t k = 0; k < n_bulk; ++k, ++i) {
      const std::scoped_lock held(lock);
      queue.emplace(deadlines[i], i);
    }
    for (std::uint32_t k = 0; k < n_bulk; ++k) {
      const std::scoped_lock held(lock);
      checksum += static_cast<std::uint64_t>(queue.top().first);
      queue.pop();
    }
  }
  const double ns = (now_ns() - begin_ns) / static_cast<double>(n_items);
  for (; !queue.empty(); queue.pop()) checksum += static_cast<std::uint64_t>(queue.top().first);
  return {ns, checksum};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: %s N_RUNS N_ITEMS\n", argv[0]), 2;
  const int n_runs = std::max(1, std::atoi(argv[1]));
  const std::size_t n_items = std::max<std::size_t>(1, std::strtoull(argv[2], nullptr, 10) / n_bulk) * n_bulk;
  const std::vector<TimeNs> deadlines = draw_deadlines(depth + n_items);
  std::uint64_t expected = 0;
  for (const TimeNs at_ns : deadlines) expected += static_cast<std::uint64_t>(at_ns);
  const std::array<std::string, 3> names{"ring_and_lane", "ring_and_lane_64_tenants", "mutex_priority_queue"};
  std::array<std::vector<double>, 3> runs;
  std::array<bool, 3> checksums_ok{true, true, true};
  for (int run = 0; run < n_runs; ++run) {
    const std::array<Result, 3> results{ring_and_lane(deadlines, n_items, 1), ring_and_lane(deadlines, n_items, 64),
                                        mutex_priority_queue(deadlines, n_items)};
    for (std::size_t i = 0; i < results.size(); ++i) {
      runs[i].push_back(results[i].ns_per_item);
      checksums_ok[i] = checksums_ok[i] && results[i].checksum == expected;
    }
  }
  std::printf("{\"rows\": [");
  for (std::size_t i = 0; i < names.size(); ++i) {
    std::vector<double> sorted = runs[i];
    std::sort(sorted.begin(), sorted.end());
    std::printf("%s{\"queue\": \"%s\", \"depth\": %u, \"ns_per_item\": %.3f, \"ns_per_item_best\": %.3f, ", i ? ", " : "",
                names[i].c_str(), depth, sorted[sorted.size() / 2], sorted.front());
    std::printf("\"checksum_ok\": %s, \"runs_ns\": [", checksums_ok[i] ? "true" : "false");
    for (std::size_t k = 0; k < runs[i].size(); ++k) std::printf("%s%.3f", k ? ", " : "", runs[i][k]);
    std::printf("]}");
  }
  std::printf("]}\n");
  return 0;
}
