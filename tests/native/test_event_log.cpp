// The event log in C++ alone: what is written is read again, up to the bounds of every field, under sanitizers.
#include <infcore/engine/logged_machine.hpp>
#include <infcore/sim/replay.hpp>

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace infcore::engine {
namespace {

constexpr std::uint64_t all_bits = ~std::uint64_t{0};

std::string log_path() {
  return testing::TempDir() + "infcore-event-log-" + std::to_string(getpid()) + "-" +
         testing::UnitTest::GetInstance()->current_test_info()->name();
}

/// A file that is gone with the test.
struct Path {
  std::string name{log_path()};
  ~Path() { unlink(name.c_str()); }
};

std::vector<EventRecord> read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EventReader reader(in, path, false);
  std::vector<EventRecord> records;
  EventRecord record;
  while (reader.next(record)) records.push_back(record);
  return records;
}

RunConfig config_of(std::uint32_t max_requests = 64) {
  RunConfig config{{}, "round_robin", "greedy", all_bits};
  config.engine.max_requests = max_requests;
  config.engine.max_nodes = 16;
  config.engine.max_models = 8;
  return config;
}

TEST(EventLog, ConfigurationsComeBackAtTheirBounds) {
  const Path path;
  route::Fleet fleet(16, 8);
  const ModelId model = fleet.model_id("m", 0x7FFF'FFFF);
  const route::NodeSpec spec{.name = "n",
                             .kind = std::string(1000, 'k'),
                             .zone = "\xC3\xA9",
                             .location = "",
                             .memory_bytes = all_bits,
                             .price_per_hour = 1e300,
                             .rtt_s = 5e-324,
                             .slots = 1u << 20,
                             .labels = {{"a", ""}}};
  const NodeId node = fleet.add(spec);
  RunConfig config = config_of();
  config.engine.ageing_ns = base::never_ns;
  config.engine.attempts_max = 255;
  config.engine.hedge_quantile = 0.95;
  config.engine.hedge_budget = 1e300;
  config.engine.retry_budget = CountedBudget::unbounded;
  LogFile file(path.name, 256, 2);
  EventLog log(file, fleet, config);
  log.name_models();
  log.add_model(model, {0xFFFF'FFFF, base::never_ns, false});
  log.add_node(node, {base::never_ns});
  contracts::Signal signal;
  signal.as_of_ns = -event_time_max;
  signal.packet_loss = 1.0;
  signal.queue_depth = 1e9;
  log.signal(node, signal);
  log.prior(model, node, {1e12, 0.0, 5e-324, 1.0});
  log.claim(1, node, all_bits);
  log.complete(1, node, 1, true);
  log.end();
  file.finish();

  const std::vector<EventRecord> records = read(path.name);
  ASSERT_EQ(records.size(), 10u);
  EXPECT_EQ(records[0].run.seed, all_bits);
  EXPECT_EQ(records[0].run.engine.attempts_max, 255);
  EXPECT_EQ(records[0].run.engine.hedge_quantile, 0.95);
  EXPECT_EQ(records[0].run.engine.hedge_budget, 1e300);
  EXPECT_EQ(records[0].run.engine.retry_budget, CountedBudget::unbounded);
  EXPECT_FALSE(records[0].run.engine.log_terms);
  EXPECT_EQ(records[0].run.engine.ageing_ns, base::never_ns);
  EXPECT_EQ(records[2].version, 0x7FFF'FFFFu);
  EXPECT_EQ(records[3].model_config.max_batch_size, 0xFFFF'FFFFu);
  EXPECT_EQ(records[4].spec.kind, spec.kind);
  EXPECT_EQ(records[4].spec.rtt_s, spec.rtt_s);
  EXPECT_EQ(records[4].spec.memory_bytes, all_bits);
  EXPECT_EQ(records[4].spec.labels, spec.labels);
  EXPECT_EQ(records[5].signal.packet_loss, 1.0);
  EXPECT_TRUE(std::isnan(records[5].signal.cpu));
  EXPECT_EQ(records[5].signal.as_of_ns, -event_time_max);
  EXPECT_EQ(records[6].curve.base_s, 1e12);
  EXPECT_EQ(records[7].batch_id, all_bits);
  EXPECT_EQ(records[8].batch_id, 1u);
  EXPECT_TRUE(records[8].ok);
}

TEST(EventLog, RequestsComeBackAtTheirBounds) {
  const Path path;
  route::Fleet fleet(16, 8);
  LogFile file(path.name, 256, 2);
  EventLog log(file, fleet, config_of());
  const ModelId model{7};
  const std::vector<TimeNs> times{0, event_time_max, -event_time_max, 1, -1};
  const std::vector<double> works{0.0, 1.0, 0.5, contracts::request_work_max, 1e15 - 1, 1e-300, 5e-324};
  for (const TimeNs t : times) {
    for (const double work : works) {
      contracts::Request r{
          .cookie = 7, .arrival_ns = t, .work = work, .require = all_bits, .model = model, .tenant = ~0u, .tier = 7};
      log.arrive(-t, r, 0);
      r.deadline_ns = t;
      r.require = 0;
      r.tier = 0;
      log.arrive(t, r, 1);
    }
  }
  log.cancel(1, 1, Reason::closing);
  log.end();
  file.finish();

  const std::vector<EventRecord> records = read(path.name);
  ASSERT_EQ(records.size(), 1 + 2 * times.size() * works.size() + 2);
  std::size_t at = 1;
  for (const TimeNs t : times) {
    for (const double work : works) {
      const EventRecord &first = records[at++], &second = records[at++];
      EXPECT_EQ(first.now_ns, -t);
      EXPECT_EQ(first.arrived.arrival_ns, t);
      EXPECT_EQ(first.arrived.deadline_ns, base::never_ns);
      EXPECT_EQ(first.arrived.work, work);
      EXPECT_EQ(first.arrived.require, all_bits);
      EXPECT_EQ(first.arrived.model, model);
      EXPECT_EQ(first.arrived.tenant, ~0u);
      EXPECT_EQ(first.arrived.tier, 7);
      EXPECT_EQ(second.now_ns, t);
      EXPECT_EQ(second.arrived.deadline_ns, t);
      EXPECT_EQ(second.arrived.work, work);
      EXPECT_EQ(second.request, first.request + 1);
    }
  }
  EXPECT_EQ(records[at].request, 2 * times.size() * works.size());
  EXPECT_EQ(records[at].reason, Reason::closing);
}

TEST(EventLog, RefusesWhatItsReaderWouldRefuse) {
  const Path path;
  route::Fleet fleet(16, 8);
  LogFile file(path.name, 256, 2);
  EXPECT_THROW(EventLog(file, fleet, config_of(event_requests_max + 1)), InvalidArgument);
  EventLog log(file, fleet, config_of());
  route::NodeSpec spec;
  spec.name = std::string(event_text_bytes_max + 1, 'n');
  const NodeId node = fleet.add(spec);
  EXPECT_THROW(log.add_node(node, {}), InvalidArgument);
  EXPECT_THROW(LogFile(path.name, 255, 2), InvalidArgument);
  EXPECT_THROW(LogFile(path.name, 256, 1), InvalidArgument);
  EXPECT_THROW(LogFile("/nowhere/at/all", 256, 2), InvalidArgument);
}

TEST(EventLog, NumbersLongerThan64BitsAreRefused) {
  const std::string body("\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02", 11);
  std::string file(event_log_magic.begin(), event_log_magic.end());
  std::uint8_t words[20];
  store_le(words, event_format_version, 4);
  store_le(words + 4, action_list_version, 4);
  store_le(words + 8, body.size(), 4);
  store_le(words + 12, block_checksum(0, reinterpret_cast<const std::uint8_t*>(body.data()), body.size()), 8);
  file.append(reinterpret_cast<const char*>(words), sizeof words).append(body);
  std::istringstream in(file);
  EventReader reader(in, "f", false);
  EventRecord record;
  try {
    static_cast<void>(reader.next(record));
    FAIL();
  } catch (const BadLog& e) {
    EXPECT_STREQ(e.what(), "f, byte 39, record 0: max_requests is longer than 64 bits; allowed: an unsigned number");
  }
}

TEST(EventLog, WorkBeyondWhatTheBorderTakesIsRefused) {
  for (const double work : {std::nextafter(contracts::request_work_max, 1e300), 1e300}) {
    const Path path;
    route::Fleet fleet(16, 8);
    LogFile file(path.name, 256, 2);
    EventLog log(file, fleet, config_of());
    log.arrive(0, {.work = work, .model = ModelId{7}}, 0);
    log.end();
    file.finish();
    EXPECT_THROW(read(path.name), BadLog) << work;
  }
}

/// The writer's thread and the producer's: nothing is lost or torn, whoever is the faster.
TEST(LogFile, ProducerAndWriterShareBlocks) {
  const Path path;
  route::Fleet fleet(16, 8);
  constexpr int n_ticks = 20'000;
  LogFile file(path.name, 256, 3);
  {
    EventLog log(file, fleet, config_of());
    std::thread writer([&] {
      while (file.write_next(0.001) != LogFile::Wrote::last) {
      }
    });
    for (int i = 0; i < n_ticks; ++i) log.tick(i * i);
    log.end();
    file.finish();
    writer.join();
  }
  EXPECT_EQ(file.error(), 0);
  const std::vector<EventRecord> records = read(path.name);
  ASSERT_EQ(records.size(), n_ticks + 2u);
  for (int i = 0; i < n_ticks; ++i) ASSERT_EQ(records[i + 1].now_ns, i * i);
}

/// A whole machine, logged and told again.
TEST(LoggedMachine, ReplayDecidesTheSame) {
  const Path path;
  route::Fleet fleet(16, 8);
  contracts::LatencyTable latency(16, 8);
  RunConfig config = config_of();
  LoggedMachine machine(config.engine, fleet, latency, route::make_routing_policy(config.policy, config.seed),
                        batch::make_batching_policy(config.batching));
  machine.start_log(path.name, 1 << 12, config);
  const ModelId model = fleet.model_id("m", 1);
  machine.add_model(model, {.max_batch_size = 4});
  for (const char* name : {"a", "b", "c"}) {
    route::NodeSpec spec;
    spec.name = name;
    const NodeId node = fleet.add(spec);
    machine.add_node(node, {});
    machine.set_prior(model, node, {.base_s = 1e-3});
    fleet.load_model(node, model);
    machine.residency_changed(0, node);
  }
  TimeNs now_ns = 0;
  for (std::uint64_t i = 0; i < 1000; ++i, now_ns += 100'000) {
    contracts::Request r{.cookie = i + 77, .arrival_ns = now_ns, .model = model};
    const RequestHandle handle = machine.arrive(now_ns, r);
    if (i % 10 == 3) machine.cancel(now_ns, handle, Reason::caller);
    machine.schedule(now_ns);
    for (NodeId node{0}; node.value < 3; ++node.value) {
      if (i % 3 != node.value) continue;
      const Batch* batch = machine.claim(now_ns, node);
      if (batch == nullptr) continue;
      const std::uint64_t id = batch->id;
      machine.started(now_ns, node, id);
      machine.complete(now_ns + 50'000, node, id, i % 8 != 0);
    }
    machine.clear_actions();
  }
  machine.cancel_all(now_ns, Reason::closing);
  machine.end_log();
  machine.cancel_all(now_ns, Reason::closing);  // no more of it in the log

  std::ifstream in(path.name, std::ios::binary);
  sim::Replay replay(in, path.name, false, true);
  EXPECT_FALSE(replay.run(all_bits));
  EXPECT_EQ(replay.digest(), replay.recorded_digest());
  EXPECT_FALSE(replay.first_difference().has_value());
  EXPECT_EQ(replay.n_requests(), 1000u);
  EXPECT_EQ(replay.arrivals().size(), 1000u);
  EXPECT_EQ(replay.machine()->n_pending(), machine.n_pending());
  for (const sim::RecordedCurve& c : replay.curves()) {
    const contracts::LatencyModel& learned = latency.at(model, replay.nodes()[c.node].id);
    EXPECT_EQ(c.curve.base_s, learned.curve().base_s);
    EXPECT_EQ(c.n_observed, learned.n_observed());
  }
  EXPECT_EQ(replay.curves().size(), 3u);
}

}  // namespace
}  // namespace infcore::engine
