#include <infcore/route/route_view.hpp>

#include <algorithm>
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

ScoreQuery score_query(const RouteQuery& query, const CostWeights& weights) noexcept {
  ScoreQuery q{.work = static_cast<float>(query.work)};
  if (weights.any()) q.parts |= ScoreParts::weighed;
  q.price_weight = static_cast<float>(weights.price_us_per_usd * (1.0 / 3.6e9));
  q.block_work = static_cast<float>(weights.block_size);
  if (query.deadline_ns != base::never_ns) {
    q.parts |= ScoreParts::deadline;
    q.budget_us = static_cast<float>(static_cast<double>(query.deadline_ns - query.now_ns) * 1e-3);
    q.miss_us = static_cast<float>(weights.risk) * (q.budget_us > 0.0f ? q.budget_us : 0.0f);
  }
  return q;
}

}  // namespace

RouteView::RouteView(const Fleet& fleet, const contracts::LatencyTable& latency) : fleet_(&fleet), latency_(&latency) {
  const std::size_t n = std::size_t{fleet.columns().n_words()} * 64;
  seen_.resize(n / block_nodes);
  candidates_.resize(n / 64);
  loads_.resize(fleet.max_models());
  narrowed_.resize(n / 64);
  for (auto* column : {&wait_us_, &inflight_, &others_ahead_, &pending_max_, &pressure_, &network_us_, &price_per_hour_,
                       &held_blocks_, &cost_us_})
    column->resize(n);
}

bool RouteView::find_candidates(const RouteQuery& query, bool loads) noexcept {
  const auto& columns = fleet_->columns();
  n_nodes_ = fleet_->n_nodes();
  loads_in_use_ = loads && may_load_ ? loads_of(query.model, query.now_ns) : nullptr;
  if (loads_in_use_ != nullptr && !loads_in_use_->begun.empty()) count_on_begun(*loads_in_use_, query.now_ns);
  std::uint64_t any = 0;
  for (std::uint32_t word = 0; word * 64 < n_nodes_; ++word) {
    std::uint64_t passing = columns.up(word).load(std::memory_order_acquire);  // [F2]
    passing &= loads_in_use_ != nullptr ? loads_in_use_->able[word]
                                        : columns.resident(query.model.value, word).load(std::memory_order_acquire);
    if (query.among != nullptr) passing &= query.among[word];
    if ((query.require & Fleet::no_such_label) != 0) passing = 0;
    for (std::uint64_t left = query.require; left != 0 && passing != 0; left &= left - 1) {
      const auto bit = static_cast<std::uint32_t>(std::countr_zero(left));
      passing &= columns.labelled(bit, word).load(std::memory_order_acquire);
    }
    candidates_[word] = passing;
    any |= passing;
  }
  if (any == 0 || columns.header().bounded.load(std::memory_order_relaxed) == 0) return any != 0;
  copy_changed();
  keep_below(inflight_.data(), pending_max_.data(), candidates_.data(), n_nodes_);
  any = 0;
  for (std::uint32_t word = 0; word * 64 < n_nodes_; ++word) any |= candidates_[word];
  return any != 0;
}

/// Null where nobody would have to load it but those that hold it. Worked out anew when the fleet's residency has
/// moved: O(nodes), where models were declared at all.
RouteView::Loads* RouteView::loads_of(ModelId model, base::TimeNs now_ns) noexcept {
  if (!fleet_->any_declared()) return nullptr;
  auto& known = loads_[model.value];
  const std::uint64_t residency = fleet_->residency();
  if (known && known->residency == residency && now_ns < known->until_ns) return known->any ? known.get() : nullptr;
  try {
    if (!known) {
      known = std::make_unique<Loads>();
      known->load_us.resize(wait_us_.size());
      known->able.resize(candidates_.size());
    }
    known->any = fleet_->load_costs(model, known->load_us.data());
    see_begun(*known, model, now_ns);
  } catch (...) {  // no memory: who holds it can still serve it
    known.reset();
    return nullptr;
  }
  known->residency = residency;
  for (std::size_t word = 0; word < known->able.size(); ++word) {
    std::uint64_t able = 0;
    for (std::size_t i = 0; i < 64; ++i)
      able |= std::uint64_t{known->load_us[word * 64 + i] < std::numeric_limits<float>::infinity()} << i;
    known->able[word] = able;
  }
  return known->any ? known.get() : nullptr;
}

/// Before the copy is read, and after the up bits were, so that the row of a node seen up is seen too.
void RouteView::copy_changed() noexcept {
  for (std::uint32_t index = 0; index * block_nodes < n_nodes_; ++index) copy_block(index);
}

inline void RouteView::copy_block(std::uint32_t index) noexcept {
  using Columns = contracts::FleetColumns;
  const Columns::Block& block = fleet_->columns().block(index);
  const auto changed = block.changed(seen_[index]);
  if (changed == Columns::Block::Changed::nothing) return;
  const std::uint32_t first = index * block_nodes;
  for (std::uint32_t row = 0; row < block_nodes; ++row) {
    const contracts::FloatPair ours = contracts::unpack(block.get(row, Columns::wait_inflight));
    wait_us_[first + row] = ours.first;
    inflight_[first + row] = ours.second;
  }
  if (changed == Columns::Block::Changed::latest_only) return;
  for (std::uint32_t row = 0; row < block_nodes; ++row) {
    const contracts::FloatPair theirs = contracts::unpack(block.get(row, Columns::pressure_network));
    const contracts::FloatPair others = contracts::unpack(block.get(row, Columns::others_bound));
    others_ahead_[first + row] = others.first;
    pending_max_[first + row] = others.second;
    pressure_[first + row] = theirs.first;
    network_us_[first + row] = theirs.second;
  }
}

/// A node's price comes with it: after the up bits were read, whose setting follows the version's.
void RouteView::copy_prices() noexcept {
  const std::uint64_t version = fleet_->version();
  if (version == priced_version_) return;
  priced_version_ = version;
  for (NodeId node{0}; node.value < n_nodes_; ++node.value)
    price_per_hour_[node.value] = static_cast<float>(fleet_->price_per_hour(node));
}

void RouteView::use_columns(const RouteQuery& query) noexcept {
  const auto curves = latency_->single(query.model);
  columns_ = {.wait_us = wait_us_.data(),
              .others_ahead = others_ahead_.data(),
              .pressure = pressure_.data(),
              .network_us = network_us_.data(),
              .fixed_us = curves.fixed_us,
              .per_work_us = curves.per_work_us,
              .tail = curves.tail,
              .price_per_hour = price_per_hour_.data(),
              .held_blocks = held_blocks_.data(),
              .load_us = loads_in_use_ != nullptr ? loads_in_use_->load_us.data() : held_blocks_.data()};
  if (loads_in_use_ != nullptr) scored_.parts |= ScoreParts::load;
}

/// While one node loads the model, another one's load is work that need not be done: it counts beside its time.
void RouteView::see_begun(Loads& loads, ModelId model, base::TimeNs now_ns) const {
  loads.begun = fleet_->loading(model);
  std::erase_if(loads.begun, [&](const Fleet::Loading& each) { return now_ns >= each.until_ns; });
  loads.until_ns = base::never_ns;
  for (const Fleet::Loading& each : loads.begun) loads.until_ns = std::min(loads.until_ns, each.until_ns);
  if (loads.begun.empty()) return;
  for (float& load_us : loads.load_us) load_us += load_us;
}

/// A load that somebody has begun takes what is left of it.
void RouteView::count_on_begun(Loads& loads, base::TimeNs now_ns) noexcept {
  constexpr float not_there_yet_us = 1.0f;  // 0 says that it is
  for (const Fleet::Loading& each : loads.begun) {
    float& load_us = loads.load_us[each.node.value];
    const auto left_us = static_cast<float>(static_cast<double>(each.ready_ns - now_ns) * 1e-3);
    if (load_us != 0.0f) load_us = std::max(left_us, not_there_yet_us);
  }
}

bool RouteView::prepare(const RouteQuery& query, const CostWeights& weights) noexcept {
  const bool any = find_candidates(query, weights.loads);
  copy_changed();
  query_ = query;
  query_.blocks = {};
  scored_ = score_query(query, weights);
  use_columns(query);
  const bool may_hold = prefix_ != nullptr && weights.block_size > 0.0 && !query.blocks.empty();
  if (may_hold && prefix_->held(query.blocks, held_blocks_)) scored_.parts |= ScoreParts::prefix;
  if ((scored_.parts & ScoreParts::weighed) != 0) copy_prices();
  return any;
}

Least RouteView::least_cost() const noexcept {
  return route::least_cost(columns_, scored_, candidates_.data(), n_nodes_);
}

Least RouteView::least_cost_outside(const std::uint64_t* set) noexcept {
  for (std::uint32_t word = 0; word * 64 < n_nodes_; ++word) narrowed_[word] = candidates_[word] & ~set[word];
  return route::least_cost(columns_, scored_, narrowed_.data(), n_nodes_);
}

void RouteView::keep_within(float standing_us_max) noexcept {
  route::keep_within(columns_, scored_, standing_us_max, candidates_.data(), n_nodes_);
}

std::span<const float> RouteView::costs() noexcept {
  route::costs(columns_, scored_, candidates_.data(), n_nodes_, cost_us_.data());
  return {cost_us_.data(), n_nodes_};
}

NodeFigures RouteView::figures(NodeId node) const noexcept {
  const ScoreColumns& c = columns_;
  const std::uint32_t i = node.value;
  return {c.wait_us[i],     c.others_ahead[i], c.pressure[i],       c.network_us[i],  c.fixed_us[i],
          c.per_work_us[i], c.tail[i],         c.price_per_hour[i], c.held_blocks[i], c.load_us[i]};
}

NodeScore RouteView::score(NodeId node) const noexcept { return NodeScore::of(figures(node), scored_); }

CostTerms RouteView::terms_of(NodeId node) const noexcept { return terms_from(score(node), scored_); }

CostTerms RouteView::terms_from(const NodeScore& s, const ScoreQuery& query) noexcept {
  const bool has_deadline = (query.parts & ScoreParts::deadline) != 0;
  return {.wait_us = s.wait_us,
          .service_us = s.service_us,
          .pressure_us = s.pressure_us,
          .load_us = s.load_us,
          .network_us = s.network_us,
          .saving_us = s.saving_us,
          .price_us = s.price_us,
          .risk_us = s.risk_us,
          .cost_us = s.cost_us,
          .saved_work = s.saved_work,
          .late = has_deadline && s.upper_us > query.budget_us};
}

Filtered RouteView::why_not(NodeId node) const noexcept {
  if (fleet_->state(node) != NodeState::up) return Filtered::not_up;
  const bool able = loads_in_use_ != nullptr && (loads_in_use_->able[node.value / 64] >> (node.value % 64) & 1u) != 0;
  if (!able && !fleet_->resident(node, query_.model)) return Filtered::no_model;
  if ((query_.require & Fleet::no_such_label) != 0) return Filtered::no_label;
  if (!fleet_->columns().carries(node.value, query_.require)) return Filtered::no_label;
  if (inflight_[node.value] >= pending_max_[node.value]) return Filtered::full;
  return terms_of(node).late ? Filtered::late : Filtered::no;
}

CostTerms RouteView::terms(const RouteQuery& query, NodeId node) const noexcept {
  using Columns = contracts::FleetColumns;
  const auto& columns = fleet_->columns();
  const contracts::FloatPair ours = columns.pair(node.value, Columns::wait_inflight);
  const contracts::FloatPair theirs = columns.pair(node.value, Columns::pressure_network);
  const contracts::FloatPair others = columns.pair(node.value, Columns::others_bound);
  const auto curves = latency_->single(query.model);
  const NodeFigures figures{.wait_us = ours.first,
                            .others_ahead = others.first,
                            .pressure = theirs.first,
                            .network_us = theirs.second,
                            .fixed_us = curves.fixed_us[node.value],
                            .per_work_us = curves.per_work_us[node.value],
                            .tail = curves.tail[node.value],
                            .price_per_hour = 0.0f,
                            .held_blocks = 0.0f,
                            .load_us = 0.0f};
  const ScoreQuery asked = score_query(query, {});
  return terms_from(NodeScore::of(figures, asked), asked);
}

bool RouteView::filter(const RouteQuery& query) noexcept {
  if (query.deadline_ns == base::never_ns) return find_candidates(query, false);
  if (!prepare(query, {})) return false;
  keep_within(std::numeric_limits<float>::infinity());
  std::uint64_t any = 0;
  for (std::uint32_t word = 0; word * 64 < n_nodes_; ++word) any |= candidates_[word];
  return any != 0;
}

NodeId RouteView::fastest(const RouteQuery& query) noexcept {
  if (!prepare(query, {})) return base::no_node;
  const Least least = least_cost();
  return least.value == std::numeric_limits<float>::infinity() ? base::no_node : NodeId{least.node};
}

NodeId RouteView::least_inflight() noexcept {
  copy_changed();
  return NodeId{least_of(inflight_.data(), candidates_.data(), n_nodes_).node};
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

}  // namespace infcore::route
