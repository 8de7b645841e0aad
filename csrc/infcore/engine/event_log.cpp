#include <infcore/base/errors.hpp>
#include <infcore/engine/event_log.hpp>

#include <algorithm>
#include <bit>
#include <utility>

namespace infcore::engine {
namespace {

constexpr std::size_t number_bytes_max = 10;

void check(const char* field, std::uint64_t value, std::uint64_t most) {
  if (value > most)
    throw InvalidArgument(field, std::to_string(value), "at most " + std::to_string(most) + " in a log");
}

std::size_t text_bytes(const route::NodeSpec& spec) {
  std::size_t n = 0;
  const auto add = [&](const std::string& text) {
    check("bytes in a name or label", text.size(), event_text_bytes_max);
    n += text.size() + number_bytes_max;
  };
  for (const std::string* text : {&spec.name, &spec.kind, &spec.zone, &spec.location}) add(*text);
  for (const auto& [key, value] : spec.labels) add(key), add(value);
  check("bytes in a node's names and labels", n, event_block_bytes_max / 2);
  return n;
}

std::size_t options_bytes(const route::RoutingOptions& options) {
  check("options of a policy", options.given().size(), route::RoutingOptions::n_max);
  std::size_t n_bytes = 0;
  for (const auto& [name, value] : options.given()) {
    n_bytes += name.size() + 3 * number_bytes_max;
    if (const auto* one = std::get_if<std::string>(&value)) n_bytes += one->size();
    const auto* texts = std::get_if<route::RoutingOptions::Texts>(&value);
    if (texts == nullptr) continue;
    check("texts of an option", texts->size(), route::RoutingOptions::n_max);
    for (const std::string& each : *texts) n_bytes += each.size() + number_bytes_max;
  }
  check("bytes in a policy's options", n_bytes, event_text_bytes_max);
  return n_bytes;
}

}  // namespace

EventLog::EventLog(LogFile& file, const route::Fleet& fleet, const RunConfig& config)
    : file_(file), fleet_(fleet), block_(file.empty_block()), number_of_slot_(config.engine.max_requests) {
  check("max_requests", config.engine.max_requests, event_requests_max);
  check("max_nodes", config.engine.max_nodes, event_ids_max);
  check("max_nodes * max_models", std::uint64_t{config.engine.max_nodes} * config.engine.max_models, event_pairs_max);
  at_ = block_end_ = block_.data() + block_.size();
  run(config);
}

// ---- records

void EventLog::run(const RunConfig& config) {
  const EngineConfig& engine = config.engine;
  std::size_t n_bytes = config.policy.size() + config.batching.size() + number_bytes_max * engine.tier_capacity.size();
  for (const std::string& name : engine.admission) n_bytes += name.size() + number_bytes_max;
  n_bytes += options_bytes(config.options) + engine.residency.size();
  open(EventKind::run, small_record_bytes + n_bytes);
  number(engine.max_requests);
  number(engine.max_nodes);
  number(engine.max_models);
  number(engine.n_tiers);
  signed_number(engine.ageing_ns);
  number(engine.attempts_max);
  text(config.policy);
  text(config.batching);
  store_le(at_, config.seed, 8), at_ += 8;
  options(config.options);
  number(engine.admission.size());
  for (const std::string& name : engine.admission) text(name);
  signed_number(engine.overload_wait_ns);
  number(engine.tier_capacity.size());
  for (const std::uint32_t capacity : engine.tier_capacity) number(capacity);
  number(engine.shed_lowest ? 1 : 0);
  real(engine.hedge_quantile);
  real(engine.hedge_budget);
  const bool is_bounded = engine.retry_budget != CountedBudget::unbounded;
  number((is_bounded ? 1u : 0u) | (engine.log_terms ? 2u : 0u));
  if (is_bounded) real(engine.retry_budget);
  health(engine);
  text(engine.residency);
}

void EventLog::health(const EngineConfig& engine) {
  const contracts::HealthConfig& health = engine.health;
  number(engine.judges_health ? 1 : 0);
  if (!engine.judges_health) return;
  number(health.errors_in_a_row);
  number(health.probes);
  for (const double share : {health.error_rate, health.slow_factor, health.ejected_share_max}) real(share);
  for (const TimeNs time_ns :
       {health.eject_ns, health.eject_ns_max, health.forgive_ns, health.slow_start_ns, health.forget_ns}) {
    signed_number(time_ns);
  }
}

void EventLog::options(const route::RoutingOptions& options) noexcept {
  number(options.given().size());
  for (const auto& [name, value] : options.given()) {
    text(name);
    number(value.index());
    if (const auto* figure = std::get_if<double>(&value)) {
      real(*figure);
    } else if (const auto* one = std::get_if<std::string>(&value)) {
      text(*one);
    } else {
      const auto& texts = std::get<route::RoutingOptions::Texts>(value);
      number(texts.size());
      for (const std::string& each : texts) text(each);
    }
  }
}

void EventLog::name_models() {
  for (const std::uint32_t n = fleet_.n_models(); n_models_named_ < n; ++n_models_named_) {
    const std::string& name = fleet_.model_name(ModelId{n_models_named_});
    check("bytes in a model's name", name.size(), event_text_bytes_max);
    open(EventKind::model, small_record_bytes + name.size());
    text(name);
    number(fleet_.model_version(ModelId{n_models_named_}));
  }
}

void EventLog::name_labels() {
  for (const auto& [key, value] : fleet_.labels_from(n_labels_named_)) {
    ++n_labels_named_;
    open(EventKind::label, small_record_bytes + key.size() + value.size());
    text(key);
    text(value);
  }
}

void EventLog::add_model(ModelId model, const ModelConfig& config) {
  name_models();
  open(EventKind::add_model,
       small_record_bytes + 10 * (config.length_buckets.size() + config.preferred_batch_sizes.size()));
  number(model.value);
  number(config.max_batch_size);
  signed_number(config.batch_delay_ns_max);
  number((config.idempotent ? 1u : 0u) | (config.runs_share ? 2u : 0u));
  number(config.fallback == no_model ? 0 : std::uint64_t{config.fallback.value} + 1);
  number(config.length_buckets.size());
  for (const double upper_end : config.length_buckets) real(upper_end);
  number(config.preferred_batch_sizes.size());
  for (const std::uint32_t size : config.preferred_batch_sizes) number(size);
  number(config.weights_bytes);
  real(config.load_s);
}

void EventLog::remove_model(TimeNs now_ns, ModelId model) {
  open(EventKind::remove_model);
  time(now_ns);
  number(model.value);
}

void EventLog::add_node(NodeId node, const NodeConfig& config) {
  const route::NodeSpec& spec = fleet_.spec(node);
  open(EventKind::add_node, small_record_bytes + text_bytes(spec));
  number(node.value);
  signed_number(config.run_limit_ns);
  for (const std::string* name : {&spec.name, &spec.kind, &spec.zone, &spec.location}) text(*name);
  number(spec.memory_bytes);
  real(spec.price_per_hour);
  real(spec.rtt_s);
  number(spec.slots);
  number(spec.pending_max);
  number(config.kv_blocks);
  number(config.loads_beside_runs ? 1 : 0);
  number(spec.labels.size());
  for (const auto& [key, value] : spec.labels) text(key), text(value);
}

void EventLog::residency(TimeNs now_ns, NodeId node) {
  name_models();
  std::vector<std::uint32_t> held;
  for (std::uint32_t model = 0; model < n_models_named_; ++model) {
    if (fleet_.model_version(ModelId{model}) != 0 && fleet_.resident(node, ModelId{model})) held.push_back(model);
  }
  open(EventKind::residency, small_record_bytes + number_bytes_max * held.size());
  time(now_ns);
  number(node.value);
  number(held.size());
  for (const std::uint32_t model : held) number(model);
}

void EventLog::node_event(EventKind kind, TimeNs now_ns, NodeId node) {
  open(kind);
  time(now_ns);
  number(node.value);
}

void EventLog::prior(ModelId model, NodeId node, const contracts::Curve& curve) {
  open(EventKind::prior);
  number(model.value);
  number(node.value);
  for (const double term : {curve.base_s, curve.per_request_s, curve.per_work_s, curve.per_padded_work_s}) real(term);
}

void EventLog::signal(NodeId node, const contracts::Signal& signal) {
  std::uint64_t given = 0;
  for (std::size_t i = 0; i < signal_figures.size(); ++i) {
    const double figure = signal.*signal_figures[i];
    if (figure == figure) given |= std::uint64_t{1} << i;  // NaN: not given
  }
  open(EventKind::signal);
  number(node.value);
  signed_number(signal.as_of_ns);
  number(given);
  for (std::size_t i = 0; i < signal_figures.size(); ++i) {
    if ((given >> i & 1) != 0) real(signal.*signal_figures[i]);
  }
}

/// What only some requests say, before their arrival.
void EventLog::prompt(const contracts::Request& r) {
  open(EventKind::prompt, small_record_bytes + 8 * std::size_t{r.n_blocks});
  number(r.session);
  number(r.prompt_tokens);
  number(r.block_size);
  number(r.n_blocks);
  for (std::uint32_t i = 0; i < r.n_blocks; ++i) store_le(at_, r.blocks[i], 8), at_ += 8;
}

void EventLog::arrive(TimeNs now_ns, const contracts::Request& r, RequestHandle handle) {
  if (r.session != 0 || r.prompt_tokens != 0) prompt(r);
  if ((r.require & ~route::Fleet::no_such_label) >> n_labels_named_ != 0) name_labels();
  const std::uint64_t whole = r.work < 1e15 ? static_cast<std::uint64_t>(r.work) : 0;
  const bool is_whole = static_cast<double>(whole) == r.work;
  std::uint8_t work = r.work == 1.0 ? 0 : is_whole ? arrive_work_whole : arrive_work_real;
  if (r.is_cached) work = arrive_cached;
  std::uint8_t flags = work;
  if (r.deadline_ns != base::never_ns) flags |= arrive_deadline;
  if (r.tier != 0) flags |= arrive_tier;
  if (r.require != 0) flags |= arrive_require;
  if (r.tenant != 0) flags |= arrive_tenant;
  if (r.has_stale) flags |= arrive_stale;
  if (r.defer_ns > 0) flags |= arrive_defer;
  open(EventKind::arrive);
  time(now_ns);
  number(r.model.value);
  byte(flags);
  difference(static_cast<std::uint64_t>(now_ns), static_cast<std::uint64_t>(r.arrival_ns));
  if ((flags & arrive_deadline) != 0) {
    difference(static_cast<std::uint64_t>(r.deadline_ns), static_cast<std::uint64_t>(r.arrival_ns));
  }
  if (work == arrive_work_whole) number(whole);
  if (work == arrive_work_real) real(r.work);
  if ((flags & arrive_tier) != 0) number(r.tier);
  if ((flags & arrive_require) != 0) number(r.require);
  if ((flags & arrive_tenant) != 0) number(r.tenant);
  if ((flags & arrive_defer) != 0) number(static_cast<std::uint64_t>(r.defer_ns));
  ++n_requests_;
  if (handle == 0) return;
  taken_slot_ = static_cast<std::uint32_t>(handle);
  displaced_ = std::exchange(number_of_slot_[taken_slot_], n_requests_);
}

void EventLog::cancel(TimeNs now_ns, RequestHandle handle, Reason reason) {
  open(EventKind::cancel);
  time(now_ns);
  request(number_of_slot_[static_cast<std::uint32_t>(handle)]);
  number(static_cast<std::uint8_t>(reason));
}

void EventLog::cancel_all(TimeNs now_ns, Reason reason) {
  open(EventKind::cancel_all);
  time(now_ns);
  number(static_cast<std::uint8_t>(reason));
}

void EventLog::claim(TimeNs now_ns, NodeId node, std::uint64_t batch_id) {
  node_event(EventKind::claim, now_ns, node);
  batch(batch_id);
}

void EventLog::started(TimeNs now_ns, NodeId node, std::uint64_t batch_id) {
  node_event(EventKind::started, now_ns, node);
  batch(batch_id);
}

void EventLog::complete(TimeNs now_ns, NodeId node, std::uint64_t batch_id, bool ok) {
  node_event(EventKind::complete, now_ns, node);
  batch(batch_id);
  number(ok ? 1 : 0);
}

void EventLog::checked(TimeNs now_ns, NodeId node, bool ok) {
  node_event(EventKind::checked, now_ns, node);
  number(ok ? 1 : 0);
}

void EventLog::may_hold(TimeNs now_ns, NodeId node, ModelId model, bool may) {
  node_event(EventKind::may_hold, now_ns, node);
  number(model.value);
  number(may ? 1 : 0);
}

void EventLog::loaded(TimeNs now_ns, NodeId node, ModelId model, bool ok, double load_s) {
  node_event(EventKind::loaded, now_ns, node);
  number(model.value);
  number(ok ? 1 : 0);
  real(load_s);
}

void EventLog::first_token(TimeNs now_ns, NodeId node, std::uint64_t batch_id) {
  node_event(EventKind::first_token, now_ns, node);
  batch(batch_id);
}

void EventLog::action(const Action& action, const route::CostTerms* terms) {
  room(small_record_bytes);
  ++n_records_;
  ++n_actions_;
  byte(static_cast<std::uint8_t>(action_record | static_cast<std::uint8_t>(action.kind)));
  byte(static_cast<std::uint8_t>(action.reason));
  const bool was_displaced = action.reason == Reason::displaced && action.slot == taken_slot_;
  if (is_of_model(action.kind)) {
    request(0);
  } else {
    request(action.slot == Action::no_slot ? n_requests_ : was_displaced ? displaced_ : number_of_slot_[action.slot]);
  }
  batch(action.batch_id);
  number(action.node == base::no_node ? 0 : std::uint64_t{action.node.value} + 1);
  number(action.member);
  if (terms == nullptr) return;
  for (const auto term : cost_terms) single(terms->*term);
}

// ---- blocks

void EventLog::seal() {
  const auto n_bytes = static_cast<std::size_t>(at_ - block_.data());
  if (block_.empty() || n_bytes <= event_block_header_bytes) return;
  block_.resize(n_bytes);
  file_.put(block_);
  at_ = block_end_ = block_.data() + block_.size();
}

void EventLog::end() {
  open(EventKind::end);
  number(n_requests_);
  number(n_actions_);
  number(n_records_ - 1);
  seal();
}

void EventLog::room(std::size_t n_bytes) {
  if (static_cast<std::size_t>(block_end_ - at_) >= n_bytes) return;
  seal();
  block_.resize(event_block_header_bytes + std::max(file_.block_bytes(), n_bytes));
  at_ = block_.data() + event_block_header_bytes;
  block_end_ = block_.data() + block_.size();
}

void EventLog::real(double value) noexcept {
  store_le(at_, std::bit_cast<std::uint64_t>(value), 8);
  at_ += 8;
}

void EventLog::single(double value) noexcept {
  store_le(at_, std::bit_cast<std::uint32_t>(static_cast<float>(value)), 4);
  at_ += 4;
}

void EventLog::text(std::string_view value) noexcept {
  number(value.size());
  at_ = std::copy(value.begin(), value.end(), at_);
}

}  // namespace infcore::engine
