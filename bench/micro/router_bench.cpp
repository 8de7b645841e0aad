// Decisions from C++: what one costs without Python, and how many two threads make, each with a Router of its own over
// one Fleet, while a third signals: by the wall, and by the threads' processor time, which tells more where other
// programs have the cores. "apart" is the same with a Fleet for each of the two: what they lose together against that
// is the way of what each changes to the other's core. Prints one line of JSON.
// Usage: router_bench N_NODES N_PICKS N_RUNS POLICY
#include <infcore/base/clock.hpp>
#include <infcore/route/router.hpp>

#include <time.h>

#include <algorithm>
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

void fill(Fleet& fleet, std::uint32_t n_nodes, ModelId model) {
  for (std::uint32_t i = 0; i < n_nodes; ++i) {
    NodeSpec spec;
    spec.name = "n" + std::to_string(i);
    spec.rtt_s = 1e-5 * (i * 7 % 9);
    spec.slots = 1 + i % 3;
    spec.price_per_hour = 0.5 * (1 + i % 5);
    fleet.load_model(fleet.add(spec), model);
  }
}

std::unique_ptr<Router> router_of(Fleet& fleet, const char* policy, ModelId model, std::uint64_t seed) {
  auto router = std::make_unique<Router>(fleet, policy, seed);
  for (std::uint32_t i = 0; i < fleet.n_nodes(); ++i)
    router->set_prior(model, NodeId{i}, {.base_s = 1e-3 * (2 + i * 31 % 13), .per_work_s = 1e-5 * (1 + i * 17 % 11)});
  return router;
}

double processor_s() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Seconds of n picks, each ended at once.
double picked_s(Router& router, ModelId model, std::uint64_t n) {
  const auto begin_ns = infcore::base::monotonic_ns();
  Decision decision;
  for (std::uint64_t i = 0; i < n; ++i) {
    const auto now_ns = static_cast<infcore::base::TimeNs>(i);
    router.pick({.model = model, .work = 1.0 + static_cast<double>(i % 7), .now_ns = now_ns}, {}, decision);
    router.done(decision, false, 0.0, now_ns);
  }
  return infcore::base::seconds(infcore::base::monotonic_ns() - begin_ns);
}

struct Rate {
  double per_s;            ///< of all threads
  double per_processor_s;  ///< of all threads, were each alone on its processor
};

/// Picks a second of `n_threads` that start together.
Rate rate(Fleet& fleet, std::vector<std::unique_ptr<Router>>& routers, ModelId model, std::size_t n_threads,
          std::uint64_t n_picks) {
  std::atomic<std::size_t> ready{0};
  std::atomic<bool> stop{false};
  std::vector<double> taken_s(n_threads), processor_taken_s(n_threads);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < n_threads; ++t) {
    threads.emplace_back([&, t] {
      ready.fetch_add(1);
      while (ready.load() < n_threads) {
      }
      const double begin_s = processor_s();
      taken_s[t] = picked_s(*routers[t], model, n_picks);
      processor_taken_s[t] = processor_s() - begin_s;
    });
  }
  std::thread signaller([&] {  // a node a tenth of a millisecond, as 1,000 nodes that signal ten times a second
    for (std::uint32_t i = 0; !stop.load(); ++i) {
      fleet.signal(NodeId{i % fleet.n_nodes()}, {.as_of_ns = static_cast<std::int64_t>(i), .gpu = (i % 10) / 10.0});
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  });
  for (std::thread& thread : threads) thread.join();
  stop.store(true);
  signaller.join();
  const auto n = static_cast<double>(n_threads * n_picks);
  return {n / *std::max_element(taken_s.begin(), taken_s.end()),
          n / *std::max_element(processor_taken_s.begin(), processor_taken_s.end())};
}

constexpr std::uint64_t batch = 100;

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](int at, std::uint64_t usual) {
    return argc > at ? std::strtoull(argv[at], nullptr, 10) : usual;
  };
  const auto n_nodes = static_cast<std::uint32_t>(number(1, 64));
  const std::uint64_t n_picks = number(2, 100'000), n_runs = std::max<std::uint64_t>(1, number(3, 5));
  const char* const policy = argc > 4 ? argv[4] : "slo_cost";
  Fleet fleet(n_nodes), other_fleet(n_nodes);
  const ModelId model = fleet.model_id("m", 1);
  (void)other_fleet.model_id("m", 1);
  fill(fleet, n_nodes, model);
  fill(other_fleet, n_nodes, model);
  for (std::uint32_t i = 0; i < n_nodes; ++i) other_fleet.signal(NodeId{i}, {.as_of_ns = 0, .gpu = (i % 10) / 10.0});
  std::vector<std::unique_ptr<Router>> routers, apart;
  for (std::uint64_t t = 0; t < 2; ++t) {
    routers.push_back(router_of(fleet, policy, model, t));
    apart.push_back(router_of(t == 0 ? fleet : other_fleet, policy, model, t));
  }
  std::vector<double> batches;  // short ones, so that most are not interrupted
  for (std::uint64_t done = 0; done < n_picks; done += batch)
    batches.push_back(picked_s(*routers[0], model, batch) / static_cast<double>(batch) * 1e9);
  const double alone_ns = median(batches);
  std::vector<double> one, two, ratios, processor_ratios, apart_ratios;
  for (std::uint64_t run = 0; run < n_runs; ++run) {  // alternating, so that others' load hits both alike
    const Rate of_one = rate(fleet, routers, model, 1, n_picks), of_two = rate(fleet, routers, model, 2, n_picks);
    const Rate of_apart = rate(fleet, apart, model, 2, n_picks);
    one.push_back(of_one.per_s);
    two.push_back(of_two.per_s);
    ratios.push_back(of_two.per_s / of_one.per_s);
    processor_ratios.push_back(of_two.per_processor_s / of_one.per_processor_s);
    apart_ratios.push_back(of_apart.per_processor_s / of_one.per_processor_s);
  }
  std::uint32_t inflight = 0;
  for (std::uint32_t i = 0; i < n_nodes; ++i) inflight += fleet.inflight(NodeId{i});
  std::printf(
      "{\"policy\": \"%s\", \"n_nodes\": %u, \"pick_and_done_ns\": %.1f, \"one_thread_per_s\": %.0f, "
      "\"two_threads_per_s\": %.0f, \"ratio\": %.3f, \"processor_ratio\": %.3f, \"apart_processor_ratio\": %.3f, "
      "\"inflight_left\": %u, \"cores\": %u}\n",
      policy, n_nodes, alone_ns, median(one), median(two), median(ratios), median(processor_ratios),
      median(apart_ratios), inflight, std::thread::hardware_concurrency());
  return inflight == 0 ? 0 : 1;
}
