#include <infcore/route/route_view.hpp>

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

namespace infcore::route {
namespace {

using Columns = contracts::FleetColumns;
static_assert(Columns::block_nodes == 64, "a word of candidates has the bits of a block");

constexpr std::uint64_t each_byte = 0x0101'0101'0101'0101u;

/// Set bits of each byte.
std::uint64_t n_bits_of_bytes(std::uint64_t word) noexcept {
  word -= word >> 1 & 0x5555'5555'5555'5555u;
  word = (word & 0x3333'3333'3333'3333u) + (word >> 2 & 0x3333'3333'3333'3333u);
  return (word + (word >> 4)) & 0x0F0F'0F0F'0F0F'0F0Fu;
}

/// std::popcount is a call where the build may not assume the instruction, and keeps loops from being vectorised.
std::uint32_t n_bits(std::uint64_t word) noexcept {
  return static_cast<std::uint32_t>(n_bits_of_bytes(word) * each_byte >> 56);
}

/// Position of the bit with `k` set bits below it. Precondition: there is one.
std::uint32_t set_bit_at(std::uint64_t word, std::uint32_t k) noexcept {
  if ((word & (word + 1)) == 0) return k;                         // ids without a gap, as most fleets have them
  const std::uint64_t up_to = n_bits_of_bytes(word) * each_byte;  // of each byte: bits in it and the lower ones
  // The high bit of each byte stays where no more than k are up to there. So many bytes lie below.
  const std::uint64_t lower = ((k * each_byte | 0x80 * each_byte) - up_to) & 0x80 * each_byte;
  const auto byte = static_cast<std::uint32_t>((lower >> 7) * each_byte >> 56);
  k -= static_cast<std::uint32_t>(up_to << 8 >> (byte * 8)) & 0xFFu;
  std::uint64_t left = word >> (byte * 8);
  for (; k > 0; --k) left &= left - 1;
  return byte * 8 + static_cast<std::uint32_t>(std::countr_zero(left));
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

RouteView::RouteView(const Fleet& fleet, const contracts::LatencyTable& latency)
    : fleet_(&fleet), latency_(&latency), narrowed_(fleet.columns().n_words()) {
  const std::size_t n_words = fleet.columns().n_words();
  loads_.resize(fleet.max_models());
  known_.resize(fleet.max_models());
  seen_.resize(n_words);
  outside_.resize(n_words);
  fewest_.stale.resize((n_words + 63) / 64);
  fewest_.all.resize(fewest_.stale.size(), ~std::uint64_t{0});
  fewest_.least.resize(fewest_.stale.size() * 64, std::numeric_limits<float>::infinity());
  fewest_.node.resize(fewest_.least.size());
  for (auto* column : {&wait_us_, &inflight_, &others_ahead_, &pending_max_, &pressure_, &network_us_, &price_per_hour_,
                       &held_blocks_, &cost_us_, &standing_us_})
    column->resize(n_words * 64);
}

void RouteView::Candidates::count(std::uint32_t n_nodes) noexcept {
  n = 0;
  n_words = (n_nodes + 63) / 64;
  for (std::uint32_t word = 0; word < n_words; ++word) {
    before[word] = n;
    n += n_bits(words[word]);
  }
  counted = true;
}

bool RouteView::find_candidates(const RouteQuery& query, bool loads) noexcept {
  loads_in_use_ = loads && may_load_ ? loads_of(query.model, query.now_ns) : nullptr;
  if (loads_in_use_ != nullptr && !loads_in_use_->begun.empty()) count_on_begun(*loads_in_use_, query.now_ns);
  const bool model_alone =
      loads_in_use_ == nullptr && hosts_ == nullptr && query.require == 0 && query.among == nullptr;
  candidates_ = model_alone ? candidates_of(query.model) : nullptr;
  n_nodes_ = fleet_->n_nodes();
  bool any;
  if (candidates_ != nullptr) {
    any = candidates_->n != 0;
  } else {
    candidates_ = &narrowed_;
    any = collect(query, narrowed_);
  }
  // relaxed: which pick is the first to look at bounds is a race in any case
  if (!any || fleet_->columns().header().bounded.load(std::memory_order_relaxed) == 0) return any;
  copy_changed();
  keep_below(inflight_.data(), pending_max_.data(), narrow(), n_nodes_);
  return any_left();
}

/// Those of requests that ask for the model alone. Null where there is no memory to keep them.
RouteView::Candidates* RouteView::candidates_of(ModelId model) noexcept {
  auto& known = known_[model.value];
  const std::uint64_t residency = fleet_->residency();  // before the bits, which it counts the changes of
  if (known && known->residency == residency) return known.get();
  try {
    if (!known) known = std::make_unique<Candidates>(narrowed_.words.size());
  } catch (...) {
    return nullptr;
  }
  n_nodes_ = fleet_->n_nodes();
  collect({.model = model}, *known);
  known->count(n_nodes_);
  known->residency = residency;
  return known.get();
}

bool RouteView::collect(const RouteQuery& query, Candidates& into) const noexcept {
  const auto& columns = fleet_->columns();
  std::uint64_t any = 0;
  for (std::uint32_t word = 0; word * 64 < n_nodes_; ++word) {
    std::uint64_t passing = columns.up(word).load(std::memory_order_acquire);  // [F2]
    if (hosts_ != nullptr) {
      passing &= hosts_[std::size_t{query.model.value} * columns.n_words() + word];
    } else {
      passing &= loads_in_use_ != nullptr ? loads_in_use_->able[word]
                                          : columns.resident(query.model.value, word).load(std::memory_order_acquire);
    }
    if (query.among != nullptr) passing &= query.among[word];
    if ((query.require & Fleet::no_such_label) != 0) passing = 0;
    for (std::uint64_t left = query.require; left != 0 && passing != 0; left &= left - 1) {
      const auto bit = static_cast<std::uint32_t>(std::countr_zero(left));
      passing &= columns.labelled(bit, word).load(std::memory_order_acquire);
    }
    into.words[word] = passing;
    any |= passing;
  }
  into.counted = false;
  return any != 0;
}

bool RouteView::any_left() const noexcept {
  std::uint64_t any = 0;
  for (std::uint32_t word = 0; word * 64 < n_nodes_; ++word) any |= candidates_->words[word];
  return any != 0;
}

/// From here on the candidates are this query's own, and may be taken out.
std::uint64_t* RouteView::narrow() noexcept {
  if (candidates_ != &narrowed_) {
    std::copy_n(candidates_->words.data(), (n_nodes_ + 63) / 64, narrowed_.words.data());
    candidates_ = &narrowed_;
  }
  narrowed_.counted = false;
  return narrowed_.words.data();
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
      known->able.resize(narrowed_.words.size());
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
  for (std::uint32_t index = 0; index * 64 < n_nodes_; ++index) copy_block(index);
}

inline void RouteView::copy_block(std::uint32_t index) noexcept {
  using What = Columns::Block::Changes::What;
  const Columns::Block& block = fleet_->columns().block(index);
  const auto changes = block.changed(seen_[index]);
  if (changes.what == What::nothing) return;
  if (changes.what == What::latest_of_some) {
    for (std::uint32_t k = 0; k < changes.n_rows_named; ++k) copy_latest(block, index, changes.row(k));
    return;
  }
  for (std::uint32_t row = 0; row < 64; ++row) copy_latest(block, index, row);
  if (changes.what == What::latest) return;
  for (std::uint32_t row = 0; row < 64; ++row) {
    const std::uint32_t node = index * 64 + row;
    const contracts::FloatPair theirs = contracts::unpack(block.get(row, Columns::pressure_network));
    const contracts::FloatPair others = contracts::unpack(block.get(row, Columns::others_bound));
    others_ahead_[node] = others.first;
    pending_max_[node] = others.second;
    pressure_[node] = theirs.first;
    network_us_[node] = theirs.second;
  }
}

inline void RouteView::copy_latest(const Columns::Block& block, std::uint32_t index, std::uint32_t row) noexcept {
  const contracts::FloatPair ours = contracts::unpack(block.get(row, Columns::wait_inflight));
  float& wait_us = wait_us_[index * 64 + row];
  float& inflight = inflight_[index * 64 + row];
  // What came and went again is left alone: a vector that is loaded where a part of it was just stored waits for that.
  if (wait_us == ours.first && inflight == ours.second) return;
  wait_us = ours.first;
  inflight = ours.second;
  fewest_.stale[index / 64] |= std::uint64_t{1} << (index % 64);
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
  query_.model = query.model;  // what why_not() asks for; all of it, just written, would be waited for
  query_.require = query.require;
  scored_ = score_query(query, weights);
  use_columns(query);
  const bool may_hold = prefix_ != nullptr && weights.block_size > 0.0 && !query.blocks.empty();
  if (may_hold && prefix_->held(query.blocks, held_blocks_)) scored_.parts |= ScoreParts::prefix;
  if ((scored_.parts & ScoreParts::weighed) != 0) copy_prices();
  return any;
}

Least RouteView::least_cost() const noexcept {
  return route::least_cost(columns_, scored_, candidates_->words.data(), n_nodes_);
}

Least RouteView::least_cost_noting() noexcept {
  const ScoreNotes noted{.standing_us = standing_us_.data(), .without_risk_us = cost_us_.data()};
  return route::least_cost_noting(columns_, scored_, candidates_->words.data(), n_nodes_, noted);
}

void RouteView::keep_noted(float standing_us_max) noexcept {
  keep_at_most(standing_us_.data(), standing_us_max, narrow(), n_nodes_);
}

Least RouteView::least_noted_outside(const std::uint64_t* set) noexcept {
  for (std::uint32_t word = 0; word * 64 < n_nodes_; ++word) outside_[word] = candidates_->words[word] & ~set[word];
  return least_cost_noted(columns_, scored_, outside_.data(), n_nodes_, cost_us_.data());
}

void RouteView::keep_within(float standing_us_max) noexcept {
  route::keep_within(columns_, scored_, standing_us_max, narrow(), n_nodes_);
}

std::span<const float> RouteView::costs() noexcept {
  route::costs(columns_, scored_, candidates_->words.data(), n_nodes_, cost_us_.data());
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
  const bool timed = (asked.parts & ScoreParts::deadline) != 0;  // the only part that such a query can have
  return terms_from(timed ? NodeScore::of<ScoreParts::deadline>(figures, asked) : NodeScore::of<0>(figures, asked),
                    asked);
}

bool RouteView::filter(const RouteQuery& query) noexcept {
  if (query.deadline_ns == base::never_ns) return find_candidates(query, false);
  if (!prepare(query, {})) return false;
  keep_within(std::numeric_limits<float>::infinity());
  return any_left();
}

NodeId RouteView::fastest(const RouteQuery& query) noexcept {
  if (!prepare(query, {})) return base::no_node;
  const Least least = least_cost();
  return least.value == std::numeric_limits<float>::infinity() ? base::no_node : NodeId{least.node};
}

NodeId RouteView::least_inflight() noexcept {
  copy_changed();
  if (candidates_ == &narrowed_) return NodeId{least_of(inflight_.data(), narrowed_.words.data(), n_nodes_).node};
  const std::uint32_t n_words = (n_nodes_ + 63) / 64;
  if (fewest_.of != candidates_ || fewest_.residency != candidates_->residency) {
    fewest_.of = candidates_;
    fewest_.residency = candidates_->residency;
    std::fill(fewest_.stale.begin(), fewest_.stale.end(), ~std::uint64_t{0});
  }
  for (std::uint32_t group = 0; group * 64 < n_words; ++group) {
    for (std::uint64_t left = std::exchange(fewest_.stale[group], 0); left != 0; left &= left - 1) {
      const std::uint32_t word = group * 64 + static_cast<std::uint32_t>(std::countr_zero(left));
      if (word >= n_words) break;
      const Least least = least_of(&inflight_[word * 64], &candidates_->words[word], 64);
      fewest_.least[word] = least.value;
      fewest_.node[word] = word * 64 + least.node;
    }
  }
  return NodeId{fewest_.node[least_of(fewest_.least.data(), fewest_.all.data(), n_words).node]};
}

NodeId RouteView::next_candidate(std::uint32_t from) const noexcept {
  for (std::uint32_t word = from / 64; word * 64 < n_nodes_; ++word) {
    std::uint64_t left = candidates_->words[word];
    if (word == from / 64) left &= ~std::uint64_t{0} << (from % 64);
    if (left != 0) return NodeId{word * 64 + static_cast<std::uint32_t>(std::countr_zero(left))};
  }
  return base::no_node;
}

NodeId RouteView::candidate(std::uint32_t k) const noexcept {
  (void)n_candidates();
  const std::vector<std::uint32_t>& before = candidates_->before;
  std::uint32_t word = k / 64;  // there, where all lower ids are candidates; else later
  if (word + 1 < candidates_->n_words && before[word + 1] <= k) {
    const auto after = std::upper_bound(before.begin() + word + 1, before.begin() + candidates_->n_words, k);
    word = static_cast<std::uint32_t>(after - before.begin()) - 1;
  }
  return NodeId{word * 64 + set_bit_at(candidates_->words[word], k - before[word])};
}

}  // namespace infcore::route
