#include <infcore/base/errors.hpp>
#include <infcore/base/lane_bits.hpp>
#include <infcore/route/prefix_index.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <type_traits>
#include <utility>

namespace infcore::route {
namespace {

std::size_t padded(std::size_t n_nodes) noexcept { return (n_nodes + 63) / 64 * 64; }

const PrefixConfig& checked(const PrefixConfig& config) {
  if (config.max_blocks < 1 || config.max_blocks > PrefixTable::max_blocks_most)
    throw InvalidArgument("max_blocks", std::to_string(config.max_blocks),
                          "1 to " + std::to_string(PrefixTable::max_blocks_most));
  for (const auto& [name, credit] : {std::pair{"host_credit", config.host_credit}, {"disk_credit", config.disk_credit}})
    if (!(credit >= 0.0f && credit <= 1.0f)) throw InvalidArgument(name, std::to_string(credit), "0 to 1");
  if (config.ttl_ns < 2) throw InvalidArgument("ttl_ns", std::to_string(config.ttl_ns), "at least 2");
  return config;
}

constexpr int few_bits = 12;  // of 64: below, one by one is faster

/// column[bit] += n for each bit of the word.
template <class Depth>
void add_each(std::uint64_t word, Depth n, Depth* __restrict column) noexcept {
  if (std::popcount(word) < few_bits) {
    for (; word != 0; word &= word - 1) column[std::countr_zero(word)] += n;
    return;
  }
  for (std::uint32_t half = 0; half < 2; ++half) {
    const auto bits = static_cast<std::uint32_t>(word >> (32 * half));
    Depth* __restrict const here = column + 32 * half;
#pragma omp simd
    for (std::uint32_t lane = 0; lane < 32; ++lane) here[lane] += (bits & base::lane_bit[lane]) != 0 ? n : Depth{0};
  }
}

/// The nodes of 64 whose depth is not 0, and those depths, to the end of two rows of `n`. Returns how many are there
/// then.
std::size_t add_found(std::int32_t first, const std::int32_t* __restrict depth, std::size_t n,
                      std::int32_t* __restrict nodes, std::int32_t* __restrict held) noexcept {
  std::int32_t least = depth[0];
#pragma omp simd reduction(min : least)
  for (std::size_t i = 0; i < 64; ++i) least = depth[i] < least ? depth[i] : least;
  if (least > 0) {  // most often all of them, where many hold a prefix
    for (std::int32_t i = 0; i < 64; ++i) nodes[n + static_cast<std::size_t>(i)] = first + i;
    std::copy(depth, depth + 64, held + n);
    return n + 64;
  }
  for (std::int32_t i = 0; i < 64; ++i) {
    nodes[n] = first + i;  // written over by the next where this one has none; the rows have room for all 64
    held[n] = depth[i];
    n += depth[i] > 0 ? 1u : 0u;
  }
  return n;
}

}  // namespace

PrefixIndex::PrefixIndex(const PrefixConfig& config)
    : config_(checked(config)),
      exact_(config.max_nodes, config.max_blocks),
      says_(config.max_nodes),
      known_(config.max_nodes),
      born_(config.max_nodes),
      alive_(padded(config.max_nodes) / 64),
      next_(alive_.size()),
      host_(alive_.size()),
      other_column_(padded(config.max_nodes)),
      depth_(padded(config.max_nodes)),
      other_depth_(depth_.size()),
      nodes_(depth_.size() + 1),
      held_(depth_.size() + 1) {
  if (!config.approximate) return;
  young_ = std::make_unique<PrefixTable>(config.max_nodes, config.max_blocks);
  old_ = std::make_unique<PrefixTable>(config.max_nodes, config.max_blocks);
  spare_ = std::make_unique<PrefixTable>(config.max_nodes, config.max_blocks);
}

PrefixStats PrefixIndex::stats() const noexcept {
  PrefixStats stats{exact_.n_blocks(), 0, exact_.n_evicted(), exact_.n_bytes()};
  if (!young_) return stats;
  stats.n_picked_blocks = young_->n_blocks() + old_->n_blocks();
  stats.n_bytes += young_->n_bytes() + old_->n_bytes() + spare_->n_bytes();
  return stats;
}

std::size_t PrefixIndex::stored(NodeId node, std::span<const std::uint64_t> blocks, KvTier tier,
                                const std::uint64_t* after) {
  believe(node);
  return exact_.stored(node, blocks, tier, after);
}

std::size_t PrefixIndex::removed(NodeId node, std::span<const std::uint64_t> blocks, KvTier tier) {
  believe(node);
  return exact_.removed(node, blocks, tier);
}

void PrefixIndex::cleared(NodeId node) noexcept {
  believe(node);
  exact_.clear_node(node);
}

void PrefixIndex::picked(NodeId node, std::span<const std::uint64_t> blocks, base::TimeNs now_ns) {
  if (!young_ || says_[node.value] || blocks.empty()) return;
  advance(now_ns);
  if (turn_ns_ == base::never_ns) turn_ns_ = now_ns + config_.ttl_ns / 2;
  known_[node.value] = true;
  young_->stored(node, blocks, KvTier::device, nullptr);
  // Twice as fast as the young one fills: empty before it is needed, unless picks have become rare.
  spare_->clear_some(2 * blocks.size());
}

/// What is believed of one's own picks ends where a node speaks for itself.
void PrefixIndex::believe(NodeId node) noexcept {
  known_[node.value] = true;
  if (says_[node.value]) return;
  says_[node.value] = true;
  if (!young_) return;
  young_->clear_node(node);
  old_->clear_node(node);
}

void PrefixIndex::forget(NodeId node) noexcept {
  if (!known_[node.value]) return;
  known_[node.value] = says_[node.value] = false;
  exact_.clear_node(node);
  if (!young_) return;
  young_->clear_node(node);
  old_->clear_node(node);
}

/// The old are forgotten, and the young are the old ones; those, too, where nobody asked for so long.
void PrefixIndex::turn(base::TimeNs now_ns) noexcept {
  const base::TimeNs half_ns = config_.ttl_ns / 2;
  spare_->clear();
  old_.swap(spare_);
  young_.swap(old_);
  if (now_ns - turn_ns_ >= half_ns) old_->clear();
  turn_ns_ = old_->n_blocks() > 0 ? turn_ns_ + half_ns : base::never_ns;  // late or not: nothing is believed for longer
}

void PrefixIndex::forget_gone(const Fleet& fleet) noexcept {
  version_ = fleet.version();
  const std::uint32_t n = std::min(fleet.n_nodes(), config_.max_nodes);
  for (NodeId node{0}; node.value < n; ++node.value) {
    const std::uint64_t born = fleet.born(node);
    if (born != born_[node.value] || fleet.state(node) == NodeState::absent) forget(node);
    born_[node.value] = born;
  }
}

/// Adds up how many leading blocks each node holds. False where none holds any. Floats: by the tiers' credit.
template <class Depth>
bool PrefixIndex::depths(const PrefixTable& table, std::span<const std::uint64_t> blocks,
                         std::span<Depth> column) const noexcept {
  const NodeSets& sets = table.sets();
  const std::size_t n_words = std::min<std::size_t>(sets.n_words(), column.size() / 64);
  const std::span<std::uint64_t> alive(alive_.data(), n_words), next(next_.data(), n_words);
  NodeSets::Id run = NodeSets::empty;
  std::size_t run_from = 0;
  bool any = false;
  const auto end_run = [&](std::size_t at) noexcept {
    if constexpr (std::is_same_v<Depth, float>)
      if (sets.is_tiered(run)) take_credit(sets, run, at - run_from, column);
    run_from = at;
  };
  const std::size_t n = table.walk(blocks, [&](NodeSets::Id id, std::size_t at) noexcept {
    if (run == NodeSets::empty) {
      sets.holders(id, alive);
      run = id;
      any = std::any_of(alive.begin(), alive.end(), [](std::uint64_t bits) { return bits != 0; });
      return any;
    }
    end_run(at);
    run = id;
    sets.holders(id, next);
    std::uint64_t left = 0;
    for (std::size_t w = 0; w < n_words; ++w) {
      const std::uint64_t gone = alive[w] & ~next[w];
      left |= alive[w] &= next[w];
      if (gone != 0) add_each(gone, static_cast<Depth>(at), column.data() + 64 * w);
    }
    return left != 0;
  });
  if (!any) return false;
  end_run(n);
  for (std::size_t w = 0; w < n_words; ++w)
    if (alive[w] != 0) add_each(alive[w], static_cast<Depth>(n), column.data() + 64 * w);
  return true;
}

/// Of n blocks in a row with these holders, what those that are left save less than if all were on the device.
void PrefixIndex::take_credit(const NodeSets& sets, NodeSets::Id id, std::size_t n_blocks,
                              std::span<float> column) const noexcept {
  const std::size_t n_words = std::min<std::size_t>(sets.n_words(), column.size() / 64);
  const std::span<std::uint64_t> device(next_.data(), n_words), host(host_.data(), n_words);
  sets.holders(id, KvTier::device, device);
  sets.holders(id, KvTier::host, host);
  const auto n = static_cast<float>(n_blocks);
  for (std::size_t w = 0; w < n_words; ++w) {
    const std::uint64_t farther = alive_[w] & ~device[w];
    float* const here = column.data() + 64 * w;
    add_each(farther & host[w], -n * (1.0f - config_.host_credit), here);
    add_each(farther & ~host[w], -n * (1.0f - config_.disk_credit), here);
  }
}

bool PrefixIndex::held(std::span<const std::uint64_t> blocks, std::span<float> column) const noexcept {
  std::fill(column.begin(), column.end(), 0.0f);
  bool any = depths(exact_, blocks, column);
  if (!young_) return any;
  const std::span<float> other(other_column_.data(), column.size());
  for (const PrefixTable* table : {young_.get(), old_.get()}) {
    if (table->n_blocks() == 0) continue;
    std::fill(other.begin(), other.end(), 0.0f);
    if (!depths(*table, blocks, other)) continue;
    any = true;
    for (std::size_t i = 0; i < column.size(); ++i) column[i] = column[i] < other[i] ? other[i] : column[i];
  }
  return any;
}

PrefixIndex::Match PrefixIndex::match(std::span<const std::uint64_t> blocks) const noexcept {
  std::size_t n_words = exact_.sets().n_words();
  if (young_) n_words = std::max<std::size_t>({n_words, young_->sets().n_words(), old_->sets().n_words()});
  const std::span<std::int32_t> depth(depth_.data(), 64 * n_words), other(other_depth_.data(), 64 * n_words);
  std::fill(depth.begin(), depth.end(), 0);
  bool any = depths(exact_, blocks, depth);
  for (const PrefixTable* table : {young_.get(), old_.get()}) {
    if (!table || table->n_blocks() == 0) continue;
    std::fill(other.begin(), other.end(), 0);
    any |= depths(*table, blocks, other);
    for (std::size_t i = 0; i < depth.size(); ++i) depth[i] = std::max(depth[i], other[i]);
  }
  if (!any) return {};
  std::size_t n = 0;
  for (std::size_t w = 0; w < n_words; ++w)
    n = add_found(static_cast<std::int32_t>(64 * w), depth.data() + 64 * w, n, nodes_.data(), held_.data());
  return {{nodes_.data(), n}, {held_.data(), n}};
}

}  // namespace infcore::route
