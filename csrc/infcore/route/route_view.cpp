#include <infcore/route/route_view.hpp>

#include <bit>
#include <limits>

namespace infcore::route {
namespace {

constexpr std::uint32_t block_nodes = contracts::FleetColumns::block_nodes;

/// std::popcount is a call where the build may not assume the instruction, and keeps loops from being vectorised.
std::uint32_t n_bits(std::uint64_t word) noexcept {
  word -= word >> 1 & 0x5555'5555'5555'5555u;
  word = (word & 0x3333'3333'3333'3333u) + (word >> 2 & 0x3333'3333'3333'3333u);
  word = (word + (word >> 4)) & 0x0F0F'0F0F'0F0F'0F0Fu;
  return static_cast<std::uint32_t>(word * 0x0101'0101'0101'0101u >> 56);
}

/// Position of the bit with `k` set bits below it. Precondition: there is one.
std::uint32_t set_bit_at(std::uint64_t word, std::uint32_t k) noexcept {
  std::uint32_t at = 0;
  for (std::uint32_t half = 32; half > 0; half /= 2) {
    const std::uint32_t n_below = n_bits(word & ((std::uint64_t{1} << half) - 1));
    const bool above = k >= n_below;
    word >>= above ? half : 0;
    k -= above ? n_below : 0;
    at += above ? half : 0;
  }
  return at;
}

ScoreQuery score_query(const RouteQuery& query) noexcept {
  const float budget_us = query.deadline_ns == base::never_ns
                              ? std::numeric_limits<float>::infinity()
                              : static_cast<float>(static_cast<double>(query.deadline_ns - query.now_ns) * 1e-3);
  return {static_cast<float>(query.work), budget_us};
}

}  // namespace

RouteView::RouteView(const Fleet& fleet, const contracts::LatencyTable& latency) : fleet_(&fleet), latency_(&latency) {
  const std::size_t n = std::size_t{fleet.columns().n_words()} * 64;
  seen_.resize(n / block_nodes);
  candidates_.resize(n / 64);
  for (auto* column : {&wait_us_, &inflight_, &others_ahead_, &pending_max_, &pressure_, &network_us_, &cost_us_})
    column->resize(n);
}

bool RouteView::find_candidates(const RouteQuery& query) noexcept {
  const auto& columns = fleet_->columns();
  n_nodes_ = fleet_->n_nodes();
  std::uint64_t any = 0;
  for (std::uint32_t word = 0; word * 64 < n_nodes_; ++word) {
    std::uint64_t passing = columns.up(word).load(std::memory_order_acquire);  // [F2]
    passing &= columns.resident(query.model.value, word).load(std::memory_order_acquire);
    if (query.among != nullptr) passing &= query.among[word];
    if ((query.require & Fleet::no_such_label) != 0) passing = 0;
    for (std::uint64_t left = query.require; left != 0 && passing != 0; left &= left - 1) {
      const auto bit = static_cast<std::uint32_t>(std::countr_zero(left));
      passing &= columns.labelled(bit, word).load(std::memory_order_acquire);
    }
    candidates_[word] = passing;
    any |= passing;
  }
  return any != 0;
}

/// Before the copy is read, and after the up bits were, so that the row of a node seen up is seen too.
void RouteView::copy_changed() noexcept {
  using Columns = contracts::FleetColumns;
  for (std::uint32_t first = 0; first < n_nodes_; first += block_nodes) {
    const Columns::Block& block = fleet_->columns().block(first / block_nodes);
    if (!block.changed(seen_[first / block_nodes])) continue;
    for (std::uint32_t row = 0; row < block_nodes; ++row) {
      const contracts::FloatPair ours = contracts::unpack(block.get(row, Columns::wait_inflight));
      const contracts::FloatPair theirs = contracts::unpack(block.get(row, Columns::pressure_network));
      wait_us_[first + row] = ours.first;
      inflight_[first + row] = ours.second;
      const contracts::FloatPair others = contracts::unpack(block.get(row, Columns::others_bound));
      others_ahead_[first + row] = others.first;
      pending_max_[first + row] = others.second;
      pressure_[first + row] = theirs.first;
      network_us_[first + row] = theirs.second;
    }
  }
}

ScoreColumns RouteView::columns_of(ModelId model) const noexcept {
  const auto curves = latency_->single(model);
  return {wait_us_.data(), others_ahead_.data(), pressure_.data(), network_us_.data(),
          curves.fixed_us, curves.per_work_us,   curves.tail};
}

Least RouteView::score_all(const RouteQuery& query) noexcept {
  copy_changed();
  return score(columns_of(query.model), score_query(query), candidates_.data(), n_nodes_, cost_us_.data());
}

bool RouteView::filter(const RouteQuery& query) noexcept {
  if (!find_candidates(query)) return false;
  if (query.deadline_ns == base::never_ns) return true;
  constexpr float none = std::numeric_limits<float>::infinity();
  if (score_all(query).value == none) return false;
  for (std::uint32_t node = 0; node < n_nodes_; ++node)
    if (cost_us_[node] == none) candidates_[node / 64] &= ~(std::uint64_t{1} << (node % 64));
  return true;
}

NodeId RouteView::fastest(const RouteQuery& query) noexcept {
  if (!find_candidates(query)) return base::no_node;
  return first_at(score_all(query));
}

NodeId RouteView::least_inflight() noexcept {
  copy_changed();
  return first_at(least_of(inflight_.data(), candidates_.data(), n_nodes_, cost_us_.data()));
}

NodeId RouteView::first_at(const Least& least) const noexcept {
  if (least.value == std::numeric_limits<float>::infinity()) return base::no_node;
  NodeId node{least.from};
  while (cost_us_[node.value] != least.value) ++node.value;
  return node;
}

NodeId RouteView::next_candidate(std::uint32_t from) const noexcept {
  for (std::uint32_t word = from / 64; word * 64 < n_nodes_; ++word) {
    std::uint64_t left = candidates_[word];
    if (word == from / 64) left &= ~std::uint64_t{0} << (from % 64);
    if (left != 0) return NodeId{word * 64 + static_cast<std::uint32_t>(std::countr_zero(left))};
  }
  return base::no_node;
}

std::uint32_t RouteView::n_candidates() const noexcept {
  std::uint32_t n = 0;
  for (std::uint32_t word = 0; word * 64 < n_nodes_; ++word) n += n_bits(candidates_[word]);
  return n;
}

NodeId RouteView::candidate(std::uint32_t k) const noexcept {
  for (std::uint32_t word = 0; word * 64 < n_nodes_; ++word) {
    const std::uint32_t n = n_bits(candidates_[word]);
    if (k < n) return NodeId{word * 64 + set_bit_at(candidates_[word], k)};
    k -= n;
  }
  return base::no_node;
}

CostTerms RouteView::terms(const RouteQuery& query, NodeId node) noexcept {
  n_nodes_ = fleet_->n_nodes();
  copy_changed();
  const ScoreQuery q = score_query(query);
  const ScoreColumns c = columns_of(query.model);
  const std::uint32_t i = node.value;
  const NodeScore s = NodeScore::of(
      {c.wait_us[i], c.others_ahead[i], c.pressure[i], c.network_us[i], c.fixed_us[i], c.per_work_us[i], c.tail[i]},
      q.work);
  return {.wait_us = s.wait_us,
          .service_us = s.service_us,
          .pressure_us = s.pressure_us,
          .network_us = s.network_us,
          .cost_us = s.cost_us,
          .late = s.upper_us > q.budget_us};
}

Filtered RouteView::why_not(const RouteQuery& query, NodeId node) noexcept {
  if (fleet_->state(node) != NodeState::up) return Filtered::not_up;
  if (!fleet_->resident(node, query.model)) return Filtered::no_model;
  if ((query.require & Fleet::no_such_label) != 0) return Filtered::no_label;
  if (!fleet_->columns().carries(node.value, query.require)) return Filtered::no_label;
  return terms(query, node).late ? Filtered::late : Filtered::no;
}

}  // namespace infcore::route
