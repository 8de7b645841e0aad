#include <infcore/engine/event_reader.hpp>

#include <bit>
#include <limits>

namespace infcore::engine {
namespace {

constexpr double no_bound = std::numeric_limits<double>::max();
constexpr double figure_max = 1e9;  // as Fleet.signal's
constexpr double term_s_max = 1e12;

bool is_fraction(std::size_t figure) noexcept { return (figure >= 2 && figure <= 6) || figure == 8; }

}  // namespace

EventReader::EventReader(std::istream& in, std::string name, bool partial)
    : in_(in), name_(std::move(name)), partial_(partial) {
  read_header();
}

bool EventReader::next(EventRecord& r) {
  if (ended_) return false;
  if (at_ == block_.size() && !next_block()) return false;
  r.byte = block_byte_ + at_;
  r.index = n_records_;
  r.now_ns = last_ns_;
  const std::uint8_t head = byte("kind");
  r.is_action = (head & action_record) != 0;
  if (r.is_action) {
    r.action.kind = static_cast<ActionKind>(head & ~action_record);
    action(r);
  } else {
    if (head == 0 || head > event_kind_max) {
      fail_here("kind", std::to_string(head), "1 to " + std::to_string(event_kind_max) + ", or an action's");
    }
    r.kind = static_cast<EventKind>(head);
    if ((r.kind == EventKind::run) != (n_records_ == 0)) fail_here("kind", std::to_string(head), "run, first and once");
    event(r);
  }
  ++n_records_;
  return true;
}

// ---- records

void EventReader::event(EventRecord& r) {
  switch (r.kind) {
    case EventKind::run:
      return run(r.run);
    case EventKind::model:
      text("name", r.name);
      r.version = static_cast<std::uint32_t>(number("version", 0x7FFF'FFFFu));
      return;
    case EventKind::label:
      text("key", r.name);
      return text("value", r.value);
    case EventKind::add_model:
      return model_config(r);
    case EventKind::remove_model:
    case EventKind::preload:
      now(r);
      r.model = model_id();
      return;
    case EventKind::add_node:
      return node(r);
    case EventKind::residency:
      now(r);
      r.node = node_id();
      r.held.resize(number("n_models", bounds_.max_models));
      for (ModelId& model : r.held) model = model_id();
      return;
    case EventKind::prior:
      return prior(r);
    case EventKind::signal:
      return signal(r);
    case EventKind::prompt:
      return prompt(r);
    case EventKind::arrive:
      return arrival(r);
    case EventKind::cancel:
      return cancellation(r);
    case EventKind::cancel_all:
      now(r);
      r.reason = reason();
      return;
    case EventKind::claim:
    case EventKind::started:
    case EventKind::first_token:
      now(r);
      r.node = node_id();
      return batch(r);
    case EventKind::complete:
      now(r);
      r.node = node_id();
      batch(r);
      r.ok = number("ok", 1) != 0;
      return;
    case EventKind::tick:
    case EventKind::schedule:
      return now(r);
    case EventKind::end:
      return end(r);
    default:
      return node_event(r);
  }
}

/// Those of a node, or of a model there, alone.
void EventReader::node_event(EventRecord& r) {
  now(r);
  r.node = node_id();
  if (r.kind == EventKind::checked) r.ok = number("ok", 1) != 0;
  if (r.kind != EventKind::may_hold && r.kind != EventKind::loaded) return;
  r.model = model_id();
  r.ok = number("ok", 1) != 0;
  r.load_s = r.kind == EventKind::loaded ? real("load_s", event_load_s_max) : 0.0;
}

void EventReader::cancellation(EventRecord& r) {
  now(r);
  r.request = last_request_ = difference("request", last_request_);
  if (r.request == 0 || r.request > n_requests_) {
    fail_here("request", std::to_string(r.request), "1 to " + std::to_string(n_requests_));
  }
  r.reason = reason();
}

void EventReader::prior(EventRecord& r) {
  r.model = model_id();
  r.node = node_id();
  for (double* term : {&r.curve.base_s, &r.curve.per_request_s, &r.curve.per_work_s, &r.curve.per_padded_work_s}) {
    *term = real("a term of the curve", term_s_max);
  }
}

void EventReader::signal(EventRecord& r) {
  r.node = node_id();
  r.signal = {};
  r.signal.as_of_ns = time("as_of_ns", 0, false);
  const std::uint64_t given = number("mask", (1u << signal_figures.size()) - 1);
  for (std::size_t i = 0; i < signal_figures.size(); ++i) {
    if ((given >> i & 1) != 0) r.signal.*signal_figures[i] = real("a figure", is_fraction(i) ? 1.0 : figure_max);
  }
}

void EventReader::end(EventRecord& r) {
  r.n_requests = number("n_requests", ~std::uint64_t{0});
  r.n_actions = number("n_actions", ~std::uint64_t{0});
  r.n_records = number("n_records", ~std::uint64_t{0});
  if (r.n_requests != n_requests_ || r.n_actions != n_actions_ || r.n_records != n_records_) {
    fail_here("end", std::to_string(r.n_records) + " records", std::to_string(n_records_) + ", as were read");
  }
  if (at_ != block_.size() || !at_end()) fail_here("end", "followed by more", "the last record of the file");
  ended_ = true;
}

void EventReader::run(RunConfig& run) {
  EngineConfig& engine = run.engine;
  engine.max_requests = static_cast<std::uint32_t>(number("max_requests", event_requests_max, 1));
  engine.max_nodes = static_cast<std::uint32_t>(number("max_nodes", event_ids_max, 1));
  engine.max_models = static_cast<std::uint32_t>(number("max_models", event_pairs_max / engine.max_nodes, 1));
  engine.n_tiers = static_cast<std::uint16_t>(number("n_tiers", 64, 1));
  engine.ageing_ns = time("ageing_ns", 0, true);
  engine.attempts_max = static_cast<std::uint8_t>(number("attempts_max", 255, 1));
  text("policy", run.policy);
  text("batching", run.batching);
  run.seed = 0;
  for (unsigned i = 0; i < 8; ++i) run.seed |= std::uint64_t{byte("seed")} << (8 * i);
  options(run.options);
  engine.admission.resize(number("n_admission", event_policies_max));
  for (std::string& name : engine.admission) text("admission", name);
  engine.overload_wait_ns = time("overload_wait_ns", 0, true);
  engine.tier_capacity.resize(number("n_tier_capacity", engine.n_tiers));
  for (std::uint32_t& capacity : engine.tier_capacity) {
    capacity = static_cast<std::uint32_t>(number("tier_capacity", event_requests_max, 1));
  }
  engine.shed_lowest = number("shed_lowest", 1) != 0;
  engine.hedge_quantile = real("hedge_quantile", 1.0);
  engine.hedge_budget = real("hedge_budget", no_bound);
  const std::uint64_t flags = number("retries bounded, log_terms", 3);
  engine.retry_budget = (flags & 1) != 0 ? real("retry_budget", no_bound) : CountedBudget::unbounded;
  engine.log_terms = (flags & 2) != 0;
  health(engine);
  text("residency", engine.residency);
  bounds_ = engine;
}

void EventReader::health(EngineConfig& engine) {
  contracts::HealthConfig& health = engine.health;
  engine.judges_health = number("judges_health", 1) != 0;
  if (!engine.judges_health) return;
  health.errors_in_a_row = static_cast<std::uint32_t>(number("errors_in_a_row", 64, 1));
  health.probes = static_cast<std::uint32_t>(number("probes", 1000, 1));
  health.error_rate = real("error_rate", 1.0);
  health.slow_factor = real("slow_factor", 1e6);
  health.ejected_share_max = real("ejected_share_max", 1.0);
  for (TimeNs* time_ns :
       {&health.eject_ns, &health.eject_ns_max, &health.forgive_ns, &health.slow_start_ns, &health.forget_ns}) {
    *time_ns = time("a time of health", 0, false);
  }
}

void EventReader::options(route::RoutingOptions& options) {
  options = {};
  std::string name, one;
  for (std::uint64_t left = number("n_options", route::RoutingOptions::n_max); left > 0; --left) {
    text("option", name);
    switch (number("kind of option", std::variant_size_v<route::RoutingOptions::Value> - 1)) {
      case 0:
        options.set(name, real("option", no_bound, -no_bound));
        break;
      case 1:
        text("option", one);
        options.set(name, one);
        break;
      default:
        route::RoutingOptions::Texts texts(number("n_texts", route::RoutingOptions::n_max));
        for (std::string& each : texts) text("option", each);
        options.set(name, std::move(texts));
    }
  }
}

void EventReader::model_config(EventRecord& r) {
  r.model = model_id();
  r.model_config.max_batch_size = static_cast<std::uint32_t>(number("max_batch_size", 0xFFFF'FFFFu, 1));
  r.model_config.batch_delay_ns_max = time("batch_delay_ns_max", 0, true);
  const std::uint64_t how = number("idempotent", r.model_config.max_batch_size == 1 ? 3 : 1);
  r.model_config.idempotent = (how & 1) != 0;
  r.model_config.runs_share = (how & 2) != 0;
  const std::uint64_t fallback = number("fallback", bounds_.max_models);
  r.model_config.fallback = fallback == 0 ? no_model : ModelId{static_cast<std::uint32_t>(fallback - 1)};
  r.model_config.length_buckets.resize(number("n_buckets", ModelConfig::n_listed_max));
  double above = -1.0;
  for (double& upper_end : r.model_config.length_buckets) {
    upper_end = real("length_buckets", no_bound);
    if (upper_end <= above) fail_here("length_buckets", std::to_string(upper_end), "ascending");
    above = upper_end;
  }
  r.model_config.preferred_batch_sizes.resize(number("n_sizes", ModelConfig::n_listed_max));
  std::uint64_t least = 1;
  for (std::uint32_t& size : r.model_config.preferred_batch_sizes) {
    size = static_cast<std::uint32_t>(number("preferred_batch_sizes", r.model_config.max_batch_size, least));
    least = std::uint64_t{size} + 1;
  }
  r.model_config.weights_bytes = number("weights_bytes", event_bytes_max);
  r.model_config.load_s = real("load_s", event_load_s_max);
}

void EventReader::node(EventRecord& r) {
  r.node = node_id();
  r.node_config.run_limit_ns = time("run_limit_ns", 0, true);
  text("name", r.spec.name);
  text("kind", r.spec.kind);
  text("zone", r.spec.zone);
  text("location", r.spec.location);
  r.spec.memory_bytes = number("memory_bytes", ~std::uint64_t{0});
  r.spec.price_per_hour = real("price_per_hour", no_bound);
  r.spec.rtt_s = real("rtt_s", no_bound);
  r.spec.slots = static_cast<std::uint32_t>(number("slots", event_ids_max, 1));
  r.spec.pending_max = static_cast<std::uint32_t>(number("pending_max", 0xFFFF'FFFFu));
  r.node_config.kv_blocks = static_cast<std::uint32_t>(number("kv_blocks", 0x7FFF'FFFFu));
  r.node_config.loads_beside_runs = number("loads_beside_runs", 1) != 0;
  const std::uint64_t n_labels = number("n_labels", block_.size());  // each takes two bytes at least
  r.spec.labels.clear();
  for (std::uint64_t i = 0; i < n_labels; ++i) {
    auto& [key, value] = r.spec.labels.emplace_back();
    text("key", key);
    text("value", value);
  }
}

void EventReader::prompt(EventRecord& r) {
  r.prompt = {};
  r.prompt.session = number("session", ~std::uint64_t{0});
  r.prompt.prompt_tokens = static_cast<std::uint32_t>(number("prompt_tokens", 0x7FFF'FFFFu));
  r.prompt.block_size = static_cast<std::uint32_t>(number("block_size", 0x7FFF'FFFFu));
  r.prompt.n_blocks = static_cast<std::uint32_t>(number("n_blocks", event_blocks_max));
  if (std::uint64_t{r.prompt.n_blocks} * r.prompt.block_size > r.prompt.prompt_tokens) {
    fail_here("n_blocks", std::to_string(r.prompt.n_blocks), "full blocks of the prompt alone");
  }
  r.blocks.resize(r.prompt.n_blocks);
  for (std::uint64_t& block : r.blocks) {
    if (block_.size() - at_ < 8) fail_here("blocks", "cut off by the block's end", "8 bytes each");
    block = load_le(block_.data() + at_, 8);
    at_ += 8;
  }
}

void EventReader::arrival(EventRecord& r) {
  contracts::Request& request = r.arrived;
  now(r);
  request = {};
  request.model = model_id();
  const std::uint8_t flags = byte("flags");
  // Coded as now - arrival: small and not negative as a rule.
  const std::uint64_t lag = difference("arrival", 0);
  request.arrival_ns = static_cast<TimeNs>(static_cast<std::uint64_t>(r.now_ns) - lag);
  if (request.arrival_ns < -event_time_max || request.arrival_ns > event_time_max) {
    fail_here("arrival", std::to_string(request.arrival_ns), "within 2**62 ns of 0");
  }
  if ((flags & arrive_deadline) != 0) request.deadline_ns = time("deadline", request.arrival_ns, true);
  const std::uint8_t work = flags & arrive_cached;
  request.is_cached = work == arrive_cached;
  if (work == arrive_work_whole)
    request.work = static_cast<double>(number("work", static_cast<std::uint64_t>(contracts::request_work_max)));
  if (work == arrive_work_real) request.work = real("work", contracts::request_work_max);
  if ((flags & arrive_tier) != 0) request.tier = static_cast<std::uint16_t>(number("tier", bounds_.n_tiers - 1u));
  if ((flags & arrive_require) != 0) request.require = number("require", ~std::uint64_t{0});
  if ((flags & arrive_tenant) != 0) request.tenant = static_cast<std::uint32_t>(number("tenant", 0xFFFF'FFFFu));
  request.has_stale = (flags & arrive_stale) != 0;
  if ((flags & arrive_defer) != 0) {
    request.defer_ns = static_cast<TimeNs>(number("defer_ns", static_cast<std::uint64_t>(event_time_max), 1));
  }
  r.request = request.cookie = ++n_requests_;
}

void EventReader::action(EventRecord& r) {
  if (r.action.kind > ActionKind::complete) {
    fail_here("kind", std::to_string(static_cast<int>(r.action.kind)), "an action of actions.hpp");
  }
  if (n_records_ == 0) fail_here("kind", "an action", "run, first and once");
  r.action.reason = reason();
  r.request = r.action.cookie = last_request_ = difference("request", last_request_);
  r.batch_id = r.action.batch_id = last_batch_ = difference("batch", last_batch_);
  const std::uint64_t node = number("node", bounds_.max_nodes);
  r.action.node = node == 0 ? base::no_node : NodeId{static_cast<std::uint32_t>(node - 1)};
  r.action.member = static_cast<std::uint32_t>(number("member", event_requests_max));
  r.has_terms = bounds_.log_terms && has_terms(r.action.kind);
  if (r.has_terms) {
    for (float& term : r.terms) term = single("a term of the cost");
  }
  ++n_actions_;
}

// ---- fields

std::uint8_t EventReader::byte(const char* field) {
  if (at_ == block_.size()) fail_here(field, "cut off by the block's end", "a whole record");
  return block_[at_++];
}

std::uint64_t EventReader::number(const char* field, std::uint64_t most, std::uint64_t least) {
  std::uint64_t value = 0;
  for (unsigned shift = 0;; shift += 7) {
    const std::uint8_t b = byte(field);
    if (shift == 63 && b > 1) fail_here(field, "longer than 64 bits", "an unsigned number");
    value |= std::uint64_t{b & 0x7Fu} << shift;
    if (b < 0x80) break;
  }
  if (value < least || value > most) {
    fail_here(field, std::to_string(value), std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

std::uint64_t EventReader::difference(const char* field, std::uint64_t from) {
  return from + unzigzag(number(field, ~std::uint64_t{0}));
}

TimeNs EventReader::time(const char* field, TimeNs from, bool may_be_never) {
  const auto t_ns = static_cast<TimeNs>(difference(field, static_cast<std::uint64_t>(from)));
  if ((t_ns >= -event_time_max && t_ns <= event_time_max) || (may_be_never && t_ns == base::never_ns)) return t_ns;
  fail_here(field, std::to_string(t_ns), may_be_never ? "within 2**62 ns of 0, or never" : "within 2**62 ns of 0");
}

double EventReader::real(const char* field, double most, double least) {
  std::uint64_t word = 0;
  for (unsigned i = 0; i < 8; ++i) word |= std::uint64_t{byte(field)} << (8 * i);
  const auto value = std::bit_cast<double>(word);
  if (!(value >= least && value <= most)) {
    fail_here(field, std::to_string(value), std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

float EventReader::single(const char* field) {
  std::uint32_t word = 0;
  for (unsigned i = 0; i < 4; ++i) word |= std::uint32_t{byte(field)} << (8 * i);
  const auto value = std::bit_cast<float>(word);
  if (value != value) fail_here(field, "not a number", "a number");
  return value;
}

void EventReader::text(const char* field, std::string& into) {
  const std::uint64_t n = number(field, event_text_bytes_max);
  if (n > block_.size() - at_) fail_here(field, std::to_string(n) + " bytes", "no more than the block has left");
  into.assign(block_.begin() + static_cast<std::ptrdiff_t>(at_), block_.begin() + static_cast<std::ptrdiff_t>(at_ + n));
  at_ += n;
}

void EventReader::now(EventRecord& r) { r.now_ns = last_ns_ = time("now", last_ns_, false); }

NodeId EventReader::node_id() { return {static_cast<std::uint32_t>(number("node", bounds_.max_nodes - 1u))}; }

ModelId EventReader::model_id() { return {static_cast<std::uint32_t>(number("model", bounds_.max_models - 1u))}; }

void EventReader::batch(EventRecord& r) { r.batch_id = last_batch_ = difference("batch", last_batch_); }

Reason EventReader::reason() { return static_cast<Reason>(number("reason", reason_names.size() - 1)); }

// ---- blocks

void EventReader::read_header() {
  std::uint8_t header[event_file_header_bytes];
  in_.read(reinterpret_cast<char*>(header), sizeof header);
  if (in_.gcount() < static_cast<std::streamsize>(sizeof header) ||
      std::memcmp(header, event_log_magic.data(), event_log_magic.size()) != 0) {
    fail_at(0, "magic", "another", "the first bytes of an event log");
  }
  const std::uint64_t version = load_le(header + 8, 4), actions = load_le(header + 12, 4);
  if (version != event_format_version) {
    fail_at(8, "format version", std::to_string(version), std::to_string(event_format_version));
  }
  if (actions != action_list_version) {
    fail_at(12, "action_list_version", std::to_string(actions), std::to_string(action_list_version));
  }
  next_byte_ = sizeof header;
}

bool EventReader::next_block() {
  std::uint8_t header[event_block_header_bytes];
  in_.read(reinterpret_cast<char*>(header), sizeof header);
  const bool has_header = in_.gcount() == static_cast<std::streamsize>(sizeof header);
  const std::uint64_t n_bytes = has_header ? load_le(header, 4) : 0;
  if (has_header && (n_bytes == 0 || n_bytes > event_block_bytes_max)) {
    fail_at(next_byte_, "bytes of the block", std::to_string(n_bytes), "1 to " + std::to_string(event_block_bytes_max));
  }
  block_.resize(n_bytes);
  at_ = 0;
  if (has_header) in_.read(reinterpret_cast<char*>(block_.data()), static_cast<std::streamsize>(n_bytes));
  if (!has_header || in_.gcount() < static_cast<std::streamsize>(n_bytes)) {
    block_.clear();
    if (partial_) return false;
    fail_at(next_byte_, "end", "missing: the file was cut off, or its engine not closed", "a whole log");
  }
  block_byte_ = next_byte_ + sizeof header;
  if (load_le(header + 4, 8) != block_checksum(n_blocks_, block_.data(), n_bytes)) {
    fail_at(next_byte_, "checksum", "another than the block's " + std::to_string(n_bytes) + " bytes give",
            "a file as it was written");
  }
  next_byte_ = block_byte_ + n_bytes;
  ++n_blocks_;
  return true;
}

bool EventReader::at_end() { return in_.peek() == std::istream::traits_type::eof(); }

// ---- errors

void EventReader::fail(const EventRecord& r, const std::string& field, const std::string& value,
                       const std::string& allowed) const {
  throw BadLog(name_ + ", byte " + std::to_string(r.byte) + ", record " + std::to_string(r.index) + ": " + field, value,
               allowed);
}

void EventReader::fail_here(const char* field, const std::string& value, const std::string& allowed) const {
  fail_at(block_byte_ + at_, field, value, allowed);
}

void EventReader::fail_at(std::uint64_t byte, const std::string& field, const std::string& value,
                          const std::string& allowed) const {
  throw BadLog(name_ + ", byte " + std::to_string(byte) + ", record " + std::to_string(n_records_) + ": " + field,
               value, allowed);
}

}  // namespace infcore::engine
