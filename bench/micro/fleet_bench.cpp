// What a fleet's table costs without Python, in private memory or (SHARED 1) under a name: a reserve and its release, a
// signal, a look for changes over all nodes where one has changed, adding a node; and two threads that reserve and
// release while a third signals. Prints one line of JSON, nanoseconds of the calling thread's CPU time each.
// Usage: fleet_bench N_NODES N_ROUNDS SHARED
#include <infcore/base/clock.hpp>
#include <infcore/route/fleet.hpp>

#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace infcore::route;
using infcore::contracts::FleetColumns;

double cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

template <class Each>
double ns_each(std::uint64_t n, Each each) {
  const double begin_ns = cpu_ns();
  for (std::uint64_t i = 0; i < n; ++i) each(i);
  return (cpu_ns() - begin_ns) / static_cast<double>(n);
}

void reserve_and_release(Fleet& fleet, std::uint32_t n_nodes, std::uint64_t i) {
  const NodeId node{static_cast<std::uint32_t>(i * 7919 % n_nodes)};
  fleet.reserve(node, 0.001, static_cast<infcore::base::TimeNs>(i));
  fleet.release(node, 0.001, static_cast<infcore::base::TimeNs>(i));
}

/// Reserve and release by so many threads at once: nanoseconds of each.
double threads_ns(Fleet& fleet, std::uint32_t n_nodes, std::uint64_t n_rounds, std::size_t n_threads) {
  std::atomic<bool> stop{false};
  std::thread signals([&] {
    for (infcore::base::TimeNs t = 1; !stop.load(std::memory_order_relaxed); ++t) {
      fleet.signal(NodeId{static_cast<std::uint32_t>(t) % n_nodes}, {.as_of_ns = t, .inflight = 1.0, .cpu = 0.5});
      std::this_thread::yield();
    }
  });
  std::vector<double> each(n_threads);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < n_threads; ++t)
    threads.emplace_back([&, t] {
      each[t] = ns_each(n_rounds, [&](std::uint64_t i) { reserve_and_release(fleet, n_nodes, i * 31 + t * 17); });
    });
  for (std::thread& thread : threads) thread.join();
  stop.store(true, std::memory_order_relaxed);
  signals.join();
  double sum = 0.0;
  for (const double ns : each) sum += ns;
  return sum / static_cast<double>(n_threads);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const auto n_nodes = static_cast<std::uint32_t>(std::strtoul(argv[1], nullptr, 10));
  const std::uint64_t n_rounds = std::strtoull(argv[2], nullptr, 10);
  const bool shared = argv[3][0] == '1';
  const std::string name = "bench-" + std::to_string(getpid());
  const auto fleet = shared ? std::make_unique<Fleet>(name, n_nodes, 64, infcore::base::to_ns(3600.0), 0)
                            : std::make_unique<Fleet>(n_nodes, 64);
  const double add_ns = ns_each(n_nodes, [&](std::uint64_t i) {
    NodeSpec spec;
    spec.name = "n" + std::to_string(i);
    fleet->add(spec);
  });
  const double reserve_ns = ns_each(n_rounds, [&](std::uint64_t i) { reserve_and_release(*fleet, n_nodes, i); });
  const double signal_ns = ns_each(n_rounds, [&](std::uint64_t i) {
    fleet->signal(NodeId{static_cast<std::uint32_t>(i * 7919 % n_nodes)},
                  {.as_of_ns = static_cast<infcore::base::TimeNs>(i), .inflight = 1.0, .cpu = 0.5});
  });
  std::vector<std::uint64_t> seen((n_nodes + 63) / 64 * 64 / FleetColumns::block_nodes);
  std::uint64_t n_changed = 0;
  const double look_ns = ns_each(n_rounds, [&](std::uint64_t i) {
    fleet->reserve(NodeId{static_cast<std::uint32_t>(i * 7919 % n_nodes)}, i % 2 == 0 ? 0.001 : 0.0);
    for (std::uint32_t block = 0; block * FleetColumns::block_nodes < n_nodes; ++block)
      n_changed +=
          fleet->columns().block(block).changed(seen[block]).what != FleetColumns::Block::Changes::What::nothing;
  });
  const double one_ns = threads_ns(*fleet, n_nodes, n_rounds, 1), two_ns = threads_ns(*fleet, n_nodes, n_rounds, 2);
  std::uint64_t inflight = 0;
  for (NodeId node{0}; node.value < n_nodes; ++node.value) {
    infcore::contracts::Credit own;
    Signal last;
    fleet->read(node, own, last);
    inflight += static_cast<std::uint64_t>(own.inflight);
  }
  std::printf(
      "{\"add\": %.1f, \"reserve_release\": %.1f, \"signal\": %.1f, \"reserve_look\": %.1f, \"one_thread\": %.1f, "
      "\"two_threads\": %.1f, \"changed\": %llu, \"inflight\": %llu}\n",
      add_ns, reserve_ns, signal_ns, look_ns, one_ns, two_ns, static_cast<unsigned long long>(n_changed),
      static_cast<unsigned long long>(inflight));
  return 0;
}
