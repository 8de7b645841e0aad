// What one request costs the engine's state machine: arrive, dispatch, claim, start, complete, under a virtual clock,
// as the simulator drives it, and what latency the decisions gave. Prints one line of JSON. Usage: machine_bench POLICY
// N_NODES N_REQUESTS LOAD [LOG [ADMISSION ...]]. POLICY in_turn is the baseline: no machine, each request is a batch of
// its own on the next node, completions in a heap. LOAD is a share of what the nodes can do with full batches. Unlike
// nodes (four speeds), one model, batches of up to 16; every request must be done in 200 ms. With LOG, a path, every
// event and action is written there, by a thread of its own as in a live engine; "-": none. ADMISSION: policies at the
// door.
#include <infcore/engine/logged_machine.hpp>
#include <infcore/telemetry/histogram.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace infcore;
using base::ModelId;
using base::NodeId;
using base::TimeNs;

constexpr std::uint32_t max_batch_size = 16;
constexpr TimeNs deadline_ns = 200'000'000;

/// Of this process, which has one thread: what others do on the machine meanwhile is not ours.
double cpu_ns() noexcept {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

struct Random {
  std::uint64_t state{88172645463325252ull};
  std::uint64_t next() noexcept {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  }
};

struct Completion {
  TimeNs at_ns;
  std::uint64_t batch_id;
  NodeId node;
  bool operator<(const Completion& other) const noexcept {
    return at_ns != other.at_ns ? at_ns > other.at_ns : batch_id > other.batch_id;
  }
};

class Simulation {
 public:
  Simulation(const char* policy, std::uint32_t n_nodes, double load, const char* log,
             std::vector<std::string> admission)
      : fleet_(n_nodes, 4),
        latency_(n_nodes, 4),
        run_{{.max_requests = 65536,
              .max_nodes = n_nodes,
              .max_models = 4,
              .n_tiers = 1,
              .stage_histograms = false,
              .admission = std::move(admission)},
             policy,
             "dynamic",
             1},
        machine_(run_.engine, fleet_, latency_, route::make_routing_policy(policy, 1),
                 batch::make_batching_policy("dynamic")),
        model_(fleet_.model_id("m", 1)) {
    if (log != nullptr) {
      machine_.start_log(log, std::size_t{1} << 22, run_);
      writer_ = std::thread([file = machine_.log_file()] {
        while (file->write_next(1.0) != engine::LogFile::Wrote::last) {
        }
      });
    }
    machine_.add_model(model_, {.max_batch_size = max_batch_size});
    double capacity_rps = 0.0;
    for (std::uint32_t i = 0; i < n_nodes; ++i) {
      route::NodeSpec spec;
      spec.name = "n" + std::to_string(i);
      const NodeId node = fleet_.add(spec);
      curves_.push_back({.base_s = 2e-3 * (1 + i % 4), .per_request_s = 1e-4 * (1 + i % 4)});
      machine_.add_node(node, {});
      machine_.set_prior(model_, node, curves_.back());
      fleet_.load_model(node, model_);
      machine_.residency_changed(0, node);
      capacity_rps += max_batch_size / curves_.back().service_s({max_batch_size, max_batch_size, 1.0});
    }
    gap_ns_ = static_cast<std::uint64_t>(2e9 / (capacity_rps * load));  // uniform from 0 to twice the mean
  }

  void end_log() {
    if (!writer_.joinable()) return;
    machine_.end_log();
    writer_.join();
  }

  void run(std::uint64_t n_requests) {
    arrivals_ns_.resize(n_requests);
    TimeNs arrival_ns = 0;
    std::uint64_t n_arrived = 0;
    while (n_ended_ < n_requests) {
      const TimeNs complete_ns = completions_.empty() ? base::never_ns : completions_.front().at_ns;
      const TimeNs next_arrival_ns = n_arrived < n_requests ? arrival_ns : base::never_ns;
      const TimeNs now_ns = std::min({complete_ns, next_arrival_ns, machine_.next_timer_ns()});
      if (now_ns == complete_ns) {
        std::pop_heap(completions_.begin(), completions_.end());
        const Completion done = completions_.back();
        completions_.pop_back();
        machine_.complete(now_ns, done.node, done.batch_id, true);
      } else if (now_ns == next_arrival_ns) {
        arrivals_ns_[n_arrived] = now_ns;
        machine_.arrive(
            now_ns,
            {.cookie = n_arrived++, .arrival_ns = now_ns, .deadline_ns = now_ns + deadline_ns, .model = model_});
        arrival_ns += static_cast<TimeNs>(random_.next() % gap_ns_);
      }
      settle(now_ns);
      ++n_steps_;
    }
  }

  /// The event loop alone: what is left when nothing is decided.
  void run_in_turn(std::uint64_t n_requests) {
    arrivals_ns_.resize(n_requests);
    TimeNs arrival_ns = 0;
    std::vector<TimeNs> free_ns(curves_.size());
    for (std::uint64_t n_arrived = 0; n_ended_ < n_requests; ++n_steps_) {
      if (n_arrived < n_requests && (completions_.empty() || arrival_ns <= completions_.front().at_ns)) {
        const NodeId node{static_cast<std::uint32_t>(n_arrived % curves_.size())};
        TimeNs& free = free_ns[node.value];
        arrivals_ns_[n_arrived] = arrival_ns;
        free = std::max(free, arrival_ns) + base::to_ns(curves_[node.value].service_s({1, 1.0, 1.0}));
        completions_.push_back({free, ++n_batches_, node});
        std::push_heap(completions_.begin(), completions_.end());
        digest_ = (digest_ ^ (n_arrived++ * 31 + node.value)) * 0x100000001b3ull;
        arrival_ns += static_cast<TimeNs>(random_.next() % gap_ns_);
      } else {
        std::pop_heap(completions_.begin(), completions_.end());
        end(true, completions_.back().at_ns - arrivals_ns_[completions_.back().batch_id - 1]);
        completions_.pop_back();
        ++n_ended_;
      }
    }
  }

  void print(const char* policy, double ns_per_request) {
    std::printf(
        "{\"policy\": \"%s\", \"n_nodes\": %u, \"ns_per_request\": %.1f, \"ok\": %llu, \"ended\": %llu, \"late\": "
        "%llu, "
        "\"mean_ms\": %.4f, \"p99_ms\": %.4f, \"batches\": %llu, \"steps\": %llu, \"log_bytes\": %llu, \"digest\": "
        "\"%016llx\"}\n",
        policy, fleet_.n_nodes(), ns_per_request, static_cast<unsigned long long>(n_ok_),
        static_cast<unsigned long long>(n_ended_), static_cast<unsigned long long>(n_late_),
        latency_s_sum_ * 1e3 / static_cast<double>(n_ok_), latency_s_.quantile(0.99) * 1e3,
        static_cast<unsigned long long>(n_batches_), static_cast<unsigned long long>(n_steps_),
        static_cast<unsigned long long>(machine_.log_file() == nullptr ? 0 : machine_.log_file()->n_bytes()),
        static_cast<unsigned long long>(digest_));
  }

 private:
  void settle(TimeNs now_ns) {
    machine_.tick(now_ns);
    machine_.schedule(now_ns);
    for (const engine::Action& a : machine_.actions()) {
      digest_ = (digest_ ^ (a.cookie * 31 + a.batch_id * 7 + a.node.value)) * 0x100000001b3ull;
      if (a.kind == engine::ActionKind::dispatch) {
        if (called_.empty() || called_.back() != a.node) called_.push_back(a.node);
      } else if (a.kind != engine::ActionKind::retry) {
        ++n_ended_;
        end(a.reason == engine::Reason::ok, now_ns - arrivals_ns_[a.cookie]);
      }
    }
    machine_.clear_actions();
    for (const NodeId node : called_) {
      const engine::Batch* batch = machine_.claim(now_ns, node);
      if (batch == nullptr) continue;
      ++n_batches_;
      const TimeNs end_ns = now_ns + base::to_ns(curves_[node.value].service_s(batch->shape));
      completions_.push_back({end_ns, batch->id, node});
      std::push_heap(completions_.begin(), completions_.end());
      machine_.started(now_ns, node, batch->id);
    }
    called_.clear();
  }

  void end(bool ok, TimeNs taken_ns) {
    n_ok_ += ok ? 1u : 0u;
    n_late_ += !ok || taken_ns > deadline_ns ? 1u : 0u;
    if (!ok) return;
    latency_s_sum_ += base::seconds(taken_ns);
    latency_s_.record_ns(taken_ns);
  }

  route::Fleet fleet_;
  contracts::LatencyTable latency_;
  const engine::RunConfig run_;
  engine::LoggedMachine machine_;
  std::thread writer_;
  ModelId model_;
  std::vector<contracts::Curve> curves_;
  std::vector<Completion> completions_;
  std::vector<NodeId> called_;
  std::vector<TimeNs> arrivals_ns_;  // by cookie
  telemetry::Histogram latency_s_;
  double latency_s_sum_{};
  Random random_;
  std::uint64_t gap_ns_{}, n_ended_{}, n_ok_{}, n_late_{}, n_batches_{}, n_steps_{}, digest_{0xcbf29ce484222325ull};
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const char* const log = argc > 5 && std::string(argv[5]) != "-" ? argv[5] : nullptr;
  const std::vector<std::string> admission(argv + std::min(argc, 6), argv + argc);
  const std::uint64_t n_requests = std::strtoull(argv[3], nullptr, 10);
  const std::string policy = argv[1];
  const bool in_turn = policy == "in_turn";
  Simulation simulation(in_turn ? "round_robin" : argv[1], static_cast<std::uint32_t>(std::atoi(argv[2])),
                        std::atof(argv[4]), log, admission);
  const double begin_ns = cpu_ns();
  in_turn ? simulation.run_in_turn(n_requests) : simulation.run(n_requests);
  const double taken_ns = cpu_ns() - begin_ns;
  simulation.end_log();
  simulation.print(argv[1], taken_ns / static_cast<double>(n_requests));
  return 0;
}
