#include <infcore/base/errors.hpp>
#include <infcore/route/fleet.hpp>

#include <algorithm>
#include <bit>

namespace infcore::route {
namespace {

constexpr std::uint32_t nodes_max = 1u << 20;
constexpr std::uint32_t slots_max = 1u << 20;
constexpr std::uint32_t labels_max = 63;

std::uint64_t bit_of(std::uint32_t node) noexcept { return std::uint64_t{1} << (node & 63u); }

void set_bit(std::atomic<std::uint64_t>& word, std::uint32_t node, bool on) noexcept {
  if (on) {
    word.fetch_or(bit_of(node), std::memory_order_release);
  } else {
    word.fetch_and(~bit_of(node), std::memory_order_release);
  }
}

void check_number(const char* field, double value) {
  if (value >= 0.0 && value < std::numeric_limits<double>::infinity()) return;
  throw InvalidArgument(field, std::to_string(value), "a finite number >= 0");
}

void check_spec(const NodeSpec& spec) {
  if (spec.name.empty()) throw InvalidArgument("name", "''", "a name of at least one character");
  check_number("price_per_hour", spec.price_per_hour);
  check_number("rtt_s", spec.rtt_s);
  if (spec.slots < 1 || spec.slots > slots_max)
    throw InvalidArgument("slots", std::to_string(spec.slots), "1 to " + std::to_string(slots_max));
}

std::uint32_t checked_size(const char* field, std::uint32_t value, std::uint32_t most) {
  if (value >= 1 && value <= most) return value;
  throw InvalidArgument(field, std::to_string(value), "1 to " + std::to_string(most));
}

}  // namespace

const char* name_of(NodeState state) noexcept {
  switch (state) {
    case NodeState::up:
      return "up";
    case NodeState::draining:
      return "draining";
    case NodeState::lost:
      return "lost";
    case NodeState::ejected:
      return "ejected";
    case NodeState::absent:
      break;
  }
  return "absent";
}

Fleet::Fleet(std::uint32_t max_nodes, std::uint32_t max_models)
    : columns_(checked_size("max_nodes", max_nodes, nodes_max), checked_size("max_models", max_models, nodes_max)),
      specs_(max_nodes) {
  models_.reserve(max_models);  // never moves, so that model_name needs no lock
}

NodeId Fleet::add(const NodeSpec& spec) {
  check_spec(spec);
  const std::lock_guard hold(membership_);
  if (find_locked(spec.name) != base::no_node)
    throw InvalidArgument("name", "'" + spec.name + "'", "a name that no node of the fleet has");
  const NodeId node = free_row();
  place(node, spec);
  return node;
}

NodeId Fleet::add_at(NodeId node, const NodeSpec& spec) {
  check_spec(spec);
  const std::lock_guard hold(membership_);
  if (find_locked(spec.name) != base::no_node)
    throw InvalidArgument("name", "'" + spec.name + "'", "a name that no node of the fleet has");
  if (node.value >= max_nodes() || !is_free(node))
    throw InvalidArgument("node", std::to_string(node.value), "an id below max_nodes that is free");
  place(node, spec);
  return node;
}

void Fleet::place(NodeId node, const NodeSpec& spec) {
  auto& header = columns_.header();
  clear_sets(node);
  columns_.kind_id(node.value).store(kind_id_of(spec.kind, node), std::memory_order_relaxed);
  columns_.slots(node.value).store(spec.slots, std::memory_order_relaxed);
  columns_.memory_bytes(node.value).store(spec.memory_bytes, std::memory_order_relaxed);
  specs_[node.value] = spec;
  ids_.emplace(spec.name, node);
  columns_.price_per_hour(node.value).store(spec.price_per_hour, std::memory_order_relaxed);
  for (std::uint32_t bit = 0; bit < labels_.size(); ++bit)
    set_bit(columns_.labelled(bit, node.value / 64), node.value, carries(node, labels_[bit]));
  reset_credit(node);
  if (node.value >= n_nodes()) header.n_nodes.store(node.value + 1, std::memory_order_release);
  columns_.state(node.value).store(static_cast<std::uint8_t>(NodeState::up), std::memory_order_release);
  columns_.born(node.value).store(header.version.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  header.version.fetch_add(1, std::memory_order_release);
  header.residency.fetch_add(1, std::memory_order_release);
  set_bit(columns_.up(node.value / 64), node.value, true);  // [F2] last: from here on scorers see the row
}

void Fleet::set_state(NodeId node, NodeState state) {
  const std::lock_guard hold(membership_);
  check_present(node);
  if (state != NodeState::up) set_bit(columns_.up(node.value / 64), node.value, false);
  if (state == NodeState::absent) {
    clear_sets(node);
    ids_.erase(specs_[node.value].name);
    lowest_absent_ = std::min(lowest_absent_, node);
    columns_.header().residency.fetch_add(1, std::memory_order_release);
  }
  columns_.state(node.value).store(static_cast<std::uint8_t>(state), std::memory_order_release);
  columns_.header().version.fetch_add(1, std::memory_order_release);
  if (state == NodeState::up) set_bit(columns_.up(node.value / 64), node.value, true);
}

NodeId Fleet::find(std::string_view name) const {
  const std::lock_guard hold(membership_);
  return find_locked(name);
}

std::uint64_t Fleet::label_bits(const Labels& labels, bool add) {
  const std::lock_guard hold(membership_);
  std::uint64_t bits = 0;
  for (const auto& label : labels) {
    const auto known = std::find(labels_.begin(), labels_.end(), label);
    if (known != labels_.end()) {
      bits |= std::uint64_t{1} << (known - labels_.begin());
      continue;
    }
    std::vector<NodeId> carriers;
    for (NodeId node{0}; node.value < n_nodes(); ++node.value)
      if (state(node) != NodeState::absent && carries(node, label)) carriers.push_back(node);
    if (carriers.empty() && !add) {
      bits |= no_such_label;
      continue;
    }
    if (labels_.size() == labels_max)
      throw InvalidArgument("labels", "'" + label.first + "': '" + label.second + "'",
                            "at most " + std::to_string(labels_max) + " different pairs that requests require");
    const auto bit = static_cast<std::uint32_t>(labels_.size());
    labels_.push_back(label);
    for (const NodeId node : carriers) set_bit(columns_.labelled(bit, node.value / 64), node.value, true);
    bits |= std::uint64_t{1} << bit;
  }
  return bits;
}

Labels Fleet::labels_from(std::uint32_t bit) const {
  const std::lock_guard hold(membership_);
  return {labels_.begin() + std::min<std::ptrdiff_t>(bit, std::ssize(labels_)), labels_.end()};
}

bool Fleet::is_free(NodeId node) const noexcept {
  contracts::Credit own;
  Signal last;
  read(node, own, last);
  return state(node) == NodeState::absent && own.inflight == 0;
}

NodeId Fleet::free_row() {
  while (lowest_absent_.value < max_nodes() && state(lowest_absent_) != NodeState::absent) ++lowest_absent_.value;
  for (NodeId node = lowest_absent_; node.value < max_nodes(); ++node.value)
    if (is_free(node)) return node;
  throw InvalidArgument("max_nodes", std::to_string(max_nodes()),
                        "more: every id is a node's, or a removed node's with requests still in flight");
}

NodeId Fleet::find_locked(std::string_view name) const {
  const auto found = ids_.find(std::string(name));
  return found == ids_.end() ? base::no_node : found->second;
}

void Fleet::check_present(NodeId node) const {
  if (node.value < n_nodes() && state(node) != NodeState::absent) return;
  throw UnknownName("node", std::to_string(node.value), "the ids that add() returned, until remove()");
}

bool Fleet::carries(NodeId node, const std::pair<std::string, std::string>& label) const {
  const NodeSpec& spec = specs_[node.value];
  const auto& [key, value] = label;
  return (key == "kind" && value == spec.kind) || (key == "zone" && value == spec.zone) ||
         (key == "location" && value == spec.location) ||
         std::find(spec.labels.begin(), spec.labels.end(), label) != spec.labels.end();
}

void Fleet::clear_sets(NodeId node) noexcept {
  const std::uint32_t word = node.value / 64;
  for (std::uint32_t model = 0; model < models_.size(); ++model)
    set_bit(columns_.resident(model, word), node.value, false);
  for (std::uint32_t bit = 0; bit < labels_.size(); ++bit) set_bit(columns_.labelled(bit, word), node.value, false);
}

/// The class of a present node of that kind, else the lowest class that no present node has.
std::uint32_t Fleet::kind_id_of(const std::string& kind, NodeId node) const noexcept {
  std::uint32_t lowest = 0;
  const auto present = [&](std::uint32_t i) { return i != node.value && state(NodeId{i}) != NodeState::absent; };
  for (std::uint32_t i = 0; i < n_nodes(); ++i)
    if (present(i) && specs_[i].kind == kind) return kind_id(NodeId{i});
  for (bool taken = true; taken; lowest += taken ? 1u : 0u) {
    taken = false;
    for (std::uint32_t i = 0; i < n_nodes() && !taken; ++i) taken = present(i) && kind_id(NodeId{i}) == lowest;
  }
  return lowest;
}

}  // namespace infcore::route
