#include <infcore/base/errors.hpp>
#include <infcore/route/fleet.hpp>
#include <infcore/route/fleet_text.hpp>

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
  columns_.header().alive.store(1, std::memory_order_relaxed);
  models_.reserve(max_models);  // never moves, so that model_name needs no lock
}

NodeId Fleet::add(const NodeSpec& spec) {
  check_spec(spec);
  const Hold hold(*this);
  return add_locked(base::no_node, spec);
}

NodeId Fleet::add_at(NodeId node, const NodeSpec& spec) {
  check_spec(spec);
  const Hold hold(*this);
  if (node.value >= max_nodes() || !is_free(node))
    throw InvalidArgument("node", std::to_string(node.value), "an id below max_nodes that is free");
  return add_locked(node, spec);
}

NodeId Fleet::add_locked(NodeId node, const NodeSpec& spec) {
  if (find_locked(spec.name) != base::no_node)
    throw InvalidArgument("name", "'" + spec.name + "'", "a name that no node of the fleet has");
  if (columns_.is_shared()) check_text(spec);
  if (node == base::no_node) node = free_row();
  place(node, spec);
  return node;
}

void Fleet::place(NodeId node, const NodeSpec& spec) {
  auto& header = columns_.header();
  clear_sets(node);
  know(node, spec);
  enter_kind(node, spec.kind);
  columns_.slots(node.value).store(spec.slots, std::memory_order_relaxed);
  columns_.memory_bytes(node.value).store(spec.memory_bytes, std::memory_order_relaxed);
  columns_.price_per_hour(node.value).store(spec.price_per_hour, std::memory_order_relaxed);
  if (columns_.is_shared()) write_text(spec, columns_.node_text(node.value));
  for (std::uint32_t bit = 0; bit < labels_.size(); ++bit)
    if (carries(node, labels_[bit])) set_bit(columns_.labelled(bit, node.value / 64), node.value, true);
  reset_credit(node);
  const std::uint64_t born = header.version.load(std::memory_order_relaxed) + 1;
  columns_.born(node.value).store(born, std::memory_order_relaxed);
  if (columns_.is_shared()) known_born_[node.value] = born;
  if (node.value >= n_nodes()) header.n_nodes.store(node.value + 1, std::memory_order_release);
  columns_.state(node.value).store(static_cast<std::uint8_t>(NodeState::up), std::memory_order_release);
  changed();
  set_bit(columns_.up(node.value / 64), node.value, true);  // [F2] last of the row: from here on scorers see it
  header.residency.fetch_add(1,
                             std::memory_order_release);  // after the bit: who sees the count looks again, and sees it
}

void Fleet::changed() noexcept {
  known_version_ = columns_.header().version.fetch_add(1, std::memory_order_release) + 1;
}

/// Of the node's id, what this process keeps of it beside the columns.
void Fleet::know(NodeId node, NodeSpec spec) {
  ids_.emplace(spec.name, node);
  specs_[node.value] = std::move(spec);
}

void Fleet::unknow(NodeId node) noexcept {
  ids_.erase(specs_[node.value].name);
  leave_kind(specs_[node.value].kind);
  lowest_absent_ = std::min(lowest_absent_, node);
}

void Fleet::set_state(NodeId node, NodeState state) {
  const Hold hold(*this);
  check_present(node);
  if (state != NodeState::up) set_bit(columns_.up(node.value / 64), node.value, false);
  if (state == NodeState::absent) {
    clear_sets(node);
    unknow(node);
    if (columns_.is_shared()) known_born_[node.value] = 0;
  }
  columns_.state(node.value).store(static_cast<std::uint8_t>(state), std::memory_order_release);
  changed();
  if (state == NodeState::up) set_bit(columns_.up(node.value / 64), node.value, true);
  columns_.header().residency.fetch_add(1, std::memory_order_release);  // after all that it counts
}

NodeId Fleet::find(std::string_view name) const {
  const Hold hold(*this);
  return find_locked(name);
}

std::uint64_t Fleet::label_bits(const Labels& labels, bool add) {
  const Hold hold(*this);
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
    write_label(bit);
    for (const NodeId node : carriers) set_bit(columns_.labelled(bit, node.value / 64), node.value, true);
    bits |= std::uint64_t{1} << bit;
  }
  return bits;
}

std::uint32_t Fleet::n_present() const {
  const Hold hold(*this);
  return static_cast<std::uint32_t>(ids_.size());
}

Labels Fleet::labels_from(std::uint32_t bit) const {
  const Hold hold(*this);
  return {labels_.begin() + std::min<std::ptrdiff_t>(bit, std::ssize(labels_)), labels_.end()};
}

bool Fleet::is_free(NodeId node) const noexcept {
  return state(node) == NodeState::absent && own_of(node).inflight == 0;
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
  end_loads_of(node, nullptr);
  const std::uint32_t word = node.value / 64;
  const auto clear = [&](std::atomic<std::uint64_t>& set) {
    // relaxed: under the membership lock. Most sets don't have it, and each removal would cost a locked instruction.
    if ((set.load(std::memory_order_relaxed) & bit_of(node.value)) != 0) set_bit(set, node.value, false);
  };
  for (std::uint32_t model = 0; model < models_.size(); ++model) clear(columns_.resident(model, word));
  for (std::uint32_t bit = 0; bit < labels_.size(); ++bit) clear(columns_.labelled(bit, word));
}

/// The class of present nodes of that kind, else the lowest that no present node has.
void Fleet::enter_kind(NodeId node, const std::string& kind) {
  const auto known = kinds_.find(kind);
  const std::uint32_t id = known == kinds_.end() ? lowest_kind_ : known->second.id;
  columns_.kind_id(node.value).store(id, std::memory_order_relaxed);
  count_kind(kind, id);
}

void Fleet::count_kind(const std::string& kind, std::uint32_t id) {
  if (kind_taken_.size() <= id) kind_taken_.resize(id + 1);
  ++kinds_.try_emplace(kind, Kind{id, 0}).first->second.n_nodes;
  kind_taken_[id] = 1;
  while (lowest_kind_ < kind_taken_.size() && kind_taken_[lowest_kind_] != 0) ++lowest_kind_;
}

void Fleet::leave_kind(const std::string& kind) noexcept {
  const auto found = kinds_.find(kind);
  if (--found->second.n_nodes > 0) return;
  kind_taken_[found->second.id] = 0;
  lowest_kind_ = std::min(lowest_kind_, found->second.id);
  kinds_.erase(found);
}

}  // namespace infcore::route
