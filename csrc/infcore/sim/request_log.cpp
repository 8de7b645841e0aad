#include <infcore/sim/request_log.hpp>

#include <array>
#include <charconv>
#include <cstdio>

namespace infcore::sim {
namespace {

constexpr std::array<std::string_view, n_outcomes> outcome_names{"\"ok\"",   "\"rejected\"", "\"expired\"",
                                                                 "\"shed\"", "\"failed\"",   "\"cancelled\""};

std::string quoted(std::string_view raw) {
  std::string out{'"'};
  for (const char c : raw) {
    if (static_cast<unsigned char>(c) < 0x20) {
      std::array<char, 8> escape{};
      std::snprintf(escape.data(), escape.size(), "\\u%04x", static_cast<unsigned>(c));
      out += escape.data();
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out += '"';
}

}  // namespace

RequestLog::RequestLog(const SimConfig& config, std::string_view policy) : policy_(quoted(policy)) {
  for (const ModelConfig& model : config.models) models_.push_back(quoted(model.name));
  for (const WorkloadConfig& workload : config.workloads)
    tenants_.push_back(workload.tenant == 0 ? "" : quoted(workload.tenant_name));
  for (const NodeConfig& node : config.nodes) nodes_.push_back(quoted(node.spec.name));
  lines_.reserve(full_bytes + 1024);
}

void RequestLog::text(std::string_view key, std::string_view quoted) {
  lines_ += key;
  lines_ += quoted;
}

void RequestLog::number(std::string_view key, double value) {
  std::array<char, 32> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  text(key, {digits.data(), static_cast<std::size_t>(end - digits.data())});
}

void RequestLog::integer(std::string_view key, std::uint64_t value) {
  std::array<char, 20> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  text(key, {digits.data(), static_cast<std::size_t>(end - digits.data())});
}

void RequestLog::add(const Ended& e) {
  integer("{\"id\": ", e.number);
  text(", \"policy\": ", policy_);
  text(", \"model\": ", models_[e.model.value]);
  integer(", \"tier\": ", e.tier);
  if (!tenants_[e.workload].empty()) text(", \"tenant\": ", tenants_[e.workload]);
  number(", \"work\": ", e.work);
  number(", \"arrival_s\": ", base::seconds(e.arrival_ns));
  if (e.deadline_ns == base::never_ns) {
    lines_ += ", \"deadline_s\": null";
  } else {
    number(", \"deadline_s\": ", base::seconds(e.deadline_ns - e.arrival_ns));
  }
  const bool ran = e.batch_size > 0;
  text(", \"node\": ", e.node == base::no_node.value ? std::string_view("null") : nodes_[e.node]);
  if (ran) {
    number(", \"start_s\": ", base::seconds(e.start_ns));
  } else {
    lines_ += ", \"start_s\": null";
  }
  number(", \"end_s\": ", base::seconds(e.end_ns));
  text(", \"outcome\": ", outcome_names[static_cast<std::size_t>(e.outcome)]);
  if (e.outcome != Outcome::ok)
    text(", \"reason\": ", quoted(engine::reason_names[static_cast<std::size_t>(e.reason)]));
  if (e.form != engine::Reason::none) {
    text(", \"degraded\": ", quoted(engine::reason_names[static_cast<std::size_t>(e.form)]));
  }
  if (e.outcome != Outcome::ok && e.hint_s > 0.0) number(", \"hint_s\": ", e.hint_s);
  integer(", \"attempts\": ", e.attempts);
  integer(", \"batch\": ", e.batch_size);
  if (e.tokens.output > 0) {
    integer(", \"prompt_tokens\": ", e.tokens.prompt);
    integer(", \"output_tokens\": ", e.tokens.output);
    const bool answered = e.outcome == Outcome::ok;
    if (answered) number(", \"ttft_s\": ", base::seconds(e.first_token_ns - e.arrival_ns));
    if (answered) integer(", \"cached_tokens\": ", e.n_cached);
  }
  if (e.session != 0) integer(", \"session\": ", e.session);
  if (e.outcome == Outcome::ok) number(", \"regret_s\": ", base::seconds(e.end_ns - e.arrival_ns) - e.floor_s);
  lines_ += "}\n";
}

}  // namespace infcore::sim
