#include <infcore/base/errors.hpp>
#include <infcore/route/fleet_text.hpp>

#include <cstring>

namespace infcore::route {
namespace {

using contracts::FleetColumns;

constexpr std::size_t string_max = 255;  // its length is a byte

/// One for a sum of bytes, one for writing.
template <class Each>
void for_each_text(const NodeSpec& spec, Each each) {
  each(spec.name);
  each(spec.kind);
  each(spec.zone);
  each(spec.location);
  for (const auto& [key, value] : spec.labels) each(key), each(value);
}

void put(char*& at, const std::string& text) noexcept {
  *at++ = static_cast<char>(static_cast<unsigned char>(text.size()));
  std::memcpy(at, text.data(), text.size());
  at += text.size();
}

std::string take(const char*& at) {
  const std::size_t size = static_cast<unsigned char>(*at++);
  std::string text(at, size);
  at += size;
  return text;
}

void check_length(const char* what, std::size_t bytes, std::size_t most) {
  if (bytes <= most) return;
  throw InvalidArgument(
      what, std::to_string(bytes) + " bytes long",
      "at most " + std::to_string(most) + " in a shared fleet, a byte for each string's length among them");
}

}  // namespace

void check_text(const NodeSpec& spec) {
  std::size_t bytes = 1;
  bool fits = spec.labels.size() <= string_max;
  for_each_text(spec, [&](const std::string& text) {
    bytes += 1 + text.size();
    fits = fits && text.size() <= string_max;
  });
  check_length("all of name, kind, zone, location and labels", bytes, FleetColumns::node_text_bytes);
  if (!fits) throw InvalidArgument("labels", std::to_string(spec.labels.size()), "at most 255");
}

void write_text(const NodeSpec& spec, char* row) {
  *row++ = static_cast<char>(static_cast<unsigned char>(spec.labels.size()));
  for_each_text(spec, [&](const std::string& text) { put(row, text); });
}

void read_text(const char* row, NodeSpec& spec) {
  const std::size_t n_labels = static_cast<unsigned char>(*row++);
  for (std::string* text : {&spec.name, &spec.kind, &spec.zone, &spec.location}) *text = take(row);
  spec.labels.clear();
  for (std::size_t i = 0; i < n_labels; ++i) {
    std::string key = take(row);
    spec.labels.emplace_back(std::move(key), take(row));
  }
}

void Fleet::write_model(ModelId model) {
  if (!columns_.is_shared()) return;
  const ModelEntry& entry = models_[model.value];
  const std::size_t bytes = 1 + entry.name.size() + sizeof entry.version + sizeof entry.any;
  if (bytes > FleetColumns::model_text_bytes) {
    models_.pop_back();
    check_length("model", bytes, FleetColumns::model_text_bytes);
  }
  char* at = columns_.model_text(model.value);
  std::memcpy(at, &entry.version, sizeof entry.version);
  std::memcpy(at + sizeof entry.version, &entry.any, sizeof entry.any);
  at += sizeof entry.version + sizeof entry.any;
  put(at, entry.name);
  ++columns_.header().n_models;
}

void Fleet::write_label(std::uint32_t bit) {
  if (!columns_.is_shared()) return;
  const auto& [key, value] = labels_[bit];
  const std::size_t bytes = 2 + key.size() + value.size();
  if (bytes > FleetColumns::label_text_bytes) {
    labels_.pop_back();
    check_length("a label", bytes, FleetColumns::label_text_bytes);
  }
  char* at = columns_.label_text(bit);
  put(at, key);
  put(at, value);
  ++columns_.header().n_labels;
}

/// What other processes have changed. Models and labels only come; a node that was added again is another one.
void Fleet::follow() {
  const auto& header = columns_.header();
  while (models_.size() < header.n_models) {
    const char* at = columns_.model_text(static_cast<std::uint32_t>(models_.size()));
    ModelEntry entry{};
    std::memcpy(&entry.version, at, sizeof entry.version);
    std::memcpy(&entry.any, at + sizeof entry.version, sizeof entry.any);
    at += sizeof entry.version + sizeof entry.any;
    entry.name = take(at);
    models_.push_back(std::move(entry));
  }
  while (labels_.size() < header.n_labels) {
    const char* at = columns_.label_text(static_cast<std::uint32_t>(labels_.size()));
    std::string key = take(at);
    labels_.emplace_back(std::move(key), take(at));
  }
  if (known_version_ == version()) return;
  const auto is_stale = [&](std::uint32_t i) {
    return known_born_[i] != 0 && (state(NodeId{i}) == NodeState::absent || known_born_[i] != born(NodeId{i}));
  };
  for (std::uint32_t i = 0; i < n_nodes(); ++i) {  // first all that went: their names may be others' now
    if (!is_stale(i)) continue;
    unknow(NodeId{i});
    known_born_[i] = 0;
  }
  for (std::uint32_t i = 0; i < n_nodes(); ++i) {
    const NodeId node{i};
    if (state(node) == NodeState::absent || known_born_[i] == born(node)) continue;
    NodeSpec spec;
    read_text(columns_.node_text(i), spec);
    spec.memory_bytes = columns_.memory_bytes(i).load(std::memory_order_relaxed);
    spec.price_per_hour = price_per_hour(node);
    spec.rtt_s = columns_.row(i).rtt_s;
    spec.slots = slots(node);
    count_kind(spec.kind, kind_id(node));
    know(node, std::move(spec));
    known_born_[i] = born(node);
  }
  known_version_ = version();
}

}  // namespace infcore::route
