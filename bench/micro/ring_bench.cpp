// MpmcRing against its textbook form, moodycamel's queue with tokens, and a mutex around a deque; 64-bit items.
// Usage: ring_bench N_RUNS N_ITEMS. Prints JSON: a row per queue and shape over N_RUNS interleaved runs, the median and
// the best. Runs should be shorter than a time slice (200,000 items are about 3 ms): where other programs take the
// cores away, a bounded ring waits for its suspended peer and an unbounded queue does not, which says nothing of
// either.
#include <infcore/queue/mpmc_ring.hpp>

#if __has_include(<concurrentqueue/concurrentqueue.h>)
#include <concurrentqueue/concurrentqueue.h>
#define INFCORE_HAS_MOODYCAMEL 1
#else
#define INFCORE_HAS_MOODYCAMEL 0
#endif

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t capacity = 4096;
constexpr std::size_t n_bulk = 32;
using Item = std::uint64_t;
using Bulk = std::array<Item, n_bulk>;

/// One thread's way to a queue; what moodycamel needs per thread lives here.
struct OurRing {
  static constexpr const char* name = "ring";
  infcore::queue::MpmcRing<Item> ring{capacity};
  struct Port {
    OurRing& queue;
    bool push(Item item) { return queue.ring.try_push(item); }
    bool pop(Item& item) { return queue.ring.try_pop(item); }
    std::size_t push_bulk(std::span<const Item> items) { return queue.ring.try_push_bulk(items); }
    std::size_t pop_bulk(std::span<Item> items) { return queue.ring.try_pop_bulk(items); }
  };
};

/// The bounded sequence ring as it is usually written down; its bulk is a loop.
struct Textbook {
  static constexpr const char* name = "textbook";
  struct Cell {
    std::atomic<std::size_t> sequence;
    Item item;
  };
  std::unique_ptr<Cell[]> cells = std::make_unique<Cell[]>(capacity);
  alignas(128) std::atomic<std::size_t> enqueue_at{0};
  alignas(128) std::atomic<std::size_t> dequeue_at{0};

  Textbook() {
    for (std::size_t i = 0; i < capacity; ++i) cells[i].sequence.store(i, std::memory_order_relaxed);
  }
  struct Port {
    Textbook& queue;
    bool push(Item item) {
      std::size_t at = queue.enqueue_at.load(std::memory_order_relaxed);
      Cell* cell = nullptr;
      for (;;) {
        cell = &queue.cells[at & (capacity - 1)];
        const auto lag = static_cast<std::intptr_t>(cell->sequence.load(std::memory_order_acquire) - at);
        if (lag < 0) return false;
        if (lag > 0) {
          at = queue.enqueue_at.load(std::memory_order_relaxed);
        } else if (queue.enqueue_at.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) {
          break;
        }
      }
      cell->item = item;
      cell->sequence.store(at + 1, std::memory_order_release);
      return true;
    }
    bool pop(Item& item) {
      std::size_t at = queue.dequeue_at.load(std::memory_order_relaxed);
      Cell* cell = nullptr;
      for (;;) {
        cell = &queue.cells[at & (capacity - 1)];
        const auto lag = static_cast<std::intptr_t>(cell->sequence.load(std::memory_order_acquire) - (at + 1));
        if (lag < 0) return false;
        if (lag > 0) {
          at = queue.dequeue_at.load(std::memory_order_relaxed);
        } else if (queue.dequeue_at.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) {
          break;
        }
      }
      item = cell->item;
      cell->sequence.store(at + capacity, std::memory_order_release);
      return true;
    }
    std::size_t push_bulk(std::span<const Item> items) {
      std::size_t n = 0;
      while (n < items.size() && push(items[n])) ++n;
      return n;
    }
    std::size_t pop_bulk(std::span<Item> items) {
      std::size_t n = 0;
      while (n < items.size() && pop(items[n])) ++n;
      return n;
    }
  };
};

struct MutexDeque {
  static constexpr const char* name = "mutex_deque";
  std::mutex mutex;
  std::deque<Item> items;
  struct Port {
    MutexDeque& queue;
    bool push(Item item) { return push_bulk({&item, 1}) == 1; }
    bool pop(Item& item) { return pop_bulk({&item, 1}) == 1; }
    std::size_t push_bulk(std::span<const Item> from) {
      const std::scoped_lock lock(queue.mutex);
      const std::size_t n = std::min(from.size(), capacity - queue.items.size());
      queue.items.insert(queue.items.end(), from.begin(), from.begin() + static_cast<std::ptrdiff_t>(n));
      return n;
    }
    std::size_t pop_bulk(std::span<Item> to) {
      const std::scoped_lock lock(queue.mutex);
      const std::size_t n = std::min(to.size(), queue.items.size());
      for (std::size_t i = 0; i < n; ++i) {
        to[i] = queue.items.front();
        queue.items.pop_front();
      }
      return n;
    }
  };
};

#if INFCORE_HAS_MOODYCAMEL
struct Moodycamel {
  static constexpr const char* name = "moodycamel_tokens";
  moodycamel::ConcurrentQueue<Item> queue{capacity};
  struct Port {
    explicit Port(Moodycamel& owner) : queue(owner.queue), producer(owner.queue), consumer(owner.queue) {}
    moodycamel::ConcurrentQueue<Item>& queue;
    moodycamel::ProducerToken producer;
    moodycamel::ConsumerToken consumer;
    bool push(Item item) { return queue.enqueue(producer, item); }
    bool pop(Item& item) { return queue.try_dequeue(consumer, item); }
    std::size_t push_bulk(std::span<const Item> items) {
      return queue.enqueue_bulk(producer, items.data(), items.size()) ? items.size() : 0;
    }
    std::size_t pop_bulk(std::span<Item> items) { return queue.try_dequeue_bulk(consumer, items.data(), items.size()); }
  };
};
#endif

struct Result {
  double ns_per_item;
  std::uint64_t checksum;  // sum of what came out
};

double elapsed_ns(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count();
}

/// Push one, pop one.
template <class Queue>
Result same_thread(std::uint64_t n_items) {
  auto queue = std::make_unique<Queue>();
  typename Queue::Port port{*queue};
  std::uint64_t sum = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (Item i = 1; i <= n_items; ++i) {
    Item out = 0;
    if (port.push(i) && port.pop(out)) sum += out;
  }
  return {elapsed_ns(begin) / static_cast<double>(n_items), sum};
}

/// Push 32, pop 32.
template <class Queue>
Result same_thread_bulk(std::uint64_t n_items) {
  auto queue = std::make_unique<Queue>();
  typename Queue::Port port{*queue};
  std::uint64_t sum = 0;
  Bulk in{};
  Bulk out{};
  const auto begin = std::chrono::steady_clock::now();
  for (Item i = 1; i <= n_items; i += n_bulk) {
    for (std::size_t k = 0; k < n_bulk; ++k) in[k] = i + k;
    if (port.push_bulk(in) != n_bulk || port.pop_bulk(out) != n_bulk) std::abort();
    for (const Item item : out) sum += item;
  }
  return {elapsed_ns(begin) / static_cast<double>(n_items), sum};
}

void pin(int cpu) {
  if (std::thread::hardware_concurrency() < 2) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  static_cast<void>(pthread_setaffinity_np(pthread_self(), sizeof(set), &set));  // a restricted host may refuse
}

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// What a thread does that found nothing to do: pauses for some hundred nanoseconds, since looking again at once takes
/// the line away from the peer who is about to write it. After a long while it gives up its core, so that hosts with
/// fewer cores than threads get on; on a busy host each yield would cost a whole time slice.
struct Backoff {
  static constexpr int n_pauses = 16;
  int n_in_vain = 0;
  void unless(bool progress) {
    n_in_vain = progress ? 0 : n_in_vain + 1;
    for (int i = 0; !progress && i < n_pauses; ++i) pause_cpu();
    if (n_in_vain % 2'000 == 1'999) std::this_thread::yield();
  }
};

/// One producer, one consumer, each on a core of its own where there are two. Each thread works on copies of its own:
/// what one of them wrote for every item beside what the other one read would be timed as the queue's (2.5 times as
/// long, for the placements of the stack that put the two in one line).
template <class Queue, bool bulk>
Result one_to_one(std::uint64_t n_items) {
  auto queue = std::make_unique<Queue>();
  std::atomic<bool> go{false};
  std::thread producer([&go, &shared = *queue, n_items] {
    pin(0);
    typename Queue::Port port{shared};
    Backoff wait;
    while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
    for (Item i = 1; i <= n_items;) {
      std::size_t n = 0;
      if constexpr (bulk) {
        Bulk in;
        const std::size_t n_in = std::min<std::uint64_t>(n_bulk, n_items - i + 1);
        for (std::size_t k = 0; k < n_in; ++k) in[k] = i + k;
        n = port.push_bulk(std::span(in).first(n_in));
      } else {
        n = port.push(i) ? 1 : 0;
      }
      wait.unless(n != 0);
      i += n;
    }
  });
  std::uint64_t sum = 0;
  double ns = 0.0;
  std::thread consumer([&go, &sum, &ns, &shared = *queue, n_items] {
    pin(1);
    typename Queue::Port port{shared};
    Item sum_here = 0;
    const auto begin = std::chrono::steady_clock::now();
    Backoff wait;
    go.store(true, std::memory_order_release);
    for (std::uint64_t n_out = 0; n_out < n_items;) {
      std::size_t n = 0;
      Bulk out;
      if constexpr (bulk) {
        n = port.pop_bulk(out);
      } else {
        n = port.pop(out[0]) ? 1 : 0;
      }
      for (std::size_t k = 0; k < n; ++k) sum_here += out[k];
      wait.unless(n != 0);
      n_out += n;
    }
    ns = elapsed_ns(begin);
    sum = sum_here;
  });
  producer.join();
  consumer.join();
  return {ns / static_cast<double>(n_items), sum};
}

using Rows = std::map<std::string, std::map<std::string, std::vector<Result>>>;  // shape -> queue -> runs

template <class Queue>
void run_once(Rows& rows, std::uint64_t n_items) {
  rows["same_thread"][Queue::name].push_back(same_thread<Queue>(n_items));
  rows["same_thread_bulk_32"][Queue::name].push_back(same_thread_bulk<Queue>(n_items));
  rows["one_to_one"][Queue::name].push_back(one_to_one<Queue, false>(n_items));
  rows["one_to_one_bulk_32"][Queue::name].push_back(one_to_one<Queue, true>(n_items));
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s N_RUNS N_ITEMS\n", argv[0]);
    return 2;
  }
  const int n_runs = std::max(1, std::atoi(argv[1]));
  const std::uint64_t n_items = std::max(1ull, std::strtoull(argv[2], nullptr, 10) / n_bulk) * n_bulk;
  Rows rows;
  for (int run = 0; run < n_runs; ++run) {
    run_once<OurRing>(rows, n_items);
    run_once<Textbook>(rows, n_items);
#if INFCORE_HAS_MOODYCAMEL
    run_once<Moodycamel>(rows, n_items);
#endif
    run_once<MutexDeque>(rows, n_items);
  }
  const std::uint64_t expected = n_items * (n_items + 1) / 2;
  std::printf("{\"n_runs\": %d, \"n_items\": %llu, \"has_moodycamel\": %s, \"rows\": [", n_runs,
              static_cast<unsigned long long>(n_items), INFCORE_HAS_MOODYCAMEL ? "true" : "false");
  const char* separator = "";
  for (const auto& [shape, queues] : rows) {
    for (const auto& [queue, runs] : queues) {
      std::vector<double> ns;
      bool checksum_ok = true;
      for (std::size_t i = 0; i < runs.size(); ++i) {
        ns.push_back(runs[i].ns_per_item);
        checksum_ok = checksum_ok && runs[i].checksum == expected;
      }
      std::printf(
          "%s\n {\"shape\": \"%s\", \"queue\": \"%s\", \"ns_per_item\": %.3f, \"ns_per_item_best\": %.3f, "
          "\"checksum_ok\": %s, ",
          separator, shape.c_str(), queue.c_str(), median(ns), *std::min_element(ns.begin(), ns.end()),
          checksum_ok ? "true" : "false");
      std::printf("\"runs_ns\": [");
      for (std::size_t i = 0; i < ns.size(); ++i) std::printf("%s%.3f", i == 0 ? "" : ", ", ns[i]);
      std::printf("]}");
      separator = ",";
    }
  }
  std::printf("\n]}\n");
  return 0;
}
